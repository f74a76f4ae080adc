"""What may be said to the privileged helper: typed, bounded verbs; no path and no command line ever crosses."""
from __future__ import annotations

import enum
from typing import Annotated

import msgspec

from ussycode.base.errors import ErrorCode, Kind
from ussycode.runtime.instance import FIRST_NUMBER, LAST_CONTAINER, LAST_TEMPLATE

MAX_FRAME = 16 * 1024
"""Bytes of one message, either way."""
HEADER = 4
"""Bytes of the big-endian length in front of every message."""

VmName = Annotated[str, msgspec.Meta(pattern=r"^[a-z0-9_]{4,40}\Z")]
Number = Annotated[int, msgspec.Meta(ge=FIRST_NUMBER, le=LAST_TEMPLATE)]
Vcpus = Annotated[int, msgspec.Meta(ge=1, le=64)]
MemoryMib = Annotated[int, msgspec.Meta(ge=64, le=1024 * 1024)]
DiskName = Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{32}\Z")]
"""Name of a file in DATA/layers."""
TemplateId = Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{32}\Z")]
MAX_TEMPLATES = 64
"""Templates that the helper holds at once."""
GuestInit = Annotated[str, msgspec.Meta(pattern=r"^(tiny|(/[A-Za-z0-9_-][A-Za-z0-9._-]*){1,8})\Z", max_length=120)]
"""Program that the guest program hands over to; `tiny` when it acts as init itself."""

HELPER_GONE = ErrorCode(
    "helper.gone", Kind.UNAVAILABLE, "the privileged helper of ussycode does not answer",
    hint="it is started by `ussycode up`; look at its log",
)
HELPER_REFUSED = ErrorCode("helper.refused", Kind.FAILED, "the privileged helper refused: {why}")


class Accel(enum.StrEnum):
    """What runs the guest's instructions."""

    KVM = "kvm"
    TCG = "tcg"


class Verb(msgspec.Struct, tag=True, frozen=True, forbid_unknown_fields=True):
    """One request."""


class NetUp(Verb, frozen=True):
    """Load the instance's table and switch forwarding on. Idempotent."""


class NetDown(Verb, frozen=True):
    """Remove table, taps and forwarding that we switched on."""


class NetCheck(Verb, frozen=True):
    """Mend what others changed of rules, interfaces and forwarding; answers with what that was."""


class Confine(Verb, frozen=True):
    """Leave a running VM only metadata, resolver and integrations, or give it the internet back."""

    vm: VmName
    number: Number
    confined: bool


class DiskOwn(Verb, frozen=True):
    """Give a disk that control made to the uid the VM runs under."""

    vm: VmName
    number: Number
    disk: DiskName


class DiskSeal(Verb, frozen=True):
    """Take a disk from the VM for ever: from now on everybody may read it who knows its name, nobody write."""

    vm: VmName
    number: Number
    disk: DiskName


class Spawn(Verb, frozen=True):
    """Start QEMU for a VM whose disk is ready; answers with the running process when there is one."""

    vm: VmName
    number: Number
    vcpus: Vcpus
    memory_mib: MemoryMib
    init: GuestInit
    accel: Accel
    disk: DiskName
    confined: bool = False
    """`egress integrations`."""
    incoming: bool = False
    """It waits for memory that control hands to it, instead of booting."""
    template: TemplateId | None = None
    """With `incoming`, the template whose memory it starts with; else the one that its memory is to become."""
    waits: bool = False
    """Its kernel looks at no disk before control tells it with which init to go on."""


class Kill(Verb, frozen=True):
    """End the VM's QEMU at once; no error when it is gone."""

    vm: VmName
    number: Number


class Look(Verb, frozen=True):
    """The VM's process: running, or how it ended."""

    vm: VmName
    number: Number


class RemoveTraces(Verb, frozen=True):
    """Remove what root made for an ended VM: admission, cgroup, sockets, process record."""

    vm: VmName
    number: Number


class Usage(Verb, frozen=True):
    """What the VM's process uses now."""

    vm: VmName
    number: Number


class Builds(Verb, frozen=True):
    """What machines are made of here: memory written with one build may not be understood by another."""


class TemplateSeal(Verb, frozen=True):
    """Make the memory of an ended machine a template that nothing can write to any more, root included."""

    template: TemplateId


class TemplateDrop(Verb, frozen=True):
    """Let go of a template, or of what was to become one; machines made from it go on. Idempotent."""

    template: TemplateId


class TemplateList(Verb, frozen=True):
    """The templates that are held."""


class Facts(Verb, frozen=True):
    """What the helper found on this host, and firewalls in the way."""


ContainerNumber = Annotated[int, msgspec.Meta(ge=FIRST_NUMBER, le=LAST_CONTAINER)]
ImageFolder = Annotated[str, msgspec.Meta(pattern=r"^[a-z0-9][a-z0-9._-]{0,100}\Z")]
Digest = Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{12,128}\Z")]
Hostname = Annotated[str, msgspec.Meta(pattern=r"^[a-z0-9][a-z0-9-]{0,62}\Z")]
DiskGib = Annotated[int, msgspec.Meta(ge=1, le=1024)]
SnapshotId = Annotated[str, msgspec.Meta(pattern=r"^[a-z0-9_-]{1,60}\Z")]


