"""Follows control's feed: a snapshot, then changes in order, each applied and then acknowledged."""
from __future__ import annotations

import asyncio
import struct
from collections.abc import AsyncIterator
from typing import Protocol

import msgspec

from ussycode.wire.edge import MAX_FRAME, Ack, Change, Down, Snapshot

FIRST_RETRY, LAST_RETRY = 0.05, 2.0
"""Seconds between attempts to connect: doubling from the first to the last."""
SNAPSHOT_TIMEOUT = 30.0
"""Seconds control may take for its snapshot."""


class Follower(Protocol):
    """What the feed feeds. Applying is synchronous, so that an acknowledgement means it has happened."""

    def on_snapshot(self, snapshot: Snapshot) -> None: ...

    def on_change(self, change: Change) -> None: ...

    def on_loss(self, why: str) -> None: ...


class OutOfOrder(Exception):
    """The feed skipped, repeated or garbled something: a new snapshot is needed."""


async def follow(path: str, follower: Follower) -> None:
    """Follow the feed at unix socket `path` for ever, connecting again whenever it is lost."""
    delay = FIRST_RETRY
    while True:
        try:
            async for _ in _one_connection(path, follower):
                delay = FIRST_RETRY
        except (OSError, EOFError, TimeoutError, OutOfOrder, ValueError, msgspec.MsgspecError) as error:
            follower.on_loss(f"{type(error).__name__}: {error}")
        await asyncio.sleep(delay)
        delay = min(2 * delay, LAST_RETRY)


async def _one_connection(path: str, follower: Follower) -> AsyncIterator[int]:
    reader, writer = await asyncio.open_unix_connection(path)
    try:
        async with asyncio.timeout(SNAPSHOT_TIMEOUT):
            seq = _begin(await _read(reader), follower)
        _acknowledge(writer, seq)
        yield seq
        while True:
            seq = _next(await _read(reader), seq, follower)
            _acknowledge(writer, seq)
            yield seq
    finally:
        writer.close()


def _begin(message: Down, follower: Follower) -> int:
    if not isinstance(message, Snapshot):
        raise OutOfOrder("the feed did not begin with a snapshot")
    follower.on_snapshot(message)
    return message.seq


def _next(message: Down, seq: int, follower: Follower) -> int:
    if not isinstance(message, Change) or message.seq != seq + 1:
        raise OutOfOrder(f"expected change {seq + 1}")
    follower.on_change(message)
    return message.seq


async def _read(reader: asyncio.StreamReader) -> Down:
    (size,) = struct.unpack(">I", await reader.readexactly(4))
    if size > MAX_FRAME:
        raise OutOfOrder(f"a frame of {size} bytes")
    return _DECODER.decode(await reader.readexactly(size))


def _acknowledge(writer: asyncio.StreamWriter, seq: int) -> None:
    body = msgspec.msgpack.encode(Ack(seq))
    writer.write(struct.pack(">I", len(body)) + body)


_DECODER: msgspec.msgpack.Decoder[Down] = msgspec.msgpack.Decoder(Down)
