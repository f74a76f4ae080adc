"""Strict reading of HTTP/1.1 request heads, and what of them a VM is told.

Anything that two programs could read in two ways is refused with 400: two lengths, a length and a chunked
body, two hosts, folded lines, bare line feeds, control characters, a target that is not a path.
"""
from __future__ import annotations

import re
from collections.abc import Callable

from ussycode.doors.edge.bearer import token_of

MAX_HEAD = 32 * 1024
"""Bytes of request line and headers."""
MAX_HEADERS = 100
SESSION_COOKIE = b"__Host-ussycode"
MAX_TOKEN = 8192
"""Bytes of a token that are looked at; a longer one is refused as one of this length."""
CHUNKED = -1
"""`Request.length` of a body that says its own end."""

_TOKEN = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]"
_VALUE = rb"[^\x00-\x08\x0a-\x1f\x7f]*"
FIELDS = rb"((?:\r\n" + _TOKEN + rb"+:" + _VALUE + rb")*)"
"""Header lines, each with the CRLF before it; no folding, no control characters."""
BARE_LF = re.compile(rb"(?<!\r)\n").search
"""Ends a line for some programs and not for others."""
_HEAD = re.compile(rb"(" + _TOKEN + rb"{1,32}) ([!-~]+) HTTP/1\.([01])" + FIELDS).fullmatch
_HOST = re.compile(rb"([a-z0-9._-]{1,253}|\[[0-9a-f:.]+\])(?::[0-9]{1,5})?").fullmatch
_SESSION = re.compile(rb"(?:^|;)[ \t]*__Host-ussycode=([^;]*)").search
_SESSION_PARTS = re.compile(rb"(?:^|;)[ \t]*__Host-ussycode=[^;]*").sub
_SECRET = re.compile(rb"[A-Za-z0-9_-]{16,128}").fullmatch
_PROTOCOL = re.compile(_TOKEN + rb"+(?:/" + _TOKEN + rb"+)?").fullmatch
_NO_TUNNEL = (b"h2c", b"h2", b"http", b"tls")
"""Upgrades that would carry further HTTP requests past the decision and the header rules."""

FOLD = bytes(ord(chr(c).lower()) if c < 128 and chr(c).isalnum() else ord("-") for c in range(256))
"""Lower case, and every separator as a dash: frameworks fold `X_Ussycode_Email` into `X-Ussycode-Email`."""
STRIPPED = (
    b"x-ussycode", b"x-exedev", b"x-forwarded", b"forwarded", b"x-real-ip", b"x-request-id", b"proxy",
    b"x-original-", b"x-rewrite-", b"http2-settings",
)
"""Folded beginnings of header names that a client may not send on: identity, route, and connection matters."""


class Refused(Exception):
    """The head cannot be served: HTTP status and a sentence for the client."""

    def __init__(self, status: int, sentence: str) -> None:
        super().__init__(sentence)
        self.status = status
        self.sentence = sentence


class Request:
    """One request head, read. Byte strings are as sent; `host` is lower case with its port."""

    host = b""
    hostname = b""
    session: bytes | None = None
    token: bytes | None = None
    """A token of the platform, from whichever header carried it."""
    authorization: bytes | None = None
    """An Authorization value that is the app's own business, or the platform's on its own host."""
    length: int | None = None
    upgrade: bytes | None = None
    hop: frozenset[bytes] = frozenset()
    expects = False

    def __init__(self, method: bytes, target: bytes, modern: bool) -> None:
        self.method = method
        self.target = target
        self.modern = modern
        """HTTP/1.1; otherwise 1.0."""
        self.close = not modern
        self.cookies: list[bytes] = []
        self.keep: list[bytes] = []
        """Header lines that travel on unchanged."""

    @property
    def wants_page(self) -> bool:
        """A browser navigates, rather than a program calls; browsers show no tokens."""
        if self.token is not None or self.method not in (b"GET", b"HEAD"):
            return False
        return any(line[:7].lower() == b"accept:" and b"text/html" in line for line in self.keep)

    @property
    def is_git(self) -> bool:
        """git calls, which sends the password of its URL only when asked to."""
        return any(line[:15].lower() == b"user-agent: git" for line in self.keep)

    @property
    def has_body(self) -> bool:
        """Bytes follow the head."""
        return self.length is not None and self.length != 0

    @property
    def path(self) -> bytes:
        """The target without its query."""
        return self.target.partition(b"?")[0]


def parse(head: bytes) -> Request:
    """Read `head`, which ends before its empty line. Raises Refused."""
    match = _HEAD(head)
    if match is None:
        raise Refused(400, "the request head is malformed")
    request = Request(match[1], match[2], match[3] == b"1")
    lines = match[4].split(b"\r\n")
    if len(lines) > MAX_HEADERS + 1:
        raise Refused(431, f"more than {MAX_HEADERS} headers")
    _read_fields(request, lines)
    _check(request)
    return request


