"""Deadlines of many connections, looked at once a second instead of one timer each."""
from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Protocol

NEVER = math.inf


class Timed(Protocol):
    """A connection with a moment (monotonic seconds, or NEVER) at which it is called."""

    deadline: float

    def on_deadline(self) -> None: ...

    def leave_when_idle(self, patient: bool) -> None: ...

    def farewell(self, code: int) -> None: ...


class Deadlines:
    """Everybody with a deadline. Late by a second at most."""

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        self.members: set[Timed] = set()
        self._monotonic = monotonic
        self.now = monotonic()
        """Monotonic time of the last look: precise enough to set deadlines from."""

    def tick(self) -> float:
        """Call whoever is due; the time now."""
        self.now = now = self._monotonic()
        for member in [m for m in self.members if m.deadline <= now]:
            member.on_deadline()
        return now
