"""Use cases of a VM's life: start, stop, pause, resume, sizes, words about it. All record a wish; none is a bypass."""
from __future__ import annotations

from dataclasses import dataclass

from ussycode.access.decide import Permit
from ussycode.base.db import Tx
from ussycode.base.errors import ErrorCode, Kind
from ussycode.base.events import Event
from ussycode.ports import App
from ussycode.runtime.driver import Egress, Phase, Power
from ussycode.vms import ops, policy, store, trash
from ussycode.vms.model import Vm
from ussycode.vms.policy import Size
from ussycode.vms.waking import fresh_boot

STOP_SECONDS = 40.0
"""How long a command waits until a guest is down: its own grace, ours, and a little."""
PAUSE_SECONDS = 60.0
"""How long a command waits until a guest's memory is on disk."""
MAX_COMMENT = 200
"""Bytes of a comment."""
MAX_TAGS = 20
NOT_STOPPED = ErrorCode(
    "vm.not_stopped", Kind.UNAVAILABLE, "VM {name} did not stop within {seconds} s", hint="ls shows when it has"
)
NOT_PAUSED = ErrorCode("vm.not_paused", Kind.FAILED, "VM {name} was not paused: {why}", hint="try: stop {name}")
NOT_PAUSABLE = ErrorCode(
    "vm.not_pausable", Kind.CONFLICT, 'VM "{name}" is not running: it is {status}', hint="only what runs can be paused"
)
SHRINK = ErrorCode(
    "disk.shrink", Kind.USAGE, "a disk only grows: {name} has {have} GiB", hint="write a size above {have}"
)
TOO_MANY_TAGS = ErrorCode("vm.too_many_tags", Kind.USAGE, "a VM has at most {limit} tags")
NOT_GROWN = ErrorCode("disk.not_grown", Kind.FAILED, "the disk of {name} did not grow: {why}", hint="try again")


@dataclass(frozen=True)
class Resized:
    """What a VM had and what it has; MiB, GiB and CPUs."""

    vm: Vm
    old: Size
    new: Size


async def start(app: App, permit: Permit) -> Vm:
    """Boot a VM, or go on where it was paused; nothing for one that runs. Raises a quota, NOT_UP or SLOW."""

    def wish(tx: Tx) -> Vm:
        vm = ops.of(tx, permit)
        if vm.power is Power.RUNNING and vm.phase not in (Phase.STOPPED, Phase.FAILED):
            return vm
        ops.require_memory(tx, vm)
        store.update(tx, vm.id, power=Power.RUNNING, **fresh_boot(vm))
        tx.emit(Event("vm.started", permit.actor, vm.id, {"name": vm.name}))
        return ops.of(tx, permit)

    vm = await app.db.write(wish)
    app.nudge()
    return await ops.until_up(app, vm)


async def stop(app: App, permit: Permit) -> Vm:
    """Shut a VM down and keep it down; nothing for one that is. Raises NOT_STOPPED, and it stops all the same."""

    def wish(tx: Tx) -> Vm:
        vm = ops.of(tx, permit)
        if vm.power is not Power.STOPPED:
            store.update(tx, vm.id, power=Power.STOPPED)
            tx.emit(Event("vm.stopped", permit.actor, vm.id, {"name": vm.name}))
        return vm

    vm = await app.db.write(wish)
    app.nudge()
    found = await ops.until(app, vm, STOP_SECONDS, lambda now: now.phase is Phase.STOPPED)
    if found is None:
        raise NOT_STOPPED(name=vm.name, seconds=int(STOP_SECONDS))
    return found


async def pause(app: App, permit: Permit) -> Vm:
    """Write a VM's memory to disk and free it; nothing for one that is paused. Raises NOT_PAUSABLE or NOT_PAUSED."""

    def wish(tx: Tx) -> Vm:
        vm = ops.of(tx, permit)
        if vm.power is Power.PAUSED and vm.phase is Phase.PAUSED:
            return vm
        if not vm.running:
            raise NOT_PAUSABLE(name=vm.name, status=vm.status)
        store.update(tx, vm.id, power=Power.PAUSED, notice="")
        tx.emit(Event("vm.paused", permit.actor, vm.id, {"name": vm.name}))
        return vm

    vm = await app.db.write(wish)
    app.nudge()
    settled = (Phase.PAUSED, Phase.STOPPED, Phase.FAILED)
    found = await ops.until(app, vm, PAUSE_SECONDS, lambda now: now.phase in settled or bool(now.notice))
    if found is None or found.phase is not Phase.PAUSED:
        await _run_on(app, vm)
        why = (found.notice or found.detail) if found is not None else f"it took longer than {PAUSE_SECONDS:.0f} s"
        raise NOT_PAUSED(name=vm.name, why=why or "it ended")
    return found