def outgoing(request: Request, facts: bytes, for_platform: bool) -> bytes:
    """The head as sent upstream; `facts` is the block of headers that only the edge may write.

    The platform itself sees the session cookie; a VM never does.
    """
    lines = [b"%b %b HTTP/1.%d" % (request.method, request.target, request.modern), b"Host: " + request.host]
    lines += request.keep
    if request.authorization is not None and (for_platform or request.token is None):
        lines.append(b"Authorization: " + request.authorization)
    cookies = request.cookies if for_platform else [c for c in map(without_session, request.cookies) if c]
    if cookies:
        lines.append(b"Cookie: " + b"; ".join(cookies))
    if request.length is not None:
        chunked = request.length == CHUNKED
        lines.append(b"Transfer-Encoding: chunked" if chunked else b"Content-Length: %d" % request.length)
    if request.upgrade is not None:
        lines.append(b"Connection: Upgrade\r\nUpgrade: " + request.upgrade)
    lines.append(facts)
    return b"\r\n".join(lines)


def without_session(cookie: bytes) -> bytes:
    """A Cookie value without the platform's session."""
    if SESSION_COOKIE not in cookie:
        return cookie
    return _SESSION_PARTS(b"", cookie).lstrip(b"; \t")


def trailer_allowed(line: bytes) -> bool:
    """Whether a client may send this trailer line on: trailers obey the same rule as headers."""
    name = line[: line.index(b":")].translate(FOLD)
    return name not in _SPECIAL and not name.startswith(STRIPPED)


def _read_fields(request: Request, lines: list[bytes]) -> None:
    keep = request.keep
    for index in range(1, len(lines)):
        line = lines[index]
        name = line[: line.index(b":")].translate(FOLD)
        special = _SPECIAL.get(name)
        if special is None:
            if not name.startswith(STRIPPED):
                keep.append(line)
        elif line[: len(name)].lower() == name:  # `content_length` is nobody's header: dropped
            special(request, line[len(name) + 1 :].strip(b" \t"))


def _check(request: Request) -> None:
    if request.target[0] != 0x2F and not (request.target == b"*" and request.method == b"OPTIONS"):
        raise Refused(400, "the request target must be a path")
    if request.method in (b"CONNECT", b"TRACE", b"TRACK"):
        raise Refused(405, "this method is not served")
    host = _HOST(request.host)
    if host is None:
        raise Refused(400, "exactly one valid Host header is needed")
    request.hostname = host[1]
    if request.hop:
        request.keep = [k for k in request.keep if k[: k.index(b":")].translate(FOLD) not in request.hop]
    if request.upgrade is not None and not _may_tunnel(request):
        request.upgrade = None


def _may_tunnel(request: Request) -> bool:
    asked = b"upgrade" in request.hop and request.modern and not request.has_body and request.method == b"GET"
    return asked and request.upgrade is not None and not request.upgrade.lower().startswith(_NO_TUNNEL)


def _on_host(request: Request, value: bytes) -> None:
    if request.host:
        raise Refused(400, "exactly one valid Host header is needed")
    request.host = value.lower() or b" "


def _on_cookie(request: Request, value: bytes) -> None:
    request.cookies.append(value)
    if request.session is None and (found := _SESSION(value)) is not None:
        secret = found[1].strip(b" \t")
        request.session = secret if _SECRET(secret) is not None else None


def _on_authorization(request: Request, value: bytes) -> None:
    if request.authorization is not None:
        raise Refused(400, "at most one Authorization header is served")
    request.authorization = value
    request.token = request.token or token_of(value)


def _on_own_authorization(request: Request, value: bytes) -> None:
    # Ours alone: it wins over the common header, and whatever it holds is taken for a token.
    scheme, _, token = value.partition(b" ")
    request.token = token.strip(b" \t")[:MAX_TOKEN] if scheme.lower() == b"bearer" else b"-"


def _on_length(request: Request, value: bytes) -> None:
    if request.length is not None or not value.isdigit() or len(value) > 15:
        raise Refused(400, "exactly one body length is needed")
    request.length = int(value)


def _on_transfer(request: Request, value: bytes) -> None:
    if request.length is not None or value.lower() != b"chunked" or not request.modern:
        raise Refused(400, "the body's transfer encoding is not served")
    request.length = CHUNKED


def _on_connection(request: Request, value: bytes) -> None:
    names = frozenset(part.strip(b" \t").translate(FOLD) for part in value.split(b","))
    request.hop |= names
    if b"close" in names:
        request.close = True


def _on_upgrade(request: Request, value: bytes) -> None:
    # A list of protocols could hide a refused one behind an allowed one.
    request.upgrade = value if request.upgrade is None and _PROTOCOL(value) else b"h2c"


def _on_expect(request: Request, value: bytes) -> None:
    if value.lower() != b"100-continue":
        raise Refused(417, "the only expectation served is 100-continue")
    if not request.expects:
        request.expects = True
        request.keep.append(b"Expect: 100-continue")


def _ignore(request: Request, value: bytes) -> None:
    del request, value  # meant for this hop only


_SPECIAL: dict[bytes, Callable[[Request, bytes], None]] = {
    b"host": _on_host, b"cookie": _on_cookie, b"content-length": _on_length, b"transfer-encoding": _on_transfer,
    b"authorization": _on_authorization, b"x-ussycode-authorization": _on_own_authorization,
    b"x-exedev-authorization": _on_own_authorization, b"connection": _on_connection, b"upgrade": _on_upgrade,
    b"expect": _on_expect,
    b"keep-alive": _ignore, b"te": _ignore,
}
