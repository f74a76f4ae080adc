"""Follows control's feed: a snapshot, then changes in order, each applied and then acknowledged."""
from __future__ import annotations

import asyncio
import struct
from collections.abc import AsyncIterator, Callable
from typing import Protocol

import msgspec

from ussycode.wire.edge import MAX_FRAME, Ack, Answer, Change, Down, EdgeToken, Question, Snapshot, Up, Visitors, Woken

FIRST_RETRY, LAST_RETRY = 0.05, 2.0
"""Seconds between attempts to connect: doubling from the first to the last."""
SNAPSHOT_TIMEOUT = 30.0
"""Seconds control may take for its snapshot."""
MAX_QUESTIONS = 1024
"""Questions under way at once; further ones are not asked."""


class Follower(Protocol):
    """What the feed feeds. Applying is synchronous, so that an acknowledgement means it has happened."""

    def on_snapshot(self, snapshot: Snapshot) -> None: ...

    def on_change(self, change: Change) -> None: ...

    def on_loss(self, why: str) -> None: ...


class Unanswered(Exception):
    """Control did not answer: it is gone, or too slow."""


class Questions:
    """What the edge asks control on the feed's own connection."""

    def __init__(self) -> None:
        self._writer: asyncio.StreamWriter | None = None
        self._waiting: dict[int, asyncio.Future[Answer]] = {}
        self._number = 0

    async def ask(self, make: Callable[[int], Question], seconds: float) -> Answer:
        """The answer to `make(number)`. Raises Unanswered when there is none within `seconds`."""
        if self._writer is None or len(self._waiting) >= MAX_QUESTIONS:
            raise Unanswered
        self._number += 1
        answer: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._waiting[self._number] = answer
        number = self._number
        try:
            _write(self._writer, make(number))
            async with asyncio.timeout(seconds):
                return await answer
        except (TimeoutError, OSError, EOFError):
            raise Unanswered from None
        finally:
            self._waiting.pop(number, None)

    def tell(self, message: Visitors) -> None:
        """Say something that is not answered; nothing while nobody listens."""
        if self._writer is not None and not self._writer.is_closing():
            _write(self._writer, message)

    def connected(self, writer: asyncio.StreamWriter) -> None:
        """Control listens from now on."""
        self._writer = writer

    def lost(self) -> None:
        """Nobody will answer what was asked."""
        self._writer = None
        for answer in self._waiting.values():
            if not answer.done():
                answer.set_exception(EOFError())

    def answered(self, answer: Answer) -> None:
        """Hand an answer to who asked; nobody may wait for it any more."""
        waiting = self._waiting.get(answer.number)
        if waiting is not None and not waiting.done():
            waiting.set_result(answer)


class OutOfOrder(Exception):
    """The feed skipped, repeated or garbled something: a new snapshot is needed."""


async def follow(path: str, follower: Follower, questions: Questions) -> None:
    """Follow the feed at unix socket `path` for ever, connecting again whenever it is lost."""
    delay = FIRST_RETRY
    while True:
        try:
            async for _ in _one_connection(path, follower, questions):
                delay = FIRST_RETRY
        except (OSError, EOFError, TimeoutError, OutOfOrder, ValueError, msgspec.MsgspecError) as error:
            follower.on_loss(f"{type(error).__name__}: {error}")
        await asyncio.sleep(delay)
        delay = min(2 * delay, LAST_RETRY)


async def _one_connection(path: str, follower: Follower, questions: Questions) -> AsyncIterator[int]:
    reader, writer = await asyncio.open_unix_connection(path)
    try:
        async with asyncio.timeout(SNAPSHOT_TIMEOUT):
            seq = _begin(await _read(reader), follower)
        _write(writer, Ack(seq))
        questions.connected(writer)
        yield seq
        while True:
            message = await _read(reader)
            if isinstance(message, EdgeToken | Woken):
                questions.answered(message)
                continue
            seq = _next(message, seq, follower)
            _write(writer, Ack(seq))
            yield seq
    finally:
        questions.lost()
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


def _write(writer: asyncio.StreamWriter, message: Up) -> None:
    body = msgspec.msgpack.encode(message)
    writer.write(struct.pack(">I", len(body)) + body)


_DECODER: msgspec.msgpack.Decoder[Down] = msgspec.msgpack.Decoder(Down)
