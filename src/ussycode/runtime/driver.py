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
    PAUSED = "paused"
    STOPPED = "stopped"
    ABSENT = "absent"


class Phase(enum.StrEnum):
    """What a node sees of a VM. `FAILED` = it died or never came up; `detail` says how."""

    ABSENT = "absent"
    PREPARED = "prepared"
    STARTING = "starting"
    RUNNING = "running"
    PAUSED = "paused"
    STOPPED = "stopped"
    FAILED = "failed"


class OriginKind(enum.StrEnum):
    """What a disk's first content is taken from."""

    IMAGE = "image"
    VM = "vm"
    SNAPSHOT = "snapshot"
    FILE = "file"


@dataclass(frozen=True)
class Origin:
    """Where the content of a VM's disk comes from; the image when nothing else is said."""

    kind: OriginKind = OriginKind.IMAGE
    vm: VmId = ""
    """The VM that is copied, or whose snapshot is taken up."""
    snapshot: str = ""
    """Id of the snapshot, for `SNAPSHOT`."""
    memory: bool = False
    """For `VM`: fork the running machine with its processes, not the disk alone."""
    file: str = ""
    """Name of an uploaded disk below DATA/imports, for `FILE`."""


class Egress(enum.StrEnum):
    """What a guest may reach besides the metadata address and the resolver."""

    ALL = "all"
    INTEGRATIONS = "integrations"


class Isolation(enum.StrEnum):
    """The wall around a guest: its own kernel, or namespaces of the host's."""

    VM = "vm"
    CONTAINER = "container"


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
    origin: Origin = Origin()
    disk_turn: int = 1
    """A greater number asks for a disk made anew from `origin` (restore of a snapshot)."""
    snapshots: tuple[str, ...] = ()
    """Ids of snapshots that must exist; one that is missing is taken now."""
    dropped: tuple[str, ...] = ()
    """Ids of snapshots that must not exist; a snapshot in neither list is left alone."""
    egress: Egress = Egress.ALL
    command: tuple[str, ...] = ()
    """What an image without an init of its own runs, instead of its ENTRYPOINT and CMD; empty keeps those."""
    isolation: Isolation = Isolation.VM


@dataclass(frozen=True)
class Spare:
    """A machine that has come up and has no owner yet: the VM that is to have it takes over its id and number."""

    vm: VmId
    number: int


@dataclass(frozen=True)
class Snapshot:
    """A kept state of a disk. `created` in Unix seconds; `size` in bytes that only this snapshot holds."""

    id: str
    created: float
    size: int


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
    disk_turn: int = 0
    """Turn of the disk that is there; 0 when there is none."""
    disk_gib: int = 0
    """Size of the disk that is there, in GiB."""
    snapshots: tuple[Snapshot, ...] = ()
    cold: bool = False
    """The last resume had no memory to go on from and booted instead."""
    notice: str = ""
    """A sentence for the owner about what was asked of it and did not come true."""
    warning: str = ""
    """A sentence about what may become a failure (a disk that fills up), or stands still until it is mended."""


@dataclass(frozen=True)
class Sample:
    """What a VM uses now. Bytes, seconds of CPU since its start; -1 where it is not known."""

    cpu_seconds: float
    memory_used: int
    memory_total: int
    disk_allocated: int
    """Bytes on the host that this VM alone holds."""
    fs_total: int
    fs_free: int
    net_rx: int
    net_tx: int
    io_read: int
    io_write: int


class Driver(Protocol):
    """Runs machines on one node. Every verb is idempotent and may be cut off by a crash at any point."""

    async def seen(self) -> Sequence[Seen]:
        """What is really here now, also after a restart of this process; never raises for one bad VM."""
        ...

    async def prepare(self, want: Want) -> None:
        """Make disk and network of the VM. Raises a declared Failure (no image, no space).

        A disk whose turn is behind `want.disk_turn` is replaced by one made from `want.origin`; the VM is then stopped.
        """
        ...

    async def start(self, want: Want) -> None:
        """Ask the VM to boot. Returns once asked, not once booted."""
        ...

    async def stop(self, vm: VmId) -> None:
        """Shut the guest down cleanly within a bound, then end it. Returns when it no longer runs."""
        ...

    async def pause(self, want: Want) -> None:
        """Write the guest's memory to disk and free it. Returns when it is PAUSED. Raises a declared Failure."""
        ...

    async def resume(self, want: Want) -> None:
        """Go on where `pause` stopped, or boot when that memory is lost (`Seen.cold`). Returns once asked."""
        ...

    async def grow(self, want: Want) -> None:
        """Make the disk `want.disk_gib` large, running or not; never smaller."""
        ...

    async def keep_snapshots(self, want: Want) -> None:
        """Take the snapshots of `want.snapshots` that are missing, remove those of `want.dropped`."""
        ...

    async def sample(self, vm: VmId) -> Sample | None:
        """What the VM uses now; None when it does not run or is unknown."""
        ...

    async def destroy(self, vm: VmId) -> None:
        """Stop without ceremony and remove disk, network and every trace."""
        ...

    async def update(self, want: Want) -> None:
        """Apply what may change while running (authorised keys, hostname after a rename, egress)."""
        ...
