"""One channel of a client as bytes with bounds both ways, and copying it to and from a guest."""
from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Any

import asyncssh

from ussycode.runtime.guest.streams import Stream

HOLD_HIGH = 256 << 10
"""Bytes held for a reader that is slow before the client is told to wait."""
HOLD_LOW = 64 << 10
"""Bytes held when it may go on."""
CHUNK = 64 << 10
"""Bytes read from a guest at once."""


class Room:
    """Room in the socket of one connection, shared by its channels.

    A client decides how much it lets us send (the channel's window), so a hostile one could have us
    buffer gigabytes by not reading its socket; everybody who writes waits here too.
    """

    def __init__(self) -> None:
        self._free = asyncio.Event()
        self._free.set()

    def full(self) -> None:
        """The socket takes no more for now."""
        self._free.clear()

    def free(self) -> None:
        """It takes bytes again, or is gone."""
        self._free.set()

    async def wait(self) -> None:
        """Return once there is room."""
        await self._free.wait()


class End:
    """Our end of a channel. What asyncssh calls never raises; `read` and `write` never after the client left."""

    def __init__(self, room: Room, closed: Callable[[End], object]) -> None:
        """`closed` is told when the channel is gone."""
        self.room = room
        self.closed = closed
        self.started: Callable[[], object] | None = None
        self.work: asyncio.Task[None] | None = None
        self.gone = False
        self.eof = False
        self._items: deque[Any] = deque()
        self._held = 0
        self._holding = False
        self._arrived = asyncio.Event()
        self._writable = asyncio.Event()
        self._writable.set()
        self.chan: Any = None

    def connection_made(self, chan: Any) -> None:
        """The channel is open."""
        self.chan = chan

    def session_started(self) -> None:
        """Data may follow."""
        if self.started is not None:
            self.started()

    def data_received(self, data: Any, datatype: object) -> None:
        """Keep what arrived; ask the client to wait when too much is held."""
        self._put(data)

    def _put(self, item: Any) -> None:
        self._items.append(item)
        self._held += _weight(item)
        if self._held > HOLD_HIGH and not self._holding:
            self._holding = True
            self.chan.pause_reading()
        self._arrived.set()

    def eof_received(self) -> bool:
        """No more will come; the other direction stays open."""
        self.eof = True
        self._arrived.set()
        return True

    def pause_writing(self) -> None:
        """The client's window is used up."""
        self._writable.clear()

    def resume_writing(self) -> None:
        """The client took what was held for it."""
        self._writable.set()

    def connection_lost(self, exc: Exception | None) -> None:
        """The channel is closed."""
        self.gone = True
        for event in (self._arrived, self._writable):
            event.set()
        self.closed(self)

    async def _take(self) -> Any:
        while not self._items and not self.eof and not self.gone:
            self._arrived.clear()
            await self._arrived.wait()
        if not self._items or self.gone:
            return None
        item = self._items.popleft()
        self._held -= _weight(item)
        if self._holding and self._held <= HOLD_LOW:
            self._holding = False
            self.chan.resume_reading()
        return item

    async def read(self) -> bytes:
        """Next bytes from the client; empty at its end of input or when it left."""
        item = await self._take()
        return item if isinstance(item, bytes) else b""

    async def write(self, data: bytes, stderr: bool = False) -> None:
        """Send, and wait until the client keeps up. Silent when it left."""
        if self.gone:
            return
        try:
            self._send(data, stderr)
        except OSError:
            self.gone = True  # the channel was closed between two events
            return
        await self._writable.wait()
        await self.room.wait()

    def _send(self, data: bytes, stderr: bool) -> None:
        self.chan.write(data, asyncssh.EXTENDED_DATA_STDERR if stderr else None)

    def write_eof(self) -> None:
        """Tell the client that no more will come."""
        if not self.gone:
            self.chan.write_eof()

    def close(self) -> None:
        """Close the channel after what was written. Idempotent."""
        if self.chan is not None:
            self.chan.close()


class TcpEnd(End, asyncssh.SSHTCPSession[bytes]):
    """A forwarded TCP connection."""


class UnixEnd(End, asyncssh.SSHUNIXSession[bytes]):
    """A forwarded unix connection, the client's key agent included."""


def _weight(item: Any) -> int:
    return len(item) if isinstance(item, bytes | str) else 1


async def copy_up(end: End, stream: Stream) -> None:
    """Client to guest, ending with a half-close. Raises OSError when either side breaks."""
    while data := await end.read():
        stream.writer.write(data)
        await stream.writer.drain()
    if end.gone:
        raise ConnectionResetError
    stream.writer.write_eof()


async def copy_down(end: End, stream: Stream) -> None:
    """Guest to client until the guest's end of output. Raises OSError when the guest breaks."""
    while data := await stream.reader.read(CHUNK):
        await end.write(data)


async def relay(end: End, stream: Stream) -> None:
    """Both ways until both sides ended, or one broke; closes both."""

    async def down() -> None:
        await copy_down(end, stream)
        end.write_eof()

    try:
        async with asyncio.TaskGroup() as both:
            both.create_task(copy_up(end, stream))
            both.create_task(down())
    except* OSError:
        pass  # a broken connection ends like a closed one: there is nobody left to tell
    finally:
        end.close()
        await stream.close()
