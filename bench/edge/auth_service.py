"""The least an auth service can be: looks a session up in a dict, on a unix socket. For the peers of the bench."""
from __future__ import annotations

import asyncio
import re
import sys

import uvloop

SESSIONS = {sys.argv[2].encode(): b"usr_alice"}
COOKIE = re.compile(rb"\r\nCookie: *[^\r\n]*__Host-ussycode=([A-Za-z0-9_-]+)", re.IGNORECASE).search
YES = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nX-Ussycode-UserID: %b\r\n\r\n"
NO = b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n"


class Auth(asyncio.Protocol):
    """One kept connection of a proxy."""

    def __init__(self) -> None:
        self.buffer = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep it."""
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        """One reply for each whole head."""
        *heads, self.buffer = (self.buffer + data).split(b"\r\n\r\n")
        for head in heads:
            found = COOKIE(head)
            user = SESSIONS.get(found[1]) if found else None
            self.transport.write(NO if user is None else YES % user)  # type: ignore[attr-defined]


async def main() -> None:
    """Serve for ever."""
    server = await asyncio.get_running_loop().create_unix_server(Auth, sys.argv[1], backlog=1024)
    await server.serve_forever()


uvloop.run(main())
