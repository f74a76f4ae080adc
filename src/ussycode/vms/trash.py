"""VMs that were removed and can still come back: stopped, nameless, kept for a while."""
from __future__ import annotations

from ussycode.access.decide import Permit
from ussycode.access.facts import Role
from ussycode.base.db import Tx
from ussycode.base.errors import ErrorCode, Kind
from ussycode.base.events import SYSTEM, Event
from ussycode.ports import App
from ussycode.vms import ops, policy, store
from ussycode.vms.model import Vm

KEEP_SECONDS = 7 * 86_400
"""How long a removed VM can be brought back, unless its owner's new VMs need the room."""
NOT_IN_TRASH = ErrorCode(
    "trash.unknown", Kind.NOT_FOUND, "there is no {name} in your trash", hint="trash ls shows what is"
)


def make_room(tx: Tx, owner: str, role: Role, disk_gib: int) -> list[Vm]:
    """Empty as much of an account's trash, oldest first, as a new need of disk takes; what went."""
    gone: list[Vm] = []
    for vm in store.trashed_of(tx, owner):
        if not policy.lacks_disk(role, store.usage(tx, owner), disk_gib):
            break
        ops.forsake(tx, vm, SYSTEM)
        gone.append(vm)
    return gone


async def mine(app: App, permit: Permit) -> list[Vm]:
    """The caller's trash, oldest first."""
    return await app.db.read(lambda tx: store.trashed_of(tx, permit.actor))


async def restore(app: App, permit: Permit, which: str, name: str | None) -> Vm:
    """Bring a VM back whole, stopped, under its old name or another. Raises NOT_IN_TRASH or a name that is taken."""

    def back(tx: Tx) -> Vm:
        found = [v for v in store.trashed_of(tx, permit.actor) if which in (v.trash_name, v.id)]
        if not found:
            raise NOT_IN_TRASH(name=which)
        vm = found[-1]
        wanted = name or vm.trash_name
        ops.require_free(tx, permit.actor, wanted)
        policy.require_count(permit.caller.role, store.usage(tx, permit.actor))
        store.update(tx, vm.id, name=wanted, trash_name="", trashed_at=0.0)
        tx.emit(Event("vm.restored", permit.actor, vm.id, {"name": wanted}))
        made = store.by_id(tx, vm.id)
        assert made is not None
        return made

    return await app.db.write(back)


async def empty(app: App, permit: Permit, which: str | None) -> list[Vm]:
    """Delete what is in the trash for good, or one VM of it. Raises NOT_IN_TRASH."""

    def drop(tx: Tx) -> list[Vm]:
        found = [v for v in store.trashed_of(tx, permit.actor) if which is None or which in (v.trash_name, v.id)]
        if which is not None and not found:
            raise NOT_IN_TRASH(name=which)
        for vm in found:
            ops.forsake(tx, vm, permit.actor)
        return found

    gone = await app.db.write(drop)
    app.nudge()
    return gone


async def expire(app: App) -> int:
    """Delete what has been in the trash for KEEP_SECONDS; how many VMs went."""

    def drop(tx: Tx) -> int:
        old = store.trashed_before(tx, tx.now - KEEP_SECONDS)
        for vm in old:
            ops.forsake(tx, vm, SYSTEM)
        return len(old)

    count = await app.db.write(drop)
    if count:
        app.nudge()
    return count
