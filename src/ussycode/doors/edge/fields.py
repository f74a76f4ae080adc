"""What a block of request header lines says, and what of it travels on: read in one pass, remembered by its bytes.

Clients repeat themselves: a browser that loads a page's parts, and a program that calls an API, send the same lines
again and again. What follows from the lines alone is therefore worked out once for each block.
"""
from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterable, Iterator

from ussycode.doors.edge.bearer import token_of

MAX_HEADERS = 100
MAX_KEPT, MAX_KEPT_BLOCK, MAX_KEPT_COOKIE = 1024, 2048, 512
"""How many blocks and cookies are remembered, and up to how many bytes each: a few MiB at most."""
SESSION_COOKIE = b"__Host-ussycode"
MAX_TOKEN = 8192
"""Bytes of a token that are looked at; a longer one is refused as one of this length."""
CHUNKED = -1
"""`Fields.length` of a body that says its own end."""

TOKEN = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]"
_VALUE = rb"[^\x00-\x08\x0a-\x1f\x7f]*"
LINES = rb"((?:\r\n" + TOKEN + rb"+:" + _VALUE + rb")*)"
"""Header lines, each with the CRLF before it; no folding, no control characters."""
_BLOCK = re.compile(LINES).fullmatch
_HOST = re.compile(rb"([a-z0-9._-]{1,253}|\[[0-9a-f:.]+\])(?::[0-9]{1,5})?").fullmatch
_SESSION = re.compile(rb"(?:^|;)[ \t]*__Host-ussycode=([^;]*)").search
_SESSION_PARTS = re.compile(rb"(?:^|;)[ \t]*__Host-ussycode[ \t]*=[^;]*").sub
_SECRET = re.compile(rb"[A-Za-z0-9_-]{16,128}").fullmatch
_PROTOCOL = re.compile(TOKEN + rb"+(?:/" + TOKEN + rb"+)?").fullmatch
_NO_TUNNEL = (b"h2c", b"h2", b"http", b"tls")
"""Upgrades that would carry further HTTP requests past the decision and the header rules."""
_PAGE = re.compile(rb"\r\n(?i:accept):[^\r]*text/html").search
_GIT = re.compile(rb"\r\n(?i:user-agent: git)").search

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


class Fields:
    """Header lines, read. Never changed once `read` has returned it: requests with the same lines share it."""

    host = b""
    """Lower case, with its port."""
    hostname = b""
    session: bytes | None = None
    token: bytes | None = None
    """A token of the platform, from whichever header carried it."""
    authorization: bytes | None = None
    """An Authorization value that is the app's own business, or the platform's on its own host."""
    length: int | None = None
    upgrade: bytes | None = None
    """The one protocol that may be changed to, if the request line allows it."""
    hop: frozenset[bytes] = frozenset()
    """Folded names and options that Connection lists."""
    expects = False
    kept = b""
    """Lines that travel on as they came, each with the CRLF before it."""
    for_vm = b""
    """All lines for a VM but what the edge adds, each with the CRLF before it. The session is not among them."""

    def __init__(self) -> None:
        self.cookies: list[bytes] = []

    @property
    def for_platform(self) -> bytes:
        """The same for the platform itself, which sees the session and every Authorization."""
        return _begin(self) + _own(self) + _cookie(self.cookies) + _end(self)

    @property
    def accepts_page(self) -> bool:
        """A browser navigates."""
        return _PAGE(self.kept) is not None

    @property
    def is_git(self) -> bool:
        """git calls, which sends the password of its URL only when asked to."""
        return _GIT(self.kept) is not None


def read(block: bytes) -> Fields:
    """The lines of `block`, each with the CRLF before it. Raises Refused."""
    return _remembered(block) if len(block) <= MAX_KEPT_BLOCK else _read(block)


def finder(names: Iterable[bytes], beginnings: Iterable[bytes] = ()) -> Callable[[bytes], Iterator[re.Match[bytes]]]:
    """Finds header lines by folded name, in any spelling: groups are the name and value of one of `names`.

    Lines whose name only begins with one of `beginnings` are found as well, with no groups.
    """
    whole, begun = (b"|".join(map(_spelled, some)) for some in (names, beginnings))
    return re.compile(rb"\r\n(?:(?i:(" + whole + rb")):([^\r]*)|(?i:" + (begun or rb"\r") + rb")[^\r]*)").finditer


def _spelled(folded: bytes) -> bytes:
    return folded.replace(b"-", rb"[!#$%&'*+\-.^_`|~]")


def _read(block: bytes) -> Fields:
    if _BLOCK(block) is None:
        raise Refused(400, "the request head is malformed")
    if block.count(b"\r\n") > MAX_HEADERS:
        raise Refused(431, f"more than {MAX_HEADERS} headers")
    fields = Fields()
    kept, at = [], 0
    for line in _NOTABLE(block):
        kept.append(block[at : line.start()])
        at = line.end()
        name = line[1]
        if name is not None and (special := _SPECIAL.get(name.lower())) is not None:
            special(fields, line[2].strip(b" \t"))  # `content_length` is nobody's header: dropped
    kept.append(block[at:])
    fields.kept = b"".join(kept)
    _check(fields)
    _write(fields)
    return fields


_remembered = functools.lru_cache(MAX_KEPT)(_read)


