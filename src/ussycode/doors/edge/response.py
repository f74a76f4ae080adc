"""Strict reading of an upstream's response head, and the head that the visitor gets instead."""
from __future__ import annotations

import functools
import re
from collections.abc import Callable

from ussycode.doors.edge.fields import FOLD, LINES, SESSION_COOKIE, finder
from ussycode.doors.edge.framing import WHOLE, ByChunks, ByLength, Framing, Malformed, UntilClose
from ussycode.doors.edge.head import BARE_LF

MAX_RESPONSE_HEAD = 64 * 1024
"""Bytes of status line and headers that an app may send."""
MAX_KEPT, MAX_KEPT_HEAD = 1024, 1024
"""How many heads are remembered, and up to how many bytes each: apps say the same again and again."""
_COOKIES = re.compile(rb"(?i)cookies|\*").search
_BEGINNING = b"HTTP/1."
_HEAD = re.compile(rb"HTTP/1\.([01]) ([1-5][0-9]{2})(?: ([^\x00-\x08\x0a-\x1f\x7f]*))?" + LINES).fullmatch


class Response:
    """One response head, read. Never changed once `parse` has returned it: equal heads share it."""

    chunked = False
    length: int | None = None
    """None when nothing says where the body ends."""
    upgrade: bytes | None = None
    connection: frozenset[bytes] = frozenset()
    kept = b""
    """Lines that the visitor gets as they came, each with the CRLF before it."""
    begin = b""
    """The head for the visitor but for what the edge adds."""

    def __init__(self, status: int, reason: bytes, modern: bool) -> None:
        self.status = status
        self.status_line = b"HTTP/1.1 %d %b" % (status, reason)
        self.modern = modern
        self.close = not modern
        self.has_body = status >= 200 and status not in (204, 304)

    def framing(self, to_head: bool) -> Framing:
        """How the body ends; `to_head` says that the request was HEAD."""
        if to_head or not self.has_body:
            return WHOLE
        if self.chunked:
            return ByChunks(trailer_allowed)
        return UntilClose() if self.length is None else ByLength(self.length)

    def outgoing(self, extra: bytes, close: bool, body: bytes = b"") -> bytes:
        """The head for the visitor, then `body`. `extra` is whole header lines, each with CRLF."""
        if self.status == 101:
            change = b"Connection: Upgrade\r\nUpgrade: " + (self.upgrade or b"websocket")
            return b"%b\r\n%b\r\n%b\r\n" % (self.begin, change, extra)
        if close and self.status >= 200:
            return b"%b\r\nConnection: close\r\n%b\r\n%b" % (self.begin, extra, body)
        return b"%b\r\n%b\r\n%b" % (self.begin, extra, body)


def parse(head: bytes, from_platform: bool) -> Response:
    """Read `head`, which ends before its empty line. Raises Malformed.

    Only the platform may set the session cookie.
    """
    small = len(head) <= MAX_KEPT_HEAD and not from_platform
    return _remembered(head, False) if small else _parse(head, from_platform)


def _parse(head: bytes, from_platform: bool) -> Response:
    match = _HEAD(head)
    if match is None:
        raise Malformed("the response head is malformed")
    response = Response(int(match[2]), match[3] or b"", match[1] == b"1")
    block = match[4]
    kept, at = [], 0
    for line in _NOTABLE(block):
        kept.append(block[at : line.start()])
        at = line.end()
        special = _SPECIAL[line[1].translate(FOLD)]
        if special(response, line[2].strip(b" \t"), from_platform):
            kept.append(line[0])
    kept.append(block[at:])
    response.kept = b"".join(kept)
    if response.chunked or response.connection:
        _check(response)
    response.begin = response.status_line + response.kept + _length(response)
    return response


_remembered = functools.lru_cache(MAX_KEPT)(_parse)


def hopeful(piece: bytes, looked: int = 0) -> bool:
    """Whether `piece`, which has no empty line yet, may become a head: servers of other protocols speak first.

    `looked` bytes of it were found hopeful before.
    """
    return _BEGINNING.startswith(piece[: len(_BEGINNING)]) and BARE_LF(piece, looked) is None


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
        lines = response.kept.split(b"\r\n")[1:]
        response.kept = b"".join(b"\r\n" + k for k in lines if k[: k.index(b":")].translate(FOLD) not in hop)


def _length(response: Response) -> bytes:
    if response.status < 200 or response.status == 204:
        return b""  # no body, whatever the app says of one: a client that believed it would misread what follows
    if response.chunked:
        return b"\r\nTransfer-Encoding: chunked"
    return b"" if response.length is None else b"\r\nContent-Length: %d" % response.length


# Each of these takes one line's value; True lets the line travel on as it is.


def _on_length(response: Response, value: bytes, from_platform: bool) -> bool:
    if not value.isdigit() or len(value) > 18:
        raise Malformed("the response length is malformed")
    if response.length is not None and response.length != int(value):
        raise Malformed("the response has two lengths")
    response.length = int(value)
    return False


def _on_transfer(response: Response, value: bytes, from_platform: bool) -> bool:
    if value.lower() != b"chunked" or response.chunked:
        raise Malformed("the response's transfer encoding is not served")
    response.chunked = True
    return False


def _on_connection(response: Response, value: bytes, from_platform: bool) -> bool:
    names = frozenset(part.strip(b" \t").translate(FOLD) for part in value.split(b","))
    response.connection |= names
    if b"close" in names:
        response.close = True
    elif b"keep-alive" in names and not response.modern:
        response.close = False
    return False


def _on_upgrade(response: Response, value: bytes, from_platform: bool) -> bool:
    response.upgrade = value
    return False


def _on_set_cookie(response: Response, value: bytes, from_platform: bool) -> bool:
    # A cookie without a name goes back as its bare value, which may look like one with a name.
    name = value.lstrip(b"= \t").partition(b";")[0].partition(b"=")[0].strip(b" \t")
    return from_platform or name.lower() != SESSION_COOKIE.lower()


def _on_clear(response: Response, value: bytes, from_platform: bool) -> bool:
    # Browsers clear the cookies of the whole registrable domain: a VM would sign its visitors out everywhere.
    return from_platform or not _COOKIES(value)


def _drop(response: Response, value: bytes, from_platform: bool) -> bool:
    return False  # meant for this hop only, or the edge's own to say


_SPECIAL: dict[bytes, Callable[[Response, bytes, bool], bool]] = {
    b"content-length": _on_length, b"transfer-encoding": _on_transfer, b"connection": _on_connection,
    b"upgrade": _on_upgrade, b"set-cookie": _on_set_cookie, b"keep-alive": _drop, b"te": _drop,
    b"proxy-connection": _drop, b"proxy-authenticate": _drop, b"x-request-id": _drop,
    b"x-ussycode-degraded": _drop, b"clear-site-data": _on_clear,
}
_NOTABLE = finder(_SPECIAL)
