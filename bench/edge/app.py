"""An app with streams for the bench: `GET /big?n=BYTES`, an upload of any length, and WebSockets that stay idle.

argv: a port. A connection that begins with the guest agent's hello is first told OK.
"""
from __future__ import annotations

import asyncio
import re
import struct
import sys

import uvloop

BLOCK = bytes(256 * 1024)
SWITCH = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n"
DONE = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


class App(asyncio.Protocol):
    """One connection; whole heads only, one request at a time."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Nothing is said first."""
        self.transport: asyncio.Transport = transport  # type: ignore[assignment]
        self.held, self.greeted, self.to_read, self.to_send = b"", False, 0, 0
        self.paused = False

    def data_received(self, data: bytes) -> None:
        """More of a hello, a head or an upload."""
        if self.to_read:
            self._upload(len(data))
            return
        self.held += data
        if not self.greeted and not self._greet():
            return
        end = self.held.find(b"\r\n\r\n")
        if end >= 0:
            head, self.held = self.held[:end].lower(), self.held[end + 4 :]
            self._answer(head)

    def _greet(self) -> bool:
        if len(self.held) >= 74 and self.held.startswith(b"USSY1 "):
            whole = 74 + struct.unpack(">I", self.held[70:74])[0]
            if len(self.held) >= whole:
                self.held, self.greeted = self.held[whole:], True
                self.transport.write(b"OK\0\0\0\0")
        return self.greeted

    def _answer(self, head: bytes) -> None:
        length = re.search(rb"\r\ncontent-length: (\d+)", head)
        size = re.match(rb"get /big\?n=(\d+)", head)
        if b"\r\nupgrade:" in head:
            self.transport.write(SWITCH)
        elif size:
            self.to_send = int(size[1])
            self.transport.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % self.to_send)
            self._pour()
        elif length and int(length[1]):
            self.to_read = int(length[1])
            self._upload(len(self.held))
            self.held = b""
        else:
            self.transport.write(b"HTTP/1.1 200 OK\r\nContent-Length: 13\r\n\r\nHello, world\n")

    def _upload(self, size: int) -> None:
        self.to_read -= size
        if self.to_read <= 0:
            self.transport.write(DONE)

    def _pour(self) -> None:
        while self.to_send and not self.paused:
            block = BLOCK[: self.to_send]
            self.to_send -= len(block)
            self.transport.write(block)

    def pause_writing(self) -> None:
        """The reader is slower."""
        self.paused = True

    def resume_writing(self) -> None:
        """The reader caught up."""
        self.paused = False
        self._pour()


async def main() -> None:
    """Serve until killed."""
    server = await asyncio.get_running_loop().create_server(App, "127.0.0.1", int(sys.argv[1]), backlog=2048)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(main())
