"""The metadata address of guests: one small document, about the asker alone."""
from __future__ import annotations

import asyncio
import ipaddress
import json
import socket
from collections import Counter
from dataclasses import dataclass, field

from ussycode.ports import App
from ussycode.vms import metadata

MAX_HEAD = 8192
"""Bytes of a request's head."""
ASK_SECONDS = 5.0
"""Time a guest may take for a whole request and its answer."""
MAX_GUESTS = 256
"""Requests under way at once, of all guests together."""
MAX_PER_GUEST = 16
"""Requests under way of one guest, so that one cannot silence the others."""


@dataclass
class MetadataDoor:
    """Answers guests of one address pool. The network rules let nobody else in and no forged address through."""

    app: App
    pool: ipaddress.IPv4Network
    _asking: Counter[str] = field(default_factory=Counter)

    async def serve(self, listening: socket.socket) -> None:
        """Answer on a listening socket until cancelled; one request for each connection."""
        server = await asyncio.start_server(self._connected, sock=listening, limit=MAX_HEAD)
        async with server:
            await server.serve_forever()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        guest: str = writer.get_extra_info("peername")[0]
        if self._asking.total() >= MAX_GUESTS or self._asking[guest] >= MAX_PER_GUEST:
            writer.close()
            return
        self._asking[guest] += 1
        try:
            async with asyncio.timeout(ASK_SECONDS):
                head = await reader.readuntil(b"\r\n\r\n")
                writer.write(await self._answer(head.split(b"\r\n", 1)[0], guest))
                await writer.drain()
        except (OSError, TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            pass  # a guest that does not ask properly gets nothing
        finally:
            self._asking[guest] -= 1
            if not self._asking[guest]:
                del self._asking[guest]
            writer.close()

    async def _answer(self, line: bytes, guest: str) -> bytes:
        method, _, rest = line.partition(b" ")
        path = rest.partition(b" ")[0].partition(b"?")[0]
        if method not in (b"GET", b"HEAD"):
            return _said("405 Method Not Allowed", {"error": "only GET"})
        known = await self._about(guest)
        if known is None:
            return _said("403 Forbidden", {"error": "this address belongs to no VM"})
        if path != b"/":
            return _said("404 Not Found", {"error": "there is nothing but /"})
        return _said("200 OK", known, head_only=method == b"HEAD")

    async def _about(self, guest: str) -> dict[str, str] | None:
        address = ipaddress.IPv4Address(guest)
        if address not in self.pool:
            return None
        return await metadata.about(self.app, int(address) - int(self.pool.network_address), guest)


def _said(status: str, document: dict[str, str], *, head_only: bool = False) -> bytes:
    body = json.dumps(document).encode() + b"\n"
    head = f"HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n"
    return head.encode() + b"Cache-Control: no-store\r\nConnection: close\r\n\r\n" + (b"" if head_only else body)
