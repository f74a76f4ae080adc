"""Places among the machines that boot at once."""
from __future__ import annotations

import asyncio


class Turn:
    """A place among the machines that boot at once, given back when the boot is over, not the life."""

    def __init__(self, places: asyncio.Semaphore, *, waits: bool) -> None:
        self._places = places
        self._waits = waits
        self._held = False

    async def __aenter__(self) -> Turn:
        if self._waits:
            await self._places.acquire()
            self._held = True
        return self

    async def __aexit__(self, *_: object) -> None:
        self.over()

    def over(self) -> None:
        """Give the place to the next one. Idempotent."""
        if self._held:
            self._held = False
            self._places.release()
