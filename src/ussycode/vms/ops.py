"""Use cases of VMs: they record the wish; the reconciler makes it true; `observe` takes in what nodes saw."""
from __future__ import annotations

import random
import secrets as chance
from collections.abc import Sequence
from dataclasses import replace

from ussycode.access.decide import Permit
from ussycode.base import ids, names
from ussycode.base.db import Tx
from ussycode.base.errors import ErrorCode, Failure, Kind
from ussycode.base.events import SYSTEM, Event
from ussycode.identity import store as identity
from ussycode.ports import App
from ussycode.runtime.driver import Isolation, Phase, Power, Seen, Want
from ussycode.runtime.isolation import NOT_ENABLED
from ussycode.vms import policy, ports, store
from ussycode.vms.model import Vm

NAME_TAKEN = ErrorCode(
    "vm.name_taken", Kind.CONFLICT, "the VM name {name} is not available", hint="pick another name"
)
NAME_YOURS = ErrorCode(
    "vm.name_yours", Kind.CONFLICT, "you already have a VM named {name}", hint="pick another, or remove it: rm {name}"
)
NAME_IS_LOBBY = ErrorCode(
    "vm.name_is_lobby", Kind.CONFLICT, "{name} is your own name: ssh {name}@ means the lobby", hint="pick another name"
)
NO_SUCH_VM = ErrorCode("vm.unknown", Kind.NOT_FOUND, "no VM named {name}", hint="ls shows your VMs")
NO_SUCH_IMAGE = ErrorCode(
    "image.unknown", Kind.NOT_FOUND, "there is no image named {image}", hint="ready images: {ready}"
)
HOST_FULL = ErrorCode("vm.host_full", Kind.UNAVAILABLE, "no address is left for another VM", hint="remove a VM")
NOT_UP = ErrorCode("vm.not_up", Kind.UNAVAILABLE, "VM {name} did not come up: {why}", hint="try: restart {name}")
SLOW = ErrorCode(
    "vm.slow", Kind.UNAVAILABLE, "VM {name} exists but did not answer within {seconds} s", hint="ls shows when it is up"
)
UNREACHED = ErrorCode(
    "vm.unreached", Kind.UNAVAILABLE, 'failed to connect to VM "{name}": it did not answer within {seconds} s',
    hint="try again, or: restart {name}",
)
NOT_RUNNING = ErrorCode(
    "vm.not_running", Kind.UNAVAILABLE, 'VM "{name}" is not running: it is {status}{why}', hint="try: restart {name}"
)
NOT_GONE = ErrorCode(
    "vm.not_gone", Kind.FAILED, "VM {name} is still being taken down", hint="it left your list and will be gone soon"
)
MAX_ENV = 64
"""Variables of one VM."""
MAX_ENV_BYTES = 32 << 10
"""Names and values of all variables of one VM together."""
TOO_MUCH_ENV = ErrorCode(
    "vm.env_too_big", Kind.USAGE, "a VM takes at most {count} variables and {size} bytes of them", hint="use a file"
)
CONSOLE_BYTES = 8 << 10
"""Console tail kept with a VM that failed."""


async def create(
    app: App, permit: Permit, name: str | None, image: str, env: Sequence[tuple[str, str]],
    isolation: Isolation = Isolation.VM, command: Sequence[str] = (),
) -> Vm:
    """Reserve a VM and wait until it answers.

    Raises NAME_TAKEN, a quota, NO_SUCH_IMAGE, NOT_ENABLED or HOST_FULL with nothing left behind; NOT_UP removes
    the VM again; SLOW leaves it, because it may still come up.
    """
    _require_env(env)
    if isolation is Isolation.CONTAINER and not app.config.containers:
        raise NOT_ENABLED()
    if image not in app.images.names() and app.images.find(image) is None:
        raise NO_SUCH_IMAGE(image=image, ready=", ".join(app.images.names()) or "none; run ussycode image build")

    def reserve(tx: Tx) -> Vm:
        policy.require_room(permit.caller.role, store.usage(tx, permit.actor), policy.DEFAULT_SIZE)
        vm = _new(tx, permit.actor, _free_name(tx, permit.actor, name), image, env, isolation)
        vm = replace(vm, command=tuple(command))
        store.insert(tx, vm)
        tx.emit(Event("vm.created", permit.actor, vm.id, {"name": vm.name, "image": image}))
        return vm

    vm = await app.db.write(reserve)
    app.nudge()
    return await _until_up(app, vm, remove_on_failure=True)


