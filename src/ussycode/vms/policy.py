"""Room and limits: pure rules about how much one account may have."""
from __future__ import annotations

from dataclasses import dataclass

from ussycode.access.facts import Role
from ussycode.base.errors import ErrorCode, Kind

QUOTA_VMS = ErrorCode(
    "quota.vms", Kind.CONFLICT, "you have {used} of {limit} VMs", hint="remove one, or ask the operator for more"
)
QUOTA_MEMORY = ErrorCode(
    "quota.memory", Kind.CONFLICT, "{wanted} MiB more would pass your {limit} MiB of memory (in use: {used} MiB)",
    hint="remove a VM, or ask the operator for more",
)
QUOTA_DISK = ErrorCode(
    "quota.disk", Kind.CONFLICT, "{wanted} GiB more would pass your {limit} GiB of disk (in use: {used} GiB)",
    hint="remove a VM, or ask the operator for more",
)


@dataclass(frozen=True)
class Size:
    """A VM's size."""

    vcpus: int = 1
    memory_mib: int = 512
    disk_gib: int = 5


@dataclass(frozen=True)
class Limits:
    """What an account may have in all; None is unlimited."""

    vms: int | None
    memory_mib: int | None
    disk_gib: int | None


@dataclass(frozen=True)
class Usage:
    """What an account has."""

    vms: int
    memory_mib: int
    disk_gib: int


LIMITS = {
    Role.NEWBIE: Limits(3, 2048, 15),
    Role.CITIZEN: Limits(10, 8192, 25),
    Role.OPERATOR: Limits(25, 16384, 100),
    Role.ADMIN: Limits(None, None, None),
}
DEFAULT_SIZE = Size()


def require_room(role: Role, usage: Usage, size: Size) -> None:
    """Nothing when one more VM of `size` fits; raises the quota that it would pass."""
    limits = LIMITS[role]
    if limits.vms is not None and usage.vms >= limits.vms:
        raise QUOTA_VMS(used=usage.vms, limit=limits.vms)
    if limits.memory_mib is not None and usage.memory_mib + size.memory_mib > limits.memory_mib:
        raise QUOTA_MEMORY(wanted=size.memory_mib, limit=limits.memory_mib, used=usage.memory_mib)
    if limits.disk_gib is not None and usage.disk_gib + size.disk_gib > limits.disk_gib:
        raise QUOTA_DISK(wanted=size.disk_gib, limit=limits.disk_gib, used=usage.disk_gib)