class ContainerMake(Verb, frozen=True):
    """Make a container's disk when it is missing: empty above the image, or the content of another container's."""

    vm: VmName
    image: ImageFolder
    digest: Digest
    disk_gib: DiskGib
    source: VmName | None = None
    """The container whose disk, or whose snapshot, is copied."""
    source_number: ContainerNumber | None = None
    """Its number, when it may be running: it is held still meanwhile."""
    snapshot: SnapshotId | None = None


class ContainerRun(Verb, frozen=True):
    """Start a container whose disk is ready; answers with the running process when there is one."""

    vm: VmName
    number: ContainerNumber
    vcpus: Vcpus
    memory_mib: MemoryMib
    init: GuestInit
    hostname: Hostname
    confined: bool = False
    """As for `Spawn`."""


class ContainerRename(Verb, frozen=True):
    """Give a running container another host name."""

    vm: VmName
    number: ContainerNumber
    hostname: Hostname


class ContainerGrow(Verb, frozen=True):
    """Make a container's disk larger, running or not."""

    vm: VmName
    number: ContainerNumber
    disk_gib: DiskGib


class ContainerKeep(Verb, frozen=True):
    """Take a snapshot of a container's disk when it is missing; a running one is held still meanwhile."""

    vm: VmName
    number: ContainerNumber
    snapshot: SnapshotId


class ContainerDrop(Verb, frozen=True):
    """Remove a snapshot. Idempotent."""

    vm: VmName
    snapshot: SnapshotId


class ContainerForget(Verb, frozen=True):
    """Remove the disk and all snapshots of a container that no longer runs. Idempotent."""

    vm: VmName
    number: ContainerNumber
    snapshots: bool = True
    """False keeps the snapshots: the disk is about to be made anew."""


class ContainerDisk(Verb, frozen=True):
    """What is there of a container's disk."""

    vm: VmName


ContainerVerb = (
    ContainerMake | ContainerRun | ContainerRename | ContainerGrow | ContainerKeep | ContainerDrop | ContainerForget
    | ContainerDisk
)
Request = (
    ContainerVerb | NetUp | NetDown | NetCheck | Confine | DiskOwn | DiskSeal | Spawn | Kill | Look | RemoveTraces
    | Usage | Facts | Builds | TemplateSeal | TemplateDrop | TemplateList
)


class Answer(msgspec.Struct, tag=True, frozen=True):
    """One reply."""


class Done(Answer, frozen=True):
    """It is so now."""


class Refused(Answer, frozen=True):
    """It was not done; `why` is a sentence for a person."""

    why: str


class Process(Answer, frozen=True):
    """A VM's QEMU. `started` is the kernel's start time in clock ticks since the host booted.

    `exit` is the exit status, or minus the signal that ended it; None while running or when nobody saw the end.
    `pid` 0 says that there is no record of any.
    """

    pid: int = 0
    started: int = 0
    running: bool = False
    exit: int | None = None


class Used(Answer, frozen=True):
    """Resources of one VM's process: bytes, nanoseconds, threads; -1 where the host does not count it."""

    memory: int
    cpu_ns: int
    threads: int


class HostFacts(Answer, frozen=True):
    """Which limits can be enforced, and sentences for `doctor`."""

    cgroups: str
    notes: tuple[str, ...]
    leaks: tuple[str, ...] = ()
    """Sentences about what is left of VMs that do not run; nothing of it was removed."""


class Held(msgspec.Struct, frozen=True):
    """A template's memory. `size` in bytes that it takes on the host; `sealed` once it can be forked from."""

    template: str
    size: int
    sealed: bool


class Templates(Answer, frozen=True):
    """Every template's memory that the helper holds."""

    held: tuple[Held, ...]


class Built(Answer, frozen=True):
    """Digest of kernel, initrd and guest program, and QEMU's own version line."""

    boot: str
    qemu: str


class Mended(Answer, frozen=True):
    """What was not as it should be, as sentences; empty when all was well."""

    found: tuple[str, ...]


class Kept(Answer, frozen=True):
    """A snapshot of a container's disk. `created` in Unix seconds, `size` in allocated bytes."""

    id: str
    created: float
    size: int


class Grown(Answer, frozen=True):
    """A larger disk. `now` is False when the file system on it grows at the next start only."""

    now: bool


class Disk(Answer, frozen=True):
    """A container's disk. Bytes; `size` is -1 when there is none, `allocated` counts its snapshots too."""

    size: int
    allocated: int
    snapshots: tuple[Kept, ...]


Reply = Built | Grown | Disk | Done | Refused | Process | Used | HostFacts | Mended | Templates

encode = msgspec.json.Encoder().encode
decode_request = msgspec.json.Decoder(Request).decode
decode_reply = msgspec.json.Decoder(Reply).decode
