"""What may be said to the privileged helper: typed, bounded verbs; no path and no command line ever crosses."""
from __future__ import annotations

import enum
from typing import Annotated

import msgspec

from ussycode.base.errors import ErrorCode, Kind
from ussycode.runtime.instance import FIRST_NUMBER, LAST_NUMBER

MAX_FRAME = 16 * 1024
"""Bytes of one message, either way."""
HEADER = 4
"""Bytes of the big-endian length in front of every message."""

VmName = Annotated[str, msgspec.Meta(pattern=r"^[a-z0-9_]{4,40}\Z")]
Number = Annotated[int, msgspec.Meta(ge=FIRST_NUMBER, le=LAST_NUMBER)]
Vcpus = Annotated[int, msgspec.Meta(ge=1, le=64)]
MemoryMib = Annotated[int, msgspec.Meta(ge=64, le=1024 * 1024)]
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


class DiskOwn(Verb, frozen=True):
    """Give the VM's disk to the uid the VM runs under."""

    vm: VmName
    number: Number


class Spawn(Verb, frozen=True):
    """Start QEMU for a VM whose disk is ready; answers with the running process when there is one."""

    vm: VmName
    number: Number
    vcpus: Vcpus
    memory_mib: MemoryMib
    init: GuestInit
    accel: Accel


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


class Facts(Verb, frozen=True):
    """What the helper found on this host, and firewalls in the way."""


Request = NetUp | NetDown | DiskOwn | Spawn | Kill | Look | RemoveTraces | Usage | Facts


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


Reply = Done | Refused | Process | Used | HostFacts

encode = msgspec.json.Encoder().encode
decode_request = msgspec.json.Decoder(Request).decode
decode_reply = msgspec.json.Decoder(Reply).decode
