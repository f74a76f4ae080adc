"""Places among the machines that boot at once."""
from __future__ import annotations

import asyncio

TURN_SECONDS = 10.0
"""The longest that one boot keeps its place; one that takes longer goes on beside the others."""


class Turn:
    """A place among the machines that boot at once, given back when the boot is over, not the life.

    A guest whose boot stalls keeps nobody else waiting for longer than TURN_SECONDS.
    """

    def __init__(self, places: asyncio.Semaphore, *, waits: bool, seconds: float = TURN_SECONDS) -> None:
        self._places = places
        self._waits = waits
        self._seconds = seconds
        self._held = False
        self._late: asyncio.TimerHandle | None = None

    async def __aenter__(self) -> Turn:
        if self._waits:
            await self._places.acquire()
            self._held = True
            self._late = asyncio.get_running_loop().call_later(self._seconds, self.over)
        return self

    async def __aexit__(self, *_: object) -> None:
        self.over()

    def over(self) -> None:
        """Give the place to the next one. Idempotent."""
        if self._late is not None:
            self._late.cancel()
        if self._held:
            self._held = False
            self._places.release()
