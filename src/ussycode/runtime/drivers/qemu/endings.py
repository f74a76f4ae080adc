"""How a QEMU ended and what that means for its VM: pure judgements."""
from __future__ import annotations

import signal
from dataclasses import dataclass

from ussycode.runtime.driver import Phase
from ussycode.runtime.privileged.processes import Record


@dataclass(frozen=True)
class Ending:
    """The phase after the end and a sentence for a person. STARTING: the guest asked to be started again."""

    phase: Phase
    detail: str


POWERED_OFF = Ending(Phase.STOPPED, "the guest powered itself off")
UNFIT = Ending(Phase.STARTING, "")
"""The memory it was to go on from is of no use: it is to be booted instead."""
UNCLAIMED = Ending(Phase.STOPPED, "")
"""A spare is gone before it had an owner."""
RESET = Ending(Phase.STARTING, "")
LOST = Ending(Phase.PREPARED, "")
_SPOILT = ("qemu-system-x86_64: -drive id=disk,", "qcow2: Marking image as corrupt")
"""What QEMU says of a disk that it cannot open, or finds damaged later; the rest of the line may be cut."""
SPOILT_DISK = "its disk is damaged and cannot be opened; snapshot restore brings back a state that was kept"
TOO_MANY_RESETS = Ending(Phase.FAILED, "the guest keeps restarting itself")
BROKEN = Ending(Phase.FAILED, "something went wrong on our side while watching the VM")


def silent(seconds: float) -> Ending:
    """The boot timeout passed without a word of the agent."""
    return Ending(Phase.FAILED, f"the guest did not answer within {seconds:.0f} s")


def watched(booted: bool, reason: str, exit_status: int | None) -> Ending:
    """The end of a QEMU whose monitor was connected; `reason` is QEMU's own word, empty when it had no time."""
    if reason == "guest-reset" and booted:
        return RESET
    if reason == "guest-shutdown" and booted:
        return POWERED_OFF
    if not booted:
        return Ending(Phase.FAILED, f"the guest ended while it was booting{_how(reason, exit_status)}")
    if not reason and exit_status == 0:
        return POWERED_OFF
    return Ending(Phase.FAILED, f"the VM's process ended unexpectedly{_how(reason, exit_status)}")


def with_reason(ending: Ending, console: str) -> Ending:
    """The same, in better words where QEMU's own last ones say what it was."""
    if ending.phase is Phase.FAILED and any(words in console for words in _SPOILT):
        return Ending(Phase.FAILED, SPOILT_DISK)
    return ending


def unwatched(record: Record | None) -> Ending:
    """The end of a QEMU that nobody was connected to.

    Without a word about how it ended, the host itself went down: the VM is to be started again.
    """
    if record is None or record.exit is None:
        return LOST
    if record.exit == 0:
        return POWERED_OFF
    return Ending(Phase.FAILED, f"the VM's process ended unexpectedly{_how('', record.exit)}")


def _how(reason: str, status: int | None) -> str:
    if status is not None and status < 0:
        return f" (killed by {signal.Signals(-status).name})"
    if reason:
        return f" ({reason})"
    return f" (exit status {status})" if status else ""
