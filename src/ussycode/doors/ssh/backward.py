"""Connections that begin inside a guest and end at the client: `ssh -R` and key agents."""
from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

import asyncssh

from ussycode.base.errors import Failure
from ussycode.doors.ssh.ends import End, relay
from ussycode.runtime.guest.listeners import Listener
from ussycode.runtime.guest.streams import Stream

MAX_OPEN = 64
"""Connections at once from one listener; a guest that opens more has the rest closed."""
Opener = Callable[[Stream], Awaitable[End]]
"""Opens the client's end for a connection accepted in the guest. Raises asyncssh.Error when it will not."""


async def serve(listener: Listener, opener: Opener) -> None:
    """Connect whatever arrives at `listener` until it ends or this is cancelled; then everything is closed."""
    busy: set[asyncio.Task[None]] = set()
    try:
        async for stream in listener:
            if len(busy) >= MAX_OPEN:
                await stream.close()
                continue
            task = asyncio.create_task(_connect(stream, opener))
            busy.add(task)
            task.add_done_callback(busy.discard)
    except Failure:
        return  # the guest speaks out of turn: nothing more can be told apart on this listener
    finally:
        for task in busy:
            task.cancel()
        await listener.close()


async def _connect(stream: Stream, opener: Opener) -> None:
    try:
        end = await opener(stream)
    except (asyncssh.Error, OSError):
        await stream.close()
        return
    except BaseException:
        stream.writer.transport.abort()
        raise
    await relay(end, stream)


class GuestListener(asyncssh.SSHListener):
    """What asyncssh keeps for a port or socket forwarded back: `work` listens until it is cancelled."""

    def __init__(self, port: int, work: Coroutine[Any, Any, None], closed: Callable[[], None]) -> None:
        super().__init__()
        self._port = port
        self._task = asyncio.create_task(work)
        self._task.add_done_callback(lambda _: closed())

    def get_port(self) -> int:
        """The bound TCP port; 0 for a unix socket."""
        return self._port

    def close(self) -> None:
        """Stop listening and end what came through. Idempotent."""
        self._task.cancel()

    async def wait_closed(self) -> None:
        """Return once it is closed."""
        await asyncio.wait({self._task})
