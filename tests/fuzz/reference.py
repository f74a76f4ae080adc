"""A second reading of requests, slow and plain, written from RFC 9112 and not from the edge.

What the edge lets through must be read the same way here. The edge may refuse more than this does, never less.
"""
from __future__ import annotations

from dataclasses import dataclass, field

TCHAR = set(b"!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ")
HEX = b"0123456789abcdefABCDEF"
DIGITS = set(b"0123456789")


class Wrong(Exception):
    """Not a request that may be served."""


@dataclass
class Request:
    """One whole request."""

    method: bytes
    target: bytes
    minor: int
    headers: list[tuple[bytes, bytes]] = field(default_factory=list)
    body: bytes = b""

    def all(self, name: bytes) -> list[bytes]:
        """Values of the header spelled `name`, which is in lower case."""
        return [value for key, value in self.headers if key.lower() == name]

    @property
    def closes(self) -> bool:
        """Nothing behind it on its connection is a request."""
        options = [part.strip(b" \t").lower() for value in self.all(b"connection") for part in value.split(b",")]
        return self.minor == 0 or b"close" in options

    @property
    def host(self) -> bytes:
        """Its host without port, in lower case."""
        host = self.all(b"host")[0].lower()
        return host[: host.find(b"]") + 1] or host.partition(b":")[0]

    def cookies(self, name: bytes) -> list[bytes]:
        """Values of the cookie `name`."""
        found = []
        for line in self.all(b"cookie"):
            for pair in line.split(b";"):
                key, equals, value = pair.partition(b"=")
                if equals and key.strip(b" \t") == name:
                    found.append(value.strip(b" \t"))
        return found


def requests(data: bytes) -> tuple[list[Request], bool]:
    """The whole requests at the beginning of one connection, and whether what follows them is wrong."""
    found: list[Request] = []
    while data:
        try:
            read = one(data)
        except Wrong:
            return found, True
        if read is None:
            break
        request, data = read
        found.append(request)
        if request.closes:
            break
    return found, False


def one(data: bytes) -> tuple[Request, bytes] | None:
    """The first request and what follows it; None while it is not whole. Raises Wrong."""
    end = data.find(b"\r\n\r\n")
    if end < 0:
        return None
    request = head(data[:end])
    body = _body(request, data[end + 4 :])
    if body is None:
        return None
    request.body = body[0]
    return request, body[1]


def head(raw: bytes) -> Request:
    """A head without its empty line. Raises Wrong."""
    lines, at = [], 0
    while True:
        end = raw.find(b"\r\n", at)
        lines.append(raw[at:] if end < 0 else raw[at:end])
        if end < 0:
            break
        at = end + 2
    words = lines[0].split(b" ")
    if len(words) != 3 or not words[0] or any(c not in TCHAR for c in words[0]):
        raise Wrong
    if words[2] not in (b"HTTP/1.0", b"HTTP/1.1"):
        raise Wrong
    if words[1] != b"*" and not words[1].startswith(b"/"):
        raise Wrong
    if any(c <= 32 or c >= 127 for c in words[1]):
        raise Wrong
    request = Request(words[0], words[1], words[2][-1] - 48)
    for line in lines[1:]:
        request.headers.append(_line(line))
    _host(request)
    return request


def _line(line: bytes) -> tuple[bytes, bytes]:
    name, colon, value = line.partition(b":")
    if not colon or not name or any(c not in TCHAR for c in name):
        raise Wrong
    if any((c < 32 and c != 9) or c == 127 for c in value):
        raise Wrong
    return name, value.strip(b" \t")


def _host(request: Request) -> None:
    hosts = request.all(b"host")
    if len(hosts) != 1 or not hosts[0]:
        raise Wrong
    if any(c in b"/\\@?#, \t" for c in hosts[0]):
        raise Wrong


def _body(request: Request, rest: bytes) -> tuple[bytes, bytes] | None:
    codings, lengths = request.all(b"transfer-encoding"), request.all(b"content-length")
    if codings and (lengths or len(codings) > 1 or codings[0].lower() != b"chunked" or request.minor == 0):
        raise Wrong
    if codings:
        return chunks(rest)
    if len(lengths) > 1 or (lengths and (not lengths[0] or any(c not in DIGITS for c in lengths[0]))):
        raise Wrong
    length = 0
    for digit in lengths[0] if lengths else b"":
        length = length * 10 + digit - 48
    return (rest[:length], rest[length:]) if len(rest) >= length else None


def chunks(rest: bytes) -> tuple[bytes, bytes] | None:
    """A chunked body and what follows it; None while it is not whole. Raises Wrong."""
    body = b""
    while True:
        line, rest = _crlf(rest)
        if line is None:
            return None
        digits = 0
        while digits < len(line) and line[digits] in HEX:
            digits += 1
        extension = line[digits:].lstrip(b" \t")
        if digits == 0 or (line[digits:] and not extension.startswith(b";")):
            raise Wrong
        if any((c < 32 and c != 9) or c == 127 for c in extension):
            raise Wrong
        size = int(line[:digits], 16)
        if size == 0:
            break
        if len(rest) < size + 2:
            if rest[size:] not in (b"", b"\r"):
                raise Wrong
            return None
        if rest[size : size + 2] != b"\r\n":
            raise Wrong
        body, rest = body + rest[:size], rest[size + 2 :]
    while True:
        line, rest = _crlf(rest)
        if line is None:
            return None
        if not line:
            return body, rest
        _line(line)


def _crlf(data: bytes) -> tuple[bytes | None, bytes]:
    end = data.find(b"\n")
    if end < 0:
        if b"\r" in data[:-1]:
            raise Wrong
        return None, b""
    if data[end - 1 : end] != b"\r" or b"\r" in data[: end - 1]:
        raise Wrong
    return data[: end - 1], data[end + 1 :]
