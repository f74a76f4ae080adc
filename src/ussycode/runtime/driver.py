"""The driver protocol: what is wanted of a machine, what is seen of it, and the verbs between."""
from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

VmId = str
"""Opaque, stable id of a VM (`vm_` and 16 base32 characters); safe as a file name."""


class Power(enum.StrEnum):
    """What the owner wants of a VM."""

    RUNNING = "running"
    STOPPED = "stopped"
    ABSENT = "absent"


class Phase(enum.StrEnum):
    """What a node sees of a VM. `FAILED` = it died or never came up; `detail` says how."""

    ABSENT = "absent"
    PREPARED = "prepared"
    STARTING = "starting"
    RUNNING = "running"
    STOPPED = "stopped"
    FAILED = "failed"


@dataclass(frozen=True)
class Want:
    """Everything a node must know to run one VM. A greater `boot` asks for a fresh start (restart)."""

    vm: VmId
    name: str
    number: int
    """Position in the instance's address pool and uid range, 2..16000; never shared by two VMs."""
    power: Power
    boot: int
    image: str
    vcpus: int
    memory_mib: int
    disk_gib: int
    env: tuple[tuple[str, str], ...]
    authorized_keys: tuple[str, ...]
    secret: str
    """64 hex characters; authenticates streams to the guest agent for the life of this boot."""
    token: str = ""
    """Free for the control plane; carried back unread."""


@dataclass(frozen=True)
class Seen:
    """What a node observed of one VM."""

    vm: VmId
    phase: Phase
    boot: int = 0
    detail: str = ""
    """One sentence for a person when `FAILED` (last words of the console in `console`)."""
    console: str = ""
    address: str = ""
    """IPv4 address of the guest on its tap; empty until known."""
    login_user: str = ""
    default_port: int = 8000
    pid: int = 0


class Driver(Protocol):
    """Runs machines on one node. Every verb is idempotent and may be cut off by a crash at any point."""

    async def seen(self) -> Sequence[Seen]:
        """What is really here now, also after a restart of this process; never raises for one bad VM."""
        ...

    async def prepare(self, want: Want) -> None:
        """Make disk and network of the VM. Raises a declared Failure (no image, no space)."""
        ...

    async def start(self, want: Want) -> None:
        """Ask the VM to boot. Returns once asked, not once booted."""
        ...

    async def stop(self, vm: VmId) -> None:
        """Shut the guest down cleanly within a bound, then end it. Returns when it no longer runs."""
        ...

    async def destroy(self, vm: VmId) -> None:
        """Stop without ceremony and remove disk, network and every trace."""
        ...

    async def update(self, want: Want) -> None:
        """Apply what may change while running (authorised keys, hostname after a rename)."""
        ...