def _check(fields: Fields) -> None:
    host = _HOST(fields.host)
    if host is None:
        raise Refused(400, "exactly one valid Host header is needed")
    fields.hostname = host[1]
    if fields.hop - _ORDINARY:
        lines = fields.kept.split(b"\r\n")[1:]
        fields.kept = b"".join(b"\r\n" + k for k in lines if k[: k.index(b":")].translate(FOLD) not in fields.hop)
    asked = b"upgrade" in fields.hop and not fields.length
    if fields.upgrade is not None and (not asked or fields.upgrade.lower().startswith(_NO_TUNNEL)):
        fields.upgrade = None


def _write(fields: Fields) -> None:
    spared = _cookie([spared for _, spared in map(crumbs, fields.cookies) if spared])
    fields.for_vm = _begin(fields) + (_own(fields) if fields.token is None else b"") + spared + _end(fields)


def _begin(fields: Fields) -> bytes:
    return b"\r\nHost: " + fields.host + fields.kept + (b"\r\nExpect: 100-continue" if fields.expects else b"")


def _own(fields: Fields) -> bytes:
    return b"\r\nAuthorization: " + fields.authorization if fields.authorization is not None else b""


def _cookie(values: list[bytes]) -> bytes:
    return b"\r\nCookie: " + b"; ".join(values) if values else b""


def _end(fields: Fields) -> bytes:
    if fields.length is None:
        return b""
    if fields.length == CHUNKED:
        return b"\r\nTransfer-Encoding: chunked"
    return b"\r\nContent-Length: %d" % fields.length


def crumbs(cookie: bytes) -> tuple[bytes | None, bytes]:
    """The session in a Cookie value, if there is one of its shape, and the value without any session."""
    return _remembered_crumbs(cookie) if len(cookie) <= MAX_KEPT_COOKIE else _crumbs(cookie)


def _crumbs(cookie: bytes) -> tuple[bytes | None, bytes]:
    if SESSION_COOKIE not in cookie:
        return None, cookie
    found = _SESSION(cookie)
    secret = found[1].strip(b" \t") if found is not None else b""
    return secret if _SECRET(secret) else None, _SESSION_PARTS(b"", cookie).lstrip(b"; \t")


_remembered_crumbs = functools.lru_cache(MAX_KEPT)(_crumbs)


def trailer_allowed(line: bytes) -> bool:
    """Whether a client may send this trailer line on: trailers obey the same rule as headers."""
    name = line[: line.index(b":")].translate(FOLD)
    return name not in _SPECIAL and not name.startswith(STRIPPED)


def _on_host(fields: Fields, value: bytes) -> None:
    if fields.host:
        raise Refused(400, "exactly one valid Host header is needed")
    fields.host = value.lower() or b" "


def _on_cookie(fields: Fields, value: bytes) -> None:
    fields.cookies.append(value)
    if fields.session is None:
        fields.session = crumbs(value)[0]


def _on_authorization(fields: Fields, value: bytes) -> None:
    if fields.authorization is not None:
        raise Refused(400, "at most one Authorization header is served")
    fields.authorization = value
    fields.token = fields.token or token_of(value)


def _on_own_authorization(fields: Fields, value: bytes) -> None:
    # Ours alone: it wins over the common header, and whatever it holds is taken for a token.
    scheme, _, token = value.partition(b" ")
    shaped = not value or (scheme.lower() == b"bearer" and token.isascii())
    fields.token = token.strip(b" \t")[:MAX_TOKEN] if shaped else b"-"


def _on_length(fields: Fields, value: bytes) -> None:
    if fields.length is not None or not value.isdigit() or len(value) > 15:
        raise Refused(400, "exactly one body length is needed")
    fields.length = int(value)


def _on_transfer(fields: Fields, value: bytes) -> None:
    if fields.length is not None or value.lower() != b"chunked":
        raise Refused(400, "the body's transfer encoding is not served")
    fields.length = CHUNKED


def _on_connection(fields: Fields, value: bytes) -> None:
    fields.hop |= frozenset(part.strip(b" \t").translate(FOLD) for part in value.split(b","))


def _on_upgrade(fields: Fields, value: bytes) -> None:
    # A list of protocols could hide a refused one behind an allowed one.
    fields.upgrade = value if fields.upgrade is None and _PROTOCOL(value) else b"h2c"


def _on_expect(fields: Fields, value: bytes) -> None:
    if value.lower() != b"100-continue":
        raise Refused(417, "the only expectation served is 100-continue")
    fields.expects = True


def _ignore(fields: Fields, value: bytes) -> None:
    del fields, value  # meant for this hop only


_ORDINARY = frozenset({b"keep-alive", b"upgrade", b""})
_SPECIAL: dict[bytes, Callable[[Fields, bytes], None]] = {
    b"host": _on_host, b"cookie": _on_cookie, b"content-length": _on_length, b"transfer-encoding": _on_transfer,
    b"authorization": _on_authorization, b"x-ussycode-authorization": _on_own_authorization,
    b"x-exedev-authorization": _on_own_authorization, b"connection": _on_connection, b"upgrade": _on_upgrade,
    b"expect": _on_expect, b"keep-alive": _ignore, b"te": _ignore,
}
_NOTABLE = finder(_SPECIAL, STRIPPED)