async def require_room(app: App, permit: Permit, name: str | None) -> None:
    """Raise what `create` would for want of quota or because of the name, before anything slow is begun for it."""

    def look(tx: Tx) -> None:
        policy.require_room(permit.caller.role, store.usage(tx, permit.actor), policy.DEFAULT_SIZE)
        if name is not None:
            _require_free(tx, permit.actor, name)

    await app.db.read(look)


def _require_env(env: Sequence[tuple[str, str]]) -> None:
    if len(env) > MAX_ENV or sum(len(k.encode()) + len(v.encode()) for k, v in env) > MAX_ENV_BYTES:
        raise TOO_MUCH_ENV(count=MAX_ENV, size=MAX_ENV_BYTES)


def _free_name(tx: Tx, owner: str, wish: str | None) -> str:
    if wish is not None:
        _require_free(tx, owner, wish)
        return wish
    while True:
        invented = names.invent(random.SystemRandom())
        if store.by_name(tx, invented) is None:
            return invented


def _require_free(tx: Tx, owner: str, name: str) -> None:
    user = identity.user_by(tx, "id", owner)
    if user is not None and name in (user.handle, user.login_name):
        raise NAME_IS_LOBBY(name=name)
    other = store.by_name(tx, name)
    if other is not None:
        raise (NAME_YOURS if other.owner == owner else NAME_TAKEN)(name=name)


def _new(
    tx: Tx, owner: str, name: str, image: str, env: Sequence[tuple[str, str]], isolation: Isolation
) -> Vm:
    number = store.free_number(tx)
    if number is None:
        raise HOST_FULL()
    size = policy.DEFAULT_SIZE
    return Vm(
        id=ids.new("vm"), number=number, name=name, owner=owner, image=image, env=tuple(env), vcpus=size.vcpus,
        memory_mib=size.memory_mib, disk_gib=size.disk_gib, power=Power.RUNNING, boot=1, secret=chance.token_hex(32),
        phase=Phase.ABSENT, seen_boot=0, detail="", console="", address="", created_at=tx.now,
        isolation=isolation,
    )


async def _until_up(app: App, vm: Vm, remove_on_failure: bool = False) -> Vm:
    async def check() -> Vm | None:
        now = await app.db.read(lambda tx: store.by_id(tx, vm.id))
        if now is None or now.power is Power.ABSENT:
            raise NO_SUCH_VM(name=vm.name)
        ended = now.seen_boot == now.boot and now.phase in (Phase.FAILED, Phase.STOPPED)
        return now if now.running or ended else None

    seconds = app.config.boot_timeout
    found = await app.waiters.until(vm.id, check, seconds + 5)
    if found is None:
        raise SLOW(name=vm.name, seconds=seconds)
    if not found.running:
        if remove_on_failure:
            await _give_up(app, found)
        raise NOT_UP(name=vm.name, why=found.detail or "it stopped while booting").because(found.console)
    return found


async def _give_up(app: App, vm: Vm) -> None:
    def give_up(tx: Tx) -> None:
        now = store.by_id(tx, vm.id)
        if now is not None and now.power is not Power.ABSENT and now.boot == vm.boot:
            _forsake(tx, now, SYSTEM)

    await app.db.write(give_up)
    app.nudge()


def _forsake(tx: Tx, vm: Vm, actor: str) -> None:
    # The name is free for another at once, while the machine is still being taken down.
    store.update(tx, vm.id, power=Power.ABSENT.value, name=f"~{vm.id}", boot=vm.boot + 1)
    tx.emit(Event("vm.removed", actor, vm.id, {"name": vm.name}))


async def remove(app: App, permit: Permit) -> None:
    """Delete a VM with its disk and wait until it is gone. Raises NO_SUCH_VM or NOT_GONE."""
    vm = await _current(app, permit)

    def wish(tx: Tx) -> None:
        now = store.by_id(tx, vm.id)
        if now is None or now.power is Power.ABSENT:
            raise NO_SUCH_VM(name=vm.name)
        _forsake(tx, now, permit.actor)

    await app.db.write(wish)
    app.nudge()

    async def gone() -> bool | None:
        return True if await app.db.read(lambda tx: store.by_id(tx, vm.id)) is None else None

    if await app.waiters.until(vm.id, gone, 25) is None:
        raise NOT_GONE(name=vm.name)


async def restart(app: App, permit: Permit) -> Vm:
    """Shut the VM down and boot it again from the same disk; also starts one that is stopped or failed."""
    vm = await _current(app, permit)

    def wish(tx: Tx) -> None:
        _of(tx, permit)  # it may have been removed meanwhile
        secret = chance.token_hex(32)
        store.update(tx, vm.id, power=Power.RUNNING.value, boot=store.vms.c.boot + 1, secret=secret)
        tx.emit(Event("vm.restarted", permit.actor, vm.id, {"name": vm.name}))

    await app.db.write(wish)
    app.nudge()
    return await _until_up(app, vm)


