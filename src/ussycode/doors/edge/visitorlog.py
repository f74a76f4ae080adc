"""Who came to which VM and what was decided, gathered here and told to control now and then."""
from __future__ import annotations

from ussycode.doors.edge.counters import Counters
from ussycode.doors.edge.verdicts import Verdict
from ussycode.wire.edge import Visitor, Visitors

EVERY = 2
"""Seconds between two tellings."""
MAX_HELD = 2000
"""Visitors gathered between two; further ones are counted, not told of."""
AT_ONCE = 25
"""Visitors in one message: control takes 10 KiB."""


class VisitorLog:
    """Counts requests by visitor and decision. A request costs one look into a dictionary."""

    def __init__(self, counters: Counters) -> None:
        self._counters = counters
        self._held: dict[tuple[Verdict, bytes], int] = {}

    def note(self, verdict: Verdict, address: bytes) -> None:
        """One request that `verdict` decided, from `address`."""
        key = verdict, address
        held = self._held.get(key)
        if held is not None:
            self._held[key] = held + 1
        elif verdict.judgement.vm is not None:
            if len(self._held) < MAX_HELD:
                self._held[key] = 1
            else:
                self._counters.add("visitors_lost")

    def take(self) -> list[Visitors]:
        """What was gathered since the last call, in messages."""
        held, self._held = self._held, {}
        found = [_visitor(verdict, address, count) for (verdict, address), count in held.items()]
        return [Visitors(found[n : n + AT_ONCE]) for n in range(0, len(found), AT_ONCE)]


def _visitor(verdict: Verdict, address: bytes, count: int) -> Visitor:
    judgement = verdict.judgement
    assert judgement.vm is not None
    return Visitor(
        judgement.vm.vm, judgement.port, judgement.caller.user, address.decode("latin-1"), judgement.allowed,
        judgement.reason, count,
    )
