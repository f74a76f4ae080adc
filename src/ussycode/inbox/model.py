"""A mail that came for VMs, and what becomes of it."""
from __future__ import annotations

import enum
import hashlib
from dataclasses import dataclass


class Outcome(enum.StrEnum):
    """What became of one mail, or would."""

    TAKEN = "taken"
    """It lies in the VM, safe from a crash."""
    NO_MAILBOX = "no_mailbox"
    """Nobody has the address, or who has it takes no mail: nobody is told which."""
    FULL = "full"
    NOT_RUNNING = "not_running"
    TOO_MANY = "too_many"
    NOT_KEPT = "not_kept"
    """The guest did not take it."""

    @property
    def final(self) -> bool:
        """Sending it again later will not help."""
        return self in (Outcome.TAKEN, Outcome.NO_MAILBOX, Outcome.FULL)


@dataclass(frozen=True)
class Recipient:
    """Somebody who may get a mail: the address as it was written, and the VM behind it."""

    address: str
    vm: str


@dataclass(frozen=True)
class Mail:
    """A mail that has come whole. `trace` are header lines about its way, `content` is what was sent; both with LF."""

    sender: str
    trace: bytes
    content: bytes | bytearray

    def digest(self) -> bytes:
        """The same whenever the same sender sends it again."""
        hasher = hashlib.sha256(self.sender.encode() + b"\0")
        hasher.update(self.content)
        return hasher.digest()


def together(outcomes: list[Outcome]) -> Outcome:
    """The one answer for a mail to several: taken only when everybody has it, refused only when nobody can get it.

    `outcomes` is not empty.
    """
    waiting = [outcome for outcome in outcomes if not outcome.final]
    if waiting:
        return waiting[0]
    refused = [outcome for outcome in outcomes if outcome is not Outcome.TAKEN]
    if not refused:
        return Outcome.TAKEN
    return refused[0] if len(refused) == len(outcomes) else Outcome.NOT_KEPT
