"""What to do next about one VM: a pure comparison of what is wanted with what is seen."""
from __future__ import annotations

import enum

from ussycode.runtime.driver import Phase, Power, Seen, Want


class Step(enum.StrEnum):
    """One verb of the driver; a plan is carried out in order and stops at the first failure."""

    PREPARE = "prepare"
    START = "start"
    STOP = "stop"
    PAUSE = "pause"
    RESUME = "resume"
    GROW = "grow"
    SNAPSHOTS = "snapshots"
    DESTROY = "destroy"
    UPDATE = "update"


_ASLEEP = (Phase.PREPARED, Phase.STOPPED, Phase.FAILED)
"""Phases in which no machine of the VM holds its disk open."""


def plan(want: Want | None, seen: Seen | None) -> list[Step]:
    """Steps that bring the VM closer to `want`; empty when nothing is to be done.

    No wish is never a wish for absence: a VM that nobody mentions is left alone.
    A VM that failed, or that the guest itself powered off, stays as it is until `want.boot` grows.
    """
    if want is None:
        return []
    now = seen if seen is not None else Seen(want.vm, Phase.ABSENT)
    if want.power is Power.ABSENT:
        return [] if now.phase is Phase.ABSENT else [Step.DESTROY]
    return _disk_steps(want, now) + _power_steps(want, now)


def _power_steps(want: Want, now: Seen) -> list[Step]:
    if want.power is Power.RUNNING:
        return _towards_running(want, now)
    stale = now.disk_turn < want.disk_turn
    if want.power is Power.PAUSED and not stale:
        return [Step.PAUSE] if now.phase is Phase.RUNNING and now.boot >= want.boot else []
    return _towards_stopped(now.phase, stale)


def _towards_stopped(phase: Phase, stale: bool) -> list[Step]:
    if phase is Phase.ABSENT:
        return [Step.PREPARE, Step.STOP]
    ending = [] if phase is Phase.STOPPED else [Step.STOP]
    return ending + ([Step.PREPARE] if stale else [])


def _towards_running(want: Want, now: Seen) -> list[Step]:
    if now.phase is Phase.ABSENT:
        return [Step.PREPARE, Step.START]
    if now.phase is Phase.PREPARED:
        return [Step.PREPARE, Step.START] if now.disk_turn < want.disk_turn else [Step.START]
    if now.boot >= want.boot:
        return {Phase.RUNNING: [Step.UPDATE], Phase.PAUSED: [Step.RESUME]}.get(now.phase, [])
    if now.phase in (Phase.RUNNING, Phase.STARTING, Phase.PAUSED):
        return [Step.STOP, Step.PREPARE, Step.START]
    return [Step.PREPARE, Step.START]


def _disk_steps(want: Want, now: Seen) -> list[Step]:
    """What the disk that is there needs; one about to be replaced needs nothing."""
    if now.phase in (Phase.ABSENT, Phase.STARTING) or now.disk_turn < want.disk_turn:
        return []
    kept = {snapshot.id for snapshot in now.snapshots}
    steps = []
    if set(want.snapshots) - kept or kept & set(want.dropped):
        steps.append(Step.SNAPSHOTS)
    if 0 < now.disk_gib < want.disk_gib and now.phase in (Phase.RUNNING, *_ASLEEP):
        steps.append(Step.GROW)
    return steps
