"""The VM as the control plane knows it: the owner's wish and the last observation."""
from __future__ import annotations

import enum
from dataclasses import dataclass, field
from typing import cast

from ussycode.runtime.driver import Egress, Isolation, Origin, Phase, Power, Want
from ussycode.vms.documents import Status

MAX_UNREAD = 1000
"""Mails in ~/Maildir/new of a VM; with the next one its mailbox is turned off."""

STOPPED = f"{MAX_UNREAD} mails lay unread in ~/Maildir/new"


class Mailbox(enum.StrEnum):
    """Whether a VM takes mail."""

    OFF = "off"
    ON = "on"
    FULL = "full"
    """It did, until too much of it lay unread."""


@dataclass(frozen=True)
class Vm:
    """One VM. `power` and `boot` are the wish; `phase`, `seen_boot` and what follows were observed."""

    id: str
    number: int
    name: str
    owner: str
    image: str
    env: tuple[tuple[str, str], ...]
    vcpus: int
    memory_mib: int
    disk_gib: int
    power: Power
    boot: int
    secret: str
    phase: Phase
    seen_boot: int
    detail: str
    console: str
    address: str
    created_at: float
    command: tuple[str, ...] = ()
    isolation: Isolation = Isolation.VM
    comment: str = ""
    tags: tuple[str, ...] = ()
    egress: Egress = Egress.ALL
    wake: bool = False
    """A visit over SSH or HTTPS, or a mail, starts it when it is stopped or paused."""
    snapshot_daily: bool = False
    origin: Origin = field(default_factory=Origin)
    disk_turn: int = 1
    seen_disk_turn: int = 0
    seen_disk_gib: int = 0
    cold: bool = False
    """The last resume had to boot."""
    notice: str = ""
    """Why what was asked of it did not come true."""
    warning: str = ""
    """What its owner should know before it becomes a failure."""
    trashed_at: float = 0.0
    """Unix seconds; 0 while it is not in the trash."""
    trash_name: str = ""
    mailbox: Mailbox = Mailbox.OFF

    @property
    def remark(self) -> str:
        """What to tell its owner beside its status; empty for most."""
        return "; ".join(filter(None, (self.notice, self.warning, self.mail_notice)))

    @property
    def mail_notice(self) -> str:
        """Why it takes no mail any more; empty for most."""
        return f"it takes no mail any more: {STOPPED}" if self.mailbox is Mailbox.FULL else ""

    @property
    def running(self) -> bool:
        """It answers, in the boot that was asked for last."""
        return self.phase is Phase.RUNNING and self.seen_boot == self.boot

    @property
    def status(self) -> Status:
        """One word for people: what it is, or what it is on its way to."""
        if self.power is Power.ABSENT:
            return "deleting"
        if self.trashed_at:
            return "trashed"
        if self.power is Power.RUNNING and (self.seen_boot < self.boot or self.phase is Phase.PAUSED):
            return "starting"
        return "starting" if self.phase in (Phase.PREPARED, Phase.ABSENT) else cast(Status, self.phase.value)

    @property
    def asleep(self) -> bool:
        """Not running because its owner wanted it so; it can be woken."""
        return self.wake and self.power in (Power.STOPPED, Power.PAUSED) and not self.trashed_at

    def want(
        self, authorized_keys: tuple[str, ...], snapshots: tuple[str, ...] = (), dropped: tuple[str, ...] = ()
    ) -> Want:
        """The wish as a node needs it; `snapshots` must exist, `dropped` must not."""
        return Want(
            vm=self.id, name=self.name, number=self.number, power=self.power, boot=self.boot, image=self.image,
            vcpus=self.vcpus, memory_mib=self.memory_mib, disk_gib=self.disk_gib, env=self.env,
            authorized_keys=authorized_keys, secret=self.secret, isolation=self.isolation, command=self.command,
            origin=self.origin, disk_turn=self.disk_turn, snapshots=snapshots, dropped=dropped, egress=self.egress,
        )
