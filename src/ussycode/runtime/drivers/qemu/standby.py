"""The wait of a spare: it has come up, and goes no further until somebody owns it."""
from __future__ import annotations

import asyncio
from collections.abc import Coroutine

from ussycode.runtime.drivers.qemu.process import Watch


class Standby:
    """Two moments in the life of a spare, each of which comes at most once."""

    def __init__(self) -> None:
        self.ready = asyncio.Event()
        """It is a whole machine, and nobody's."""
        self.owned = asyncio.Event()
        """Somebody has it: it becomes that VM."""

    async def for_owner(self, watch: Watch) -> bool:
        """Wait, however long; whether the machine is there to be owned."""
        await unless_ended(watch, _true_when(self.owned))
        return not watch.over.is_set()


async def _true_when(event: asyncio.Event) -> bool:
    return await event.wait()


async def unless_ended(watch: Watch, coming: Coroutine[None, None, bool]) -> bool:
    """What `coming` says; False when the process ends first."""
    waiting, ended = asyncio.create_task(coming), asyncio.create_task(watch.over.wait())
    try:
        await asyncio.wait({waiting, ended}, return_when=asyncio.FIRST_COMPLETED)
        return waiting.done() and waiting.result()
    finally:
        for task in (waiting, ended):
            task.cancel()
        await asyncio.gather(waiting, ended, return_exceptions=True)
