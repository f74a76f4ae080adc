"""Strict reading of an upstream's response head, and the head that the visitor gets instead."""
from __future__ import annotations

import re
from collections.abc import Callable

from ussycode.doors.edge.framing import ByChunks, ByLength, Framing, Malformed, UntilClose
from ussycode.doors.edge.head import BARE_LF, FIELDS, FOLD, SESSION_COOKIE

MAX_RESPONSE_HEAD = 64 * 1024
"""Bytes of status line and headers that an app may send."""
_COOKIES = re.compile(rb"(?i)cookies|\*").search
_BEGINNING = b"HTTP/1."
_HEAD = re.compile(rb"HTTP/1\.([01]) ([1-5][0-9]{2})(?: ([^\x00-\x08\x0a-\x1f\x7f]*))?" + FIELDS).fullmatch


class Response:
    """One response head, read. `length` is None when nothing says where the body ends."""

    chunked = False
    length: int | None = None
    upgrade: bytes | None = None
    connection: frozenset[bytes] = frozenset()

    def __init__(self, status: int, reason: bytes, modern: bool) -> None:
        self.status = status
        self.status_line = b"HTTP/1.1 %d %b" % (status, reason)
        self.modern = modern
        self.close = not modern
        self.keep: list[bytes] = []

    def framing(self, to_head: bool) -> Framing:
        """How the body ends; `to_head` says that the request was HEAD."""
        if to_head or self.status in (204, 304) or self.status < 200:
            return ByLength(0)
        if self.chunked:
            return ByChunks(trailer_allowed)
        return UntilClose() if self.length is None else ByLength(self.length)

    def outgoing(self, extra: bytes, close: bool) -> bytes:
        """The head for the visitor, with its empty line. `extra` is whole header lines, each with CRLF."""
        lines = [self.status_line, *self.keep]
        if self.status < 200 or self.status == 204:
            pass  # no body, whatever the app says of one: a client that believed it would wait, or misread what follows
        elif self.chunked:
            lines.append(b"Transfer-Encoding: chunked")
        elif self.length is not None:
            lines.append(b"Content-Length: %d" % self.length)
        if self.status == 101:
            lines.append(b"Connection: Upgrade\r\nUpgrade: " + (self.upgrade or b"websocket"))
        elif close:
            lines.append(b"Connection: close")
        lines.append(extra)
        return b"\r\n".join(lines) + b"\r\n"


def parse(head: bytes, from_platform: bool) -> Response:
    """Read `head`, which ends before its empty line. Raises Malformed.

    Only the platform may set the session cookie.
    """
    match = _HEAD(head)
    if match is None:
        raise Malformed("the response head is malformed")
    response = Response(int(match[2]), match[3] or b"", match[1] == b"1")
    lines = match[4].split(b"\r\n")
    for index in range(1, len(lines)):
        line = lines[index]
        name = line[: line.index(b":")].translate(FOLD)
        special = _SPECIAL.get(name)
        if special is None:
            response.keep.append(line)
        else:
            special(response, line, from_platform)
    if response.chunked or response.connection:
        _check(response)
    return response


def hopeful(piece: bytes) -> bool:
    """Whether `piece`, which has no empty line yet, may become a head: servers of other protocols speak first."""
    return _BEGINNING.startswith(piece[: len(_BEGINNING)]) and BARE_LF(piece) is None


def trailer_allowed(line: bytes) -> bool:
    """Whether an app may send this trailer line on: nothing that frames, and no cookies."""
    return line[: line.index(b":")].translate(FOLD) not in _SPECIAL


def _check(response: Response) -> None:
    if response.chunked and not response.modern:
        raise Malformed("a chunked response in HTTP/1.0")
    if response.chunked and response.length is not None:
        raise Malformed("the response has a length and a chunked body")
    hop = response.connection - {b"close", b"keep-alive", b"upgrade"}
    if hop:
        response.keep = [k for k in response.keep if k[: k.index(b":")].translate(FOLD) not in hop]


def _value(line: bytes) -> bytes:
    return line[line.index(b":") + 1 :].strip(b" \t")


def _on_length(response: Response, line: bytes, from_platform: bool) -> None:
    value = _value(line)
    if not value.isdigit() or len(value) > 18:
        raise Malformed("the response length is malformed")
    if response.length is not None and response.length != int(value):
        raise Malformed("the response has two lengths")
    response.length = int(value)


def _on_transfer(response: Response, line: bytes, from_platform: bool) -> None:
    if _value(line).lower() != b"chunked" or response.chunked:
        raise Malformed("the response's transfer encoding is not served")
    response.chunked = True


def _on_connection(response: Response, line: bytes, from_platform: bool) -> None:
    names = frozenset(part.strip(b" \t").translate(FOLD) for part in _value(line).split(b","))
    response.connection |= names
    if b"close" in names:
        response.close = True
    elif b"keep-alive" in names and not response.modern:
        response.close = False


def _on_upgrade(response: Response, line: bytes, from_platform: bool) -> None:
    response.upgrade = _value(line)


def _on_set_cookie(response: Response, line: bytes, from_platform: bool) -> None:
    # A cookie without a name goes back as its bare value, which may look like one with a name.
    name = _value(line).lstrip(b"= \t").partition(b";")[0].partition(b"=")[0].strip(b" \t")
    if from_platform or name.lower() != SESSION_COOKIE.lower():
        response.keep.append(line)


def _on_clear(response: Response, line: bytes, from_platform: bool) -> None:
    # Browsers clear the cookies of the whole registrable domain: a VM would sign its visitors out everywhere.
    if from_platform or not _COOKIES(line):
        response.keep.append(line)


def _drop(response: Response, line: bytes, from_platform: bool) -> None:
    """Meant for this hop only, or the edge's own to say."""


_SPECIAL: dict[bytes, Callable[[Response, bytes, bool], None]] = {
    b"content-length": _on_length, b"transfer-encoding": _on_transfer, b"connection": _on_connection,
    b"upgrade": _on_upgrade, b"set-cookie": _on_set_cookie, b"keep-alive": _drop, b"te": _drop,
    b"proxy-connection": _drop, b"proxy-authenticate": _drop, b"x-request-id": _drop,
    b"x-ussycode-degraded": _drop, b"clear-site-data": _on_clear,
}
