"""Deadlines of many connections, looked at once a second instead of one timer each."""
from __future__ import annotations

import math
import time
from typing import Protocol

NEVER = math.inf


class Timed(Protocol):
    """A connection with a moment (monotonic seconds, or NEVER) at which it is called."""

    deadline: float

    def on_deadline(self) -> None: ...

    def leave_when_idle(self) -> None: ...


class Deadlines:
    """Everybody with a deadline. Late by a second at most."""

    def __init__(self) -> None:
        self.members: set[Timed] = set()
        self.now = time.monotonic()
        """Monotonic time of the last look: precise enough to set deadlines from."""

    def tick(self) -> float:
        """Call whoever is due; the time now."""
        self.now = now = time.monotonic()
        for member in [m for m in self.members if m.deadline <= now]:
            member.on_deadline()
        return now
