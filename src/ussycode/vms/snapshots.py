"""Use cases of snapshots: kept states of a VM's disk, by name or by the day."""
from __future__ import annotations

import re
import secrets as chance

from ussycode.access.decide import Permit
from ussycode.base import ids
from ussycode.base.clock import rfc3339
from ussycode.base.db import Tx
from ussycode.base.errors import ErrorCode, Kind
from ussycode.base.events import SYSTEM, Event
from ussycode.ports import App
from ussycode.runtime.driver import Origin, OriginKind, Phase, Power
from ussycode.vms import ops, store
from ussycode.vms import snapshot_store as kept
from ussycode.vms.model import Vm
from ussycode.vms.snapshot_store import SnapshotRow

MAX_SNAPSHOTS = 30
"""Snapshots of one VM, scheduled ones included."""
DAILY_KEPT = 7
DAY = 86_400.0
TAKE_SECONDS = 60.0
"""How long a command waits until a node has taken a snapshot."""
NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")
NO_SNAPSHOT = ErrorCode(
    "snapshot.unknown", Kind.NOT_FOUND, "{vm} has no snapshot {name}", hint="snapshot ls {vm} shows them"
)
NAME_TAKEN = ErrorCode(
    "snapshot.name_taken", Kind.CONFLICT, "{vm} already has a snapshot {name}", hint="pick another name"
)
TOO_MANY = ErrorCode("snapshot.too_many", Kind.CONFLICT, "{vm} has {limit} snapshots", hint="snapshot rm {vm} NAME")
NOT_TAKEN = ErrorCode("snapshot.not_taken", Kind.FAILED, "no snapshot of {vm} was taken: {why}", hint="try again")


async def create(app: App, permit: Permit, name: str | None) -> SnapshotRow:
    """Keep the disk as it is now. Raises NAME_TAKEN, TOO_MANY or NOT_TAKEN, and then nothing is kept."""

    def wish(tx: Tx) -> SnapshotRow:
        return _want(tx, ops.of(tx, permit), name or _stamp(tx.now), False, permit.actor)

    row = await app.db.write(wish)
    app.nudge()
    vm = await app.db.read(lambda tx: ops.of(tx, permit))
    found = await _until_there(app, vm, row)
    if found is None or not found.there:
        now = await app.db.write(lambda tx: _give_up(tx, vm, row))
        raise NOT_TAKEN(vm=vm.name, why=now or "the node did not say that it has")
    return found


async def listed(app: App, permit: Permit) -> tuple[Vm, list[SnapshotRow]]:
    """The VM and its snapshots, oldest first."""
    return await app.db.read(lambda tx: (vm := ops.of(tx, permit), kept.of_vm(tx, vm.id)))


async def remove(app: App, permit: Permit, name: str) -> SnapshotRow:
    """Let a snapshot go. Raises NO_SNAPSHOT."""

    def wish(tx: Tx) -> SnapshotRow:
        row = _named(tx, ops.of(tx, permit), name)
        kept.drop(tx, row.id)
        tx.emit(Event("snapshot.removed", permit.actor, row.vm, {"name": name}))
        return row

    row = await app.db.write(wish)
    app.nudge()
    return row


async def restore(app: App, permit: Permit, name: str) -> Vm:
    """Make the disk what it was at a snapshot; a VM that runs is booted from it. Raises NO_SNAPSHOT, NOT_UP, SLOW."""

    def wish(tx: Tx) -> Vm:
        vm = ops.of(tx, permit)
        row = _named(tx, vm, name)
        runs = vm.power is Power.RUNNING
        boot = {"boot": vm.boot + 1, "secret": chance.token_hex(32)} if runs else {"power": Power.STOPPED}
        origin = Origin(OriginKind.SNAPSHOT, vm.id, row.id)
        store.update(tx, vm.id, origin=origin, disk_turn=vm.disk_turn + 1, notice="", **boot)
        tx.emit(Event("snapshot.restored", permit.actor, vm.id, {"name": name}))
        return ops.of(tx, permit)

    vm = await app.db.write(wish)
    app.nudge()
    if vm.power is Power.RUNNING:
        return await ops.until_up(app, vm)
    found = await ops.until(
        app, vm, TAKE_SECONDS, lambda now: now.seen_disk_turn >= vm.disk_turn or now.phase is Phase.FAILED
    )
    if found is None or found.seen_disk_turn < vm.disk_turn:
        raise NOT_TAKEN(vm=vm.name, why=(found and found.detail) or "the node did not restore it in time")
    return found


