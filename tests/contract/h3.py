"""One request over HTTP/3 with a client that is not ours."""
from __future__ import annotations

import asyncio
from pathlib import Path

from aioquic.asyncio.client import connect
from aioquic.asyncio.protocol import QuicConnectionProtocol
from aioquic.h3.connection import H3_ALPN, H3Connection
from aioquic.h3.events import DataReceived, HeadersReceived
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.events import ConnectionTerminated, QuicEvent


class _Client(QuicConnectionProtocol):
    """Collects one response."""

    def __init__(self, *words: object, **named: object) -> None:
        super().__init__(*words, **named)  # type: ignore[arg-type]
        self.http = H3Connection(self._quic)
        self.status = 0
        self.body = b""
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def quic_event_received(self, event: QuicEvent) -> None:
        if isinstance(event, ConnectionTerminated) and not self.done.done():
            self.done.set_exception(ConnectionError(event.reason_phrase))
        for got in self.http.handle_event(event):
            if isinstance(got, HeadersReceived):
                self.status = int(dict(got.headers)[b":status"])
            if isinstance(got, DataReceived):
                self.body += got.data
            if getattr(got, "stream_ended", False) and not self.done.done():
                self.done.set_result(None)


async def get(port: int, host: str, path: str, ca: Path, headers: list[tuple[bytes, bytes]]) -> tuple[int, bytes]:
    """Status and body of `GET https://host:port/path` at 127.0.0.1; twenty seconds at most."""
    settings = QuicConfiguration(is_client=True, alpn_protocols=H3_ALPN, server_name=host)
    settings.load_verify_locations(str(ca))
    async with (
        asyncio.timeout(20),
        connect("127.0.0.1", port, configuration=settings, create_protocol=_Client, local_port=0) as client,
    ):
        assert isinstance(client, _Client)
        stream = client._quic.get_next_available_stream_id()
        client.http.send_headers(stream, [
            (b":method", b"GET"), (b":scheme", b"https"), (b":authority", f"{host}:{port}".encode()),
            (b":path", path.encode()), *headers,
        ], end_stream=True)
        client.transmit()
        await client.done
        return client.status, client.body
