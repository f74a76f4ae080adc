"""`GET /__edge/metrics` on a unix socket that only the operator can reach."""
from __future__ import annotations

import asyncio

from ussycode.doors.edge.edge import Edge

MAX_REQUEST = 4096
"""Bytes of a request that are read."""
READ_TIMEOUT = 5.0


class OperatorDoor:
    """Serves the counters of one process."""

    def __init__(self, edge: Edge) -> None:
        self._edge = edge

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer one request and close."""
        try:
            async with asyncio.timeout(READ_TIMEOUT):
                head = await reader.readuntil(b"\r\n\r\n")
                writer.write(self._answer(head))
                await writer.drain()
        except (TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, ConnectionError):
            pass  # an operator's tool went away or spoke no HTTP: nothing to tell it
        finally:
            writer.close()

    def _answer(self, head: bytes) -> bytes:
        if not head.startswith(b"GET /__edge/metrics "):
            return b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
        edge = self._edge
        gauges = {
            "connections_open": float(len(edge.deadlines.members)), "addresses_known": float(edge.limits.known),
            "degraded": float(bool(edge.degraded)),
            "log_lines_lost": float(edge.log.lost), "vms": float(len(edge.known.vms)),
            "worker": float(edge.settings.worker),
        }
        body = edge.counters.text(gauges)
        kind = b"Content-Type: text/plain; version=0.0.4\r\n"
        return b"HTTP/1.1 200 OK\r\n%bContent-Length: %d\r\nConnection: close\r\n\r\n%b" % (kind, len(body), body)