async def rename(app: App, permit: Permit, name: str) -> tuple[Vm, str]:
    """Give a VM another name; its host name moves at once. Result: the VM and its old name."""

    def change(tx: Tx) -> tuple[Vm, str]:
        vm = _of(tx, permit)
        _require_free(tx, permit.actor, name)
        store.update(tx, vm.id, name=name)
        tx.emit(Event("vm.renamed", permit.actor, vm.id, {"old": vm.name, "new": name}))
        found = store.by_id(tx, vm.id)
        assert found is not None
        return found, vm.name

    result = await app.db.write(change)
    app.nudge()
    return result


async def mine(app: App, permit: Permit) -> list[Vm]:
    """The caller's VMs by name."""
    return await app.db.read(lambda tx: store.of_owner(tx, permit.actor))


async def chosen_ports(app: App) -> dict[str, int]:
    """Primary port by VM id, of the VMs whose owner chose one; the others show their image's."""
    found = await app.db.read(ports.all_ports)
    return {vm: port for vm, rows in found.items() for port, (primary, _) in rows.items() if primary}


async def reachable(app: App, permit: Permit) -> Vm:
    """The VM behind a permit, when streams can be opened to it. Raises NOT_RUNNING with its state in words."""
    vm = await _current(app, permit)
    if vm.status == "starting":
        vm = await _settled(app, vm)
    if vm.status == "starting":
        raise UNREACHED(name=vm.name, seconds=app.config.boot_timeout)
    if not vm.running:
        why = f" ({vm.detail})" if vm.detail else ""
        raise NOT_RUNNING(name=vm.name, status=vm.status, why=why)
    return vm


async def _settled(app: App, vm: Vm) -> Vm:
    try:
        return await _until_up(app, vm)
    except Failure as failure:
        if failure.error not in (NOT_UP, SLOW):
            raise
    now = await app.db.read(lambda tx: store.by_id(tx, vm.id))
    return now or vm


async def _current(app: App, permit: Permit) -> Vm:
    return await app.db.read(lambda tx: _of(tx, permit))


def _of(tx: Tx, permit: Permit) -> Vm:
    assert permit.vm is not None
    vm = store.by_id(tx, permit.vm.vm)
    if vm is None or vm.power is Power.ABSENT:
        raise NO_SUCH_VM(name=permit.vm.name)
    return vm


async def wants(app: App) -> list[Want]:
    """What the node should make true, with each owner's keys."""

    def collect(tx: Tx) -> list[Want]:
        found = store.everything(tx)
        keys = {o: tuple(k.public_key for k in identity.keys_of(tx, o)) for o in {v.owner for v in found}}
        return [vm.want(keys[vm.owner]) for vm in found]

    return await app.db.read(collect)


async def observe(app: App, seen: Sequence[Seen]) -> None:
    """Take in what a node saw; only what changed is written."""
    known = {v.id: v for v in await app.db.read(store.everything)}
    changed = [s for s in seen if s.vm in known and _differs(known[s.vm], s)]
    if not changed:
        return

    def write(tx: Tx) -> None:
        for one in changed:
            _take_in(tx, one)

    await app.db.write(write)
    for phase in Phase:
        app.telemetry.vms(phase.value, sum(s.phase is phase for s in seen))


def _differs(vm: Vm, seen: Seen) -> bool:
    if seen.phase is Phase.ABSENT:
        return vm.power is Power.ABSENT
    return (vm.phase, vm.seen_boot, vm.detail, vm.address) != (seen.phase, seen.boot, seen.detail, seen.address)


def _take_in(tx: Tx, seen: Seen) -> None:
    vm = store.by_id(tx, seen.vm)
    if vm is None:
        return
    data = {"phase": seen.phase.value, "boot": seen.boot, "detail": seen.detail}
    if seen.phase is Phase.ABSENT:
        # Absence alone never deletes: only a VM whose owner asked for it is dropped.
        if vm.power is Power.ABSENT:
            store.delete(tx, vm.id)
            tx.emit(Event("vm.gone", SYSTEM, vm.id, data))
        return
    store.update(
        tx, vm.id, phase=seen.phase.value, seen_boot=seen.boot, detail=seen.detail, address=seen.address,
        console=seen.console[-CONSOLE_BYTES:],
    )
    tx.emit(Event("vm.observed", SYSTEM, vm.id, data))
