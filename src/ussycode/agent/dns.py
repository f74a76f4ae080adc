"""The guests' resolver: a bounded forwarder to the servers that the host itself asks."""
from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

MAX_ASKED = 256
"""Queries under way at once, of all guests together; more are answered SERVFAIL at once."""
MAX_PER_GUEST = 32
"""Queries under way of one guest, so that one guest cannot silence the others."""
MAX_TCP = 32
"""TCP connections of guests at once."""
UDP_SIZE = 4096
"""Bytes of a datagram, either way; longer answers are cut by their server and asked again over TCP."""
SERVER_SECONDS = 2.0
"""Time one server gets before the next is asked."""
TCP_SECONDS = 10.0
"""Time of a whole TCP connection."""
_HEADER = 12
_PORT = 53
_Address = tuple[str, int]


@dataclass
class Forwarder:
    """Forwards what arrives on two bound sockets. `servers` is asked anew for each query: resolv.conf changes."""

    udp: socket.socket
    tcp: socket.socket
    servers: Callable[[], Sequence[_Address]]
    _asked: set[asyncio.Task[None]] = field(default_factory=set)
    _per_guest: dict[str, int] = field(default_factory=dict)
    _connections: int = 0

    async def run(self) -> None:
        """Forward until cancelled; the sockets are closed then."""
        loop = asyncio.get_running_loop()
        server = await asyncio.start_server(self._connected, sock=self.tcp)
        try:
            while True:
                query, guest = await loop.sock_recvfrom(self.udp, UDP_SIZE)
                self._take(query, guest)
        finally:
            server.close()
            self.udp.close()
            for task in self._asked:
                task.cancel()

    def _take(self, query: bytes, guest: _Address) -> None:
        if not _is_query(query):
            return
        if len(self._asked) >= MAX_ASKED or self._per_guest.get(guest[0], 0) >= MAX_PER_GUEST:
            self._reply(servfail(query), guest)
            return
        self._per_guest[guest[0]] = self._per_guest.get(guest[0], 0) + 1
        task = asyncio.create_task(self._answer(query, guest))
        self._asked.add(task)
        task.add_done_callback(lambda done: self._answered(done, guest[0]))

    def _answered(self, task: asyncio.Task[None], guest: str) -> None:
        self._asked.discard(task)
        self._per_guest[guest] -= 1
        if not self._per_guest[guest]:
            del self._per_guest[guest]

    async def _answer(self, query: bytes, guest: _Address) -> None:
        for server in self.servers():
            reply = await _ask_udp(query, server)
            if reply is not None:
                self._reply(reply, guest)
                return
        self._reply(servfail(query), guest)

    def _reply(self, reply: bytes, guest: _Address) -> None:
        with suppress(OSError):  # a guest that is gone, or does not read, loses its answer
            self.udp.sendto(reply, guest)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._connections >= MAX_TCP:
            writer.close()
            return
        self._connections += 1
        try:
            async with asyncio.timeout(TCP_SECONDS):
                await self._one_over_tcp(reader, writer)
        except (OSError, TimeoutError, asyncio.IncompleteReadError):
            return
        finally:
            self._connections -= 1
            writer.close()

    async def _one_over_tcp(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        query = await _read_sized(reader)
        if not _is_query(query):
            return
        reply = None
        for server in self.servers():
            reply = reply or await _ask_tcp(query, server)
        reply = reply or servfail(query)
        writer.write(len(reply).to_bytes(2, "big") + reply)
        await writer.drain()


def servfail(query: bytes) -> bytes:
    """The answer SERVFAIL to `query`, without its question: valid, and never longer than what was asked."""
    return query[:2] + bytes((0x80 | query[2] & 0x01, 0x82)) + bytes(8)


def host_servers(file: Path = Path("/etc/resolv.conf")) -> list[_Address]:
    """The name servers that the host asks, at most three, as resolvers do; empty when there is no file."""
    try:
        lines = file.read_text(errors="replace").splitlines()
    except OSError:
        return []
    words = [line.split() for line in lines]
    named = [pair[1] for pair in words if len(pair) >= 2 and pair[0] == "nameserver"]
    return [(address, _PORT) for address in named if _is_address(address)][:3]


def _is_query(data: bytes) -> bool:
    return len(data) >= _HEADER and not data[2] & 0x80


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


async def _ask_udp(query: bytes, server: _Address) -> bytes | None:
    """The server's answer; a fresh port for each query, so that answers are hard to forge. None when silent."""
    loop = asyncio.get_running_loop()
    family = socket.AF_INET6 if ":" in server[0] else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as asking:
        try:
            async with asyncio.timeout(SERVER_SECONDS):
                await loop.sock_connect(asking, server)
                await loop.sock_sendall(asking, query)
                while True:
                    reply = await loop.sock_recv(asking, UDP_SIZE)
                    if len(reply) >= _HEADER and reply[:2] == query[:2]:
                        return reply
        except (OSError, TimeoutError):
            return None


async def _ask_tcp(query: bytes, server: _Address) -> bytes | None:
    try:
        async with asyncio.timeout(SERVER_SECONDS):
            reader, writer = await asyncio.open_connection(*server)
            try:
                writer.write(len(query).to_bytes(2, "big") + query)
                return await _read_sized(reader)
            finally:
                writer.close()
    except (OSError, TimeoutError, asyncio.IncompleteReadError):
        return None


async def _read_sized(reader: asyncio.StreamReader) -> bytes:
    return await reader.readexactly(int.from_bytes(await reader.readexactly(2), "big"))