async def schedule(app: App, permit: Permit, daily: bool) -> Vm:
    """Take a snapshot every day, keeping DAILY_KEPT, or stop doing so; those that are there stay."""

    def change(tx: Tx) -> Vm:
        vm = ops.of(tx, permit)
        store.update(tx, vm.id, snapshot_daily=daily)
        tx.emit(Event("snapshot.schedule", permit.actor, vm.id, {"daily": daily}))
        return ops.of(tx, permit)

    return await app.db.write(change)


async def take_due(app: App) -> int:
    """Want today's snapshot of every VM that is to have one, and let the oldest beyond DAILY_KEPT go; how many."""

    def wish(tx: Tx) -> int:
        return sum(_daily(tx, vm) for vm in store.everything(tx) if vm.snapshot_daily and not vm.trashed_at)

    count = await app.db.write(wish)
    if count:
        app.nudge()
    return count


def _daily(tx: Tx, vm: Vm) -> bool:
    mine = [row for row in kept.of_vm(tx, vm.id) if row.scheduled]
    if vm.power is Power.ABSENT or (mine and mine[-1].created_at > tx.now - DAY):
        return False
    if len(kept.of_vm(tx, vm.id)) >= MAX_SNAPSHOTS:
        return False
    _want(tx, vm, "daily-" + _stamp(tx.now), True, SYSTEM)
    for old in mine[: max(0, len(mine) + 1 - DAILY_KEPT)]:
        kept.drop(tx, old.id)
    return True


def _want(tx: Tx, vm: Vm, name: str, scheduled: bool, actor: str) -> SnapshotRow:
    known = kept.of_vm(tx, vm.id)
    if any(row.name == name for row in known):
        raise NAME_TAKEN(vm=vm.name, name=name)
    if len(known) >= MAX_SNAPSHOTS:
        raise TOO_MANY(vm=vm.name, limit=MAX_SNAPSHOTS)
    row = SnapshotRow(ids.new("snap"), vm.id, name, scheduled, False, False, 0, tx.now)
    kept.insert(tx, row)
    store.update(tx, vm.id, notice="")
    tx.emit(Event("snapshot.wanted", actor, vm.id, {"name": name}))
    return row


def _named(tx: Tx, vm: Vm, name: str) -> SnapshotRow:
    found = [row for row in kept.of_vm(tx, vm.id) if name in (row.name, row.id) and row.there]
    if not found:
        raise NO_SNAPSHOT(vm=vm.name, name=name)
    return found[0]


async def _until_there(app: App, vm: Vm, row: SnapshotRow) -> SnapshotRow | None:
    async def look() -> tuple[SnapshotRow | None] | None:
        def find(tx: Tx) -> tuple[SnapshotRow | None] | None:
            now = next((r for r in kept.of_vm(tx, vm.id) if r.id == row.id), None)
            machine = store.by_id(tx, vm.id)
            failed = machine is None or bool(machine.notice) or machine.phase is Phase.FAILED
            return (now,) if now is None or now.there or failed else None

        return await app.db.read(find)

    found = await app.waiters.until(vm.id, look, TAKE_SECONDS)
    return found[0] if found is not None else None


def _give_up(tx: Tx, vm: Vm, row: SnapshotRow) -> str:
    kept.drop(tx, row.id)
    now = store.by_id(tx, vm.id)
    return (now.notice or now.detail) if now is not None else "the VM is gone"


def _stamp(at: float) -> str:
    return rfc3339(at).lower().replace(":", "").replace("-", "")
