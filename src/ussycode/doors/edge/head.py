"""Strict reading of HTTP/1.1 request heads, and what of them a VM is told.

Anything that two programs could read in two ways is refused with 400: two lengths, a length and a chunked
body, two hosts, folded lines, bare line feeds, control characters, a target that is not a path.
"""
from __future__ import annotations

import re

from ussycode.doors.edge.fields import CHUNKED, TOKEN, Fields, Refused, read

MAX_HEAD = 32 * 1024
"""Bytes of request line and headers."""
BARE_LF = re.compile(rb"(?<!\r)\n").search
"""Ends a line for some programs and not for others."""
_LINE = re.compile(rb"(" + TOKEN + rb"{1,32}) ([!-~]+) HTTP/1\.([01])").fullmatch
_UPGRADE = b"\r\nConnection: Upgrade\r\nUpgrade: "


class Request:
    """One request head, read. Byte strings are as sent."""

    __slots__ = ("close", "fields", "has_body", "method", "modern", "target", "upgrade")

    def __init__(self, method: bytes, target: bytes, modern: bool, fields: Fields) -> None:
        self.method = method
        self.target = target
        self.modern = modern
        """HTTP/1.1; otherwise 1.0."""
        self.fields = fields
        self.close = not modern or b"close" in fields.hop
        """The connection may not serve another request."""
        self.has_body = bool(fields.length)
        """Bytes follow the head."""
        self.upgrade = fields.upgrade if modern and method == b"GET" else None
        """Protocol that the connection may change to."""

    @property
    def host(self) -> bytes:
        """Host in lower case, with its port."""
        return self.fields.host

    @property
    def hostname(self) -> bytes:
        """Host in lower case, without its port."""
        return self.fields.hostname

    @property
    def session(self) -> bytes | None:
        """Value of the session cookie, if it has the shape of one."""
        return self.fields.session

    @property
    def token(self) -> bytes | None:
        """A token of the platform, from whichever header carried it."""
        return self.fields.token

    @property
    def length(self) -> int | None:
        """Bytes of the body, CHUNKED, or None when nothing is said of one."""
        return self.fields.length

    @property
    def wants_page(self) -> bool:
        """A browser navigates, rather than a program calls; browsers show no tokens."""
        return self.fields.token is None and self.method in (b"GET", b"HEAD") and self.fields.accepts_page

    @property
    def is_git(self) -> bool:
        """git calls, which sends the password of its URL only when asked to."""
        return self.fields.is_git

    @property
    def path(self) -> bytes:
        """The target without its query."""
        return self.target.partition(b"?")[0]


def parse(head: bytes) -> Request:
    """Read `head`, which ends before its empty line. Raises Refused."""
    end = head.find(b"\r\n")
    line, block = (head[:end], head[end:]) if end >= 0 else (head, b"")
    match = _LINE(line)
    if match is None:
        raise Refused(400, "the request head is malformed")
    method, target, version = match.groups()
    if target[0] != 0x2F and not (target == b"*" and method == b"OPTIONS"):
        raise Refused(400, "the request target must be a path")
    if method in _NOT_SERVED:
        raise Refused(405, "this method is not served")
    request = Request(method, target, version == b"1", read(block))
    if request.fields.length == CHUNKED and not request.modern:
        raise Refused(400, "the body's transfer encoding is not served")
    return request


def outgoing(request: Request, facts: bytes, for_platform: bool) -> bytes:
    """The head as sent upstream; `facts` is the block of headers that only the edge may write.

    The platform itself sees the session cookie; a VM never does.
    """
    lines = request.fields.for_platform if for_platform else request.fields.for_vm
    if request.upgrade is not None:
        lines += _UPGRADE + request.upgrade
    return b"%b %b HTTP/1.%d%b\r\n%b" % (request.method, request.target, request.modern, lines, facts)


_NOT_SERVED = (b"CONNECT", b"TRACE", b"TRACK")
