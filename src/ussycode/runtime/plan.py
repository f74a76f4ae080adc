"""What to do next about one VM: a pure comparison of what is wanted with what is seen."""
from __future__ import annotations

import enum

from ussycode.runtime.driver import Phase, Power, Seen, Want


class Step(enum.StrEnum):
    """One verb of the driver; a plan is carried out in order and stops at the first failure."""

    PREPARE = "prepare"
    START = "start"
    STOP = "stop"
    DESTROY = "destroy"
    UPDATE = "update"


def plan(want: Want | None, seen: Seen | None) -> list[Step]:
    """Steps that bring the VM closer to `want`; empty when nothing is to be done.

    No wish is never a wish for absence: a VM that nobody mentions is left alone.
    A VM that failed, or that the guest itself powered off, stays as it is until `want.boot` grows.
    """
    if want is None:
        return []
    phase = seen.phase if seen is not None else Phase.ABSENT
    if want.power is Power.ABSENT:
        return [] if phase is Phase.ABSENT else [Step.DESTROY]
    if want.power is Power.STOPPED:
        return _towards_stopped(phase)
    return _towards_running(want, phase, seen.boot if seen is not None else 0)


def _towards_stopped(phase: Phase) -> list[Step]:
    if phase is Phase.STOPPED:
        return []
    if phase is Phase.ABSENT:
        return [Step.PREPARE, Step.STOP]
    return [Step.STOP]


def _towards_running(want: Want, phase: Phase, boot: int) -> list[Step]:
    if phase is Phase.ABSENT:
        return [Step.PREPARE, Step.START]
    if phase is Phase.PREPARED:
        return [Step.START]
    if boot >= want.boot:
        return [Step.UPDATE] if phase is Phase.RUNNING else []
    if phase in (Phase.RUNNING, Phase.STARTING):
        return [Step.STOP, Step.PREPARE, Step.START]
    return [Step.PREPARE, Step.START]
