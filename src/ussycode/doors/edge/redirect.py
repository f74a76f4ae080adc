"""The plain HTTP port: sends known host shapes to HTTPS and says nothing else."""
from __future__ import annotations

import asyncio
from typing import cast

from ussycode.doors.edge import pages
from ussycode.doors.edge.connection import LINGER_TIMEOUT
from ussycode.doors.edge.edge import MAX_CONNECTIONS, Edge
from ussycode.doors.edge.fields import Refused
from ussycode.doors.edge.head import MAX_HEAD, Request, parse
from ussycode.doors.edge.hosts import HostKind
from ussycode.doors.edge.pages import Local


class RedirectConnection(asyncio.Protocol):
    """Answers one request and closes."""

    __slots__ = ("_buffer", "_done", "_edge", "_payer", "_transport", "deadline")

    def __init__(self, edge: Edge) -> None:
        self._edge = edge
        self._buffer = b""
        self._done = False
        self.deadline = edge.deadlines.now + edge.settings.head_timeout

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Wait for one head."""
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is no subclass of it
        peer = transport.get_extra_info("peername")
        now = self._edge.deadlines.now
        self._payer = self._edge.limits.of_requests(peer[0].encode() if isinstance(peer, tuple) else b"", now)
        if len(self._edge.deadlines.members) >= MAX_CONNECTIONS:
            self._transport.abort()
            return
        self._edge.deadlines.members.add(self)

    def connection_lost(self, error: Exception | None) -> None:
        """Forget it."""
        self._edge.deadlines.members.discard(self)

    def on_deadline(self) -> None:
        """Too slow."""
        self._transport.abort()

    def leave_when_idle(self, patient: bool) -> None:
        """Every connection here is short anyway."""

    def farewell(self, code: int) -> None:
        """There is no WebSocket here."""

    def data_received(self, data: bytes) -> None:
        """Collect the head; after the reply, drop what comes."""
        if self._done:
            return
        self._buffer += data
        end = self._buffer.find(b"\r\n\r\n")
        if end >= 0:
            self._answer(self._buffer[:end])
        elif len(self._buffer) > MAX_HEAD:
            self._say(pages.NOT_FOUND)

    def _answer(self, head: bytes) -> None:
        try:
            request = parse(head)
            paid = self._payer.spend(self._edge.deadlines.now)
            self._say(to_https(self._edge, request) if paid else pages.TOO_FAST)
        except Refused as refused:
            self._say(Local(refused.status, "malformed", refused.sentence))

    def _say(self, local: Local) -> None:
        self._done = True
        self._buffer = b""
        self._edge.counters.requests[local.status, local.reason or "http"] += 1
        self._transport.write(local.render(False, b"", close=True, to_head=False))
        self._transport.close()
        self.deadline = self._edge.deadlines.now + LINGER_TIMEOUT


def to_https(edge: Edge, request: Request) -> Local:
    """The reply to a request that came without TLS."""
    host = request.hostname.decode("ascii")
    if edge.hosts.target(host).kind is HostKind.NOWHERE:
        return pages.NOT_FOUND
    port = edge.settings.public_port
    origin = f"https://{host}" if port == 443 else f"https://{host}:{port}"
    return Local(308, "to_https", "this address is served over HTTPS", location=origin.encode() + request.target)
