"""Rate limits: one token bucket for each key, in bounded memory."""
from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field

from ussycode.base.clock import Clock

MAX_BUCKETS = 4096
"""Keys remembered at once; beyond it the one unused for longest starts afresh."""


@dataclass
class Buckets:
    """`burst` calls at once, refilled at `rate` a second."""

    clock: Clock
    rate: float
    burst: float
    _left: OrderedDict[str, tuple[float, float]] = field(default_factory=OrderedDict)

    @classmethod
    def per_minute(cls, clock: Clock, count: int) -> Buckets:
        """`count` a minute, a sixth of them at once (at least one)."""
        return cls(clock, count / 60, max(1.0, count / 6))

    def take(self, key: str) -> float:
        """Take one call for `key`. Result: 0 when it may go ahead, else the seconds to wait; nothing is taken then."""
        now = self.clock.now()
        left, then = self._left.pop(key, (self.burst, now))
        left = min(self.burst, left + max(0.0, now - then) * self.rate)
        wait = 0.0 if left >= 1 else (1 - left) / self.rate
        self._left[key] = (left if wait else left - 1, now)
        while len(self._left) > MAX_BUCKETS:
            self._left.popitem(last=False)
        return wait
