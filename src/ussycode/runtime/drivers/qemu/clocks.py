"""Noticing that the host's clock was set to another time, so that its guests' clocks can follow."""
from __future__ import annotations

import asyncio
from dataclasses import dataclass

from ussycode.base.clock import Clock

TOLERATED = 1.0
"""Seconds by which a clock may be off; programs that keep it right move it by less at a time."""


@dataclass
class Told:
    """What a guest was told of the time: how far the host's clock was ahead of its steady one."""

    clock: Clock
    _ahead: float | None = None

    def now(self) -> None:
        """The guest was told the time just now."""
        self._ahead = self._measured()

    def off(self) -> float:
        """Seconds by which the host's clock was moved since; 0 for less than is worth a word."""
        if self._ahead is None:
            self.now()
        assert self._ahead is not None
        moved = self._measured() - self._ahead
        return moved if abs(moved) > TOLERATED else 0.0

    def _measured(self) -> float:
        return self.clock.now() - asyncio.get_running_loop().time()


def sentence(moved: float) -> str:
    """What to tell the owner."""
    return f"the host's clock was moved by {moved:.0f} s; this VM's clock followed"
