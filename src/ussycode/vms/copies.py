"""Copying a VM: its disk as it is now, or the whole running machine."""
from __future__ import annotations

from dataclasses import dataclass

from ussycode.access.decide import Permit
from ussycode.ports import App, Talk
from ussycode.runtime.driver import Egress, Origin, OriginKind
from ussycode.vms import ops, policy
from ussycode.vms.model import Vm
from ussycode.vms.ops import Spec
from ussycode.vms.policy import Size


@dataclass(frozen=True)
class Copied:
    """A copy that answers. `left` are sentences about what was not copied."""

    vm: Vm
    source: Vm
    left: tuple[str, ...]


@dataclass(frozen=True)
class Wanted:
    """How a copy differs from its source; None takes the source's."""

    name: str | None
    copy_tags: bool
    vcpus: int | None
    memory_mib: int | None
    disk_gib: int | None
    egress: Egress | None
    memory: bool


async def copy(app: App, permit: Permit, wanted: Wanted, talk: Talk) -> Copied:
    """Make a VM from another's disk, running or not, and wait until it answers. Raises what `ops.create` does."""
    source = await app.db.read(lambda tx: ops.of(tx, permit))
    size = Size(
        wanted.vcpus or source.vcpus, wanted.memory_mib or source.memory_mib,
        max(wanted.disk_gib or 0, source.disk_gib),
    )
    policy.require_vcpus(permit.caller.role, size.vcpus)
    spec = Spec(
        wanted.name, source.image, source.env, size, source.isolation, source.command, source.comment,
        source.tags if wanted.copy_tags else (), wanted.egress or source.egress, source.wake,
        Origin(OriginKind.VM, source.id, memory=wanted.memory),
    )
    made = await ops.create(app, permit, spec, talk)
    return Copied(made, source, _left(source, wanted))


def _left(source: Vm, wanted: Wanted) -> tuple[str, ...]:
    left = ["who it is shared with", "its custom domains", "its snapshots", "its machine id and SSH host keys"]
    if source.running and not wanted.memory:
        left.insert(0, "the programs that were running")
    return tuple(left)
