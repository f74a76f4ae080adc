"""Room and limits: pure rules about how much one account may have."""
from __future__ import annotations

from dataclasses import dataclass

from ussycode.access.facts import Role
from ussycode.base.errors import ErrorCode, Kind

QUOTA_VMS = ErrorCode(
    "quota.vms", Kind.CONFLICT, "you have {used} of {limit} VMs", hint="remove one, or ask the operator for more"
)
QUOTA_GUEST = ErrorCode(
    "quota.guest", Kind.CONFLICT, "you came for what is shared with you, and have no VMs of your own",
    hint="ask the operator to invite you",
)
QUOTA_MEMORY = ErrorCode(
    "quota.memory", Kind.CONFLICT, "{wanted} MiB more would pass your {limit} MiB of memory (in use: {used} MiB)",
    hint="remove a VM, or ask the operator for more",
)
QUOTA_VCPUS = ErrorCode(
    "quota.vcpus", Kind.CONFLICT, "a VM of yours may have at most {limit} CPUs, not {wanted}",
    hint="ask for fewer, or ask the operator for more",
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
    largest: int = 0
    """Virtual CPUs of the largest VM."""


LIMITS = {
    Role.GUEST: Limits(0, 0, 0),
    Role.NEWBIE: Limits(3, 2048, 15),
    Role.CITIZEN: Limits(10, 8192, 25),
    Role.OPERATOR: Limits(25, 16384, 100),
    Role.ADMIN: Limits(None, None, None),
}
DEFAULT_SIZE = Size()
MAX_VCPUS = {Role.GUEST: 0, Role.NEWBIE: 1, Role.CITIZEN: 4, Role.OPERATOR: 8, Role.ADMIN: 64}
"""Virtual CPUs of the largest VM that an account may have."""


def require_room(role: Role, usage: Usage, size: Size, runs: bool = True) -> None:
    """Nothing when one more VM of `size` fits; raises the quota that it would pass. Memory counts while it runs."""
    require_count(role, usage)
    require_vcpus(role, size.vcpus)
    if runs:
        require_memory(role, usage, size.memory_mib)
    _require_disk(role, usage, size.disk_gib)


def require_growth(role: Role, usage: Usage, old: Size, new: Size, runs: bool) -> None:
    """Nothing when a VM may grow from `old` to `new`; raises the quota that it would pass."""
    require_vcpus(role, new.vcpus)
    if runs and new.memory_mib > old.memory_mib:
        require_memory(role, usage, new.memory_mib - old.memory_mib)
    if new.disk_gib > old.disk_gib:
        _require_disk(role, usage, new.disk_gib - old.disk_gib)


def require_count(role: Role, usage: Usage) -> None:
    """Raise QUOTA_VMS when there is no room for one more VM, or QUOTA_GUEST for who may have none."""
    limit = LIMITS[role].vms
    if limit == 0:
        raise QUOTA_GUEST()
    if limit is not None and usage.vms >= limit:
        raise QUOTA_VMS(used=usage.vms, limit=limit)


def require_vcpus(role: Role, vcpus: int) -> None:
    """Raise QUOTA_VCPUS when one VM may not have so many."""
    if vcpus > MAX_VCPUS[role]:
        raise QUOTA_VCPUS(limit=MAX_VCPUS[role], wanted=vcpus)


def require_memory(role: Role, usage: Usage, mib: int) -> None:
    """Raise QUOTA_MEMORY when running VMs may not take `mib` more."""
    limit = LIMITS[role].memory_mib
    if limit is not None and usage.memory_mib + mib > limit:
        raise QUOTA_MEMORY(wanted=mib, limit=limit, used=usage.memory_mib)


def lacks_disk(role: Role, usage: Usage, gib: int) -> bool:
    """`gib` more of disk would pass the quota."""
    limit = LIMITS[role].disk_gib
    return limit is not None and usage.disk_gib + gib > limit


def disk_left(role: Role, usage: Usage) -> int | None:
    """GiB of disk that the quota still gives; None without one."""
    limit = LIMITS[role].disk_gib
    return None if limit is None else max(0, limit - usage.disk_gib)


def _require_disk(role: Role, usage: Usage, gib: int) -> None:
    if lacks_disk(role, usage, gib):
        raise QUOTA_DISK(wanted=gib, limit=LIMITS[role].disk_gib, used=usage.disk_gib)