async def _run_on(app: App, vm: Vm) -> None:
    """A pause that failed is not tried for ever behind the owner's back."""

    def wish(tx: Tx) -> None:
        now = store.by_id(tx, vm.id)
        if now is not None and now.power is Power.PAUSED and now.phase is Phase.RUNNING:
            store.update(tx, vm.id, power=Power.RUNNING, notice="")

    await app.db.write(wish)
    app.nudge()


async def resume(app: App, permit: Permit) -> Vm:
    """Bring a paused VM's programs back, or boot it when its memory is lost or it was stopped."""
    return await start(app, permit)


async def resize(app: App, permit: Permit, vcpus: int | None, memory: int | None, disk: int | None) -> Resized:
    """Change sizes (CPUs, MiB, GiB): the disk at once, the others with the next start. Raises SHRINK or a quota."""

    def wish(tx: Tx) -> Resized:
        vm = ops.of(tx, permit)
        old = Size(vm.vcpus, vm.memory_mib, vm.disk_gib)
        new = Size(vcpus or old.vcpus, memory or old.memory_mib, disk or old.disk_gib)
        if new.disk_gib < old.disk_gib:
            raise SHRINK(name=vm.name, have=old.disk_gib)
        trash.make_room(tx, vm.owner, permit.caller.role, new.disk_gib - old.disk_gib)
        policy.require_growth(permit.caller.role, store.usage(tx, vm.owner), old, new, vm.power is Power.RUNNING)
        store.update(tx, vm.id, vcpus=new.vcpus, memory_mib=new.memory_mib, disk_gib=new.disk_gib, notice="")
        told = {"vcpus": new.vcpus, "memory_mib": new.memory_mib, "disk_gib": new.disk_gib}
        tx.emit(Event("vm.resized", permit.actor, vm.id, told))
        return Resized(ops.of(tx, permit), old, new)

    made = await app.db.write(wish)
    app.nudge()
    if made.new.disk_gib > made.old.disk_gib and made.vm.phase in (Phase.RUNNING, Phase.STOPPED):
        await _until_grown(app, made.vm, made.new.disk_gib)
    return made


async def _until_grown(app: App, vm: Vm, gib: int) -> None:
    found = await ops.until(app, vm, PAUSE_SECONDS, lambda now: now.seen_disk_gib >= gib or bool(now.notice))
    if found is None or found.seen_disk_gib < gib:
        raise NOT_GROWN(name=vm.name, why=found.notice if found is not None else "the node did not say that it has")


async def set_comment(app: App, permit: Permit, text: str) -> Vm:
    """Say something about a VM in at most MAX_COMMENT bytes; empty text says nothing."""
    return await _change(app, permit, "vm.comment", {"comment": text})


async def set_egress(app: App, permit: Permit, egress: Egress) -> Vm:
    """Choose what a VM may reach; one that runs is confined at once, which nobody waits for."""
    made = await _change(app, permit, "vm.egress", {"egress": egress})
    app.nudge()
    return made


async def set_wake(app: App, permit: Permit, wake: bool) -> Vm:
    """Choose whether a visit starts a VM that is stopped or paused."""
    return await _change(app, permit, "vm.wake", {"wake": wake})


async def change_tags(app: App, permit: Permit, tags: tuple[str, ...], remove: bool) -> Vm:
    """Add or remove tags. Raises TOO_MANY_TAGS."""

    def change(tx: Tx) -> Vm:
        vm = ops.of(tx, permit)
        kept = [t for t in vm.tags if t not in tags] if remove else [*vm.tags, *(t for t in tags if t not in vm.tags)]
        if len(kept) > MAX_TAGS:
            raise TOO_MANY_TAGS(limit=MAX_TAGS)
        store.update(tx, vm.id, tags=tuple(dict.fromkeys(kept)))
        tx.emit(Event("vm.tagged", permit.actor, vm.id, {"tags": kept}))
        return ops.of(tx, permit)

    return await app.db.write(change)


async def _change(app: App, permit: Permit, kind: str, values: dict[str, object]) -> Vm:
    def change(tx: Tx) -> Vm:
        vm = ops.of(tx, permit)
        store.update(tx, vm.id, **values)
        tx.emit(Event(kind, permit.actor, vm.id, {k: str(v) for k, v in values.items()}))
        return ops.of(tx, permit)

    return await app.db.write(change)
