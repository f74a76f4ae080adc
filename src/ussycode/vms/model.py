"""The VM as the control plane knows it: the owner's wish and the last observation."""
from __future__ import annotations

from dataclasses import dataclass

from ussycode.runtime.driver import Isolation, Phase, Power, Want


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

    @property
    def running(self) -> bool:
        """It answers, in the boot that was asked for last."""
        return self.phase is Phase.RUNNING and self.seen_boot == self.boot

    @property
    def status(self) -> str:
        """One word for people: what it is, or what it is on its way to."""
        if self.power is Power.ABSENT:
            return "deleting"
        if self.power is Power.RUNNING and self.seen_boot < self.boot:
            return "starting"
        return "starting" if self.phase in (Phase.PREPARED, Phase.ABSENT) else self.phase.value

    def want(self, authorized_keys: tuple[str, ...]) -> Want:
        """The wish as a node needs it."""
        return Want(
            vm=self.id, name=self.name, number=self.number, power=self.power, boot=self.boot, image=self.image,
            vcpus=self.vcpus, memory_mib=self.memory_mib, disk_gib=self.disk_gib, env=self.env,
            authorized_keys=authorized_keys, secret=self.secret, isolation=self.isolation, command=self.command,
        )
