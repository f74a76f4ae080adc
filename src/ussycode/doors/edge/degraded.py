"""Serving while control is away: from memory, saying so, and private hosts only for the grace."""
from __future__ import annotations

import sys

from ussycode.doors.edge.edge import Edge
from ussycode.wire.edge import Change, Snapshot

HEADER = b"X-Ussycode-Degraded: control-down\r\n"


class Following:
    """Applies the feed to one edge and keeps account of its absence."""

    def __init__(self, edge: Edge) -> None:
        self._edge = edge
        self._lost_at: float | None = None
        """Monotonic time."""

    def on_snapshot(self, snapshot: Snapshot) -> None:
        """Control is (again) there: take everything anew."""
        self._edge.known.reset(snapshot)
        self._edge.domains.reset(snapshot.domains)
        self._edge.assertions.take(snapshot.signers)
        self._edge.degraded = b""
        self._edge.verdicts.closed = False
        self._lost_at = None
        self._edge.counters.add("snapshots")
        self._edge.informed.set()
        self._edge.verdicts.recheck()

    def on_change(self, change: Change) -> None:
        """Apply, and cut what it ends, before it is acknowledged."""
        self._edge.known.apply(change)
        self._edge.domains.apply(change.put_domains, change.drop_domains)
        if change.signers:
            self._edge.assertions.take(change.signers)
        self._edge.counters.add("changes")
        self._edge.verdicts.recheck()

    def on_loss(self, why: str) -> None:
        """The feed is gone; called again for every failed attempt to get it back."""
        if self._lost_at is not None or not self._edge.known.ready:
            return
        sys.stderr.write(f"edge: the feed is lost, serving from memory: {why}\n")
        self._edge.counters.add("feed_losses")
        self._lost_at = self._edge.deadlines.now
        self._edge.degraded = HEADER

    def tick(self) -> None:
        """Once a second: shut private hosts when the grace is over."""
        verdicts = self._edge.verdicts
        if verdicts.closed or self._lost_at is None:
            return
        if self._edge.deadlines.now - self._lost_at > self._edge.settings.grace:
            verdicts.closed = True
            verdicts.recheck()
