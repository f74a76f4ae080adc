"""One attack by a client, and what must come of it."""
from __future__ import annotations

from dataclasses import dataclass

HOST = "open.localhost"
"""Stands for the public VM under attack; each attack gets a VM of its own."""
SMUGGLED = f"GET /smuggled HTTP/1.1\r\nHost: {HOST}\r\n\r\n"
"""Follows every attack that is refused: nobody may read it as a request."""
AFTER = f"GET /after HTTP/1.1\r\nHost: {HOST}\r\nConnection: close\r\n\r\n"
"""Follows every attack after which the connection lives: it must be read as exactly one request."""


@dataclass(frozen=True)
class Attack:
    """Bytes on one connection, and the counts that must come of them. The default is a refusal.

    `body` is the request body that the app must read first; `has` and `lacks` are parts of all heads it gets, in lower
    case.
    """

    name: str
    raw: bytes
    status: int = 400
    """Of the first answer."""
    reaches: int = 0
    """Whole requests that the VM under attack sees of it."""
    answers: int = 1
    """Final responses to it."""
    ends: bool = True
    """The connection ends behind it; otherwise AFTER is served."""
    body: bytes = b""
    has: tuple[bytes, ...] = ()
    lacks: tuple[bytes, ...] = ()

    @property
    def bytes(self) -> bytes:
        """All that the client sends."""
        return self.raw + (SMUGGLED if self.ends else AFTER).encode()


def text(first: str, *lines: str, body: str = "", host: str = HOST) -> bytes:
    """A request; characters up to U+00FF stand for their byte."""
    return "\r\n".join([first, *([f"Host: {host}"] if host else []), *lines, "", body]).encode("latin-1")


def refused(name: str, *lines: str, first: str = "POST / HTTP/1.1", body: str = "", host: str = HOST,
            status: int = 400) -> Attack:
    """An attack that is told no."""
    return Attack(name, text(first, *lines, body=body, host=host), status)


def passed(name: str, *lines: str, first: str = "POST / HTTP/1.1", body: str = "", reads: str | None = None,
           has: tuple[str, ...] = (), lacks: tuple[str, ...] = (), host: str = HOST) -> Attack:
    """One that is harmless once it has been written anew: exactly one request with the body `reads` (or `body`)."""
    return Attack(
        name, text(first, *lines, body=body, host=host), 200, 1, 1, False,
        (body if reads is None else reads).encode("latin-1"),
        tuple(h.encode("latin-1") for h in has), tuple(n.encode("latin-1") for n in lacks),
    )
