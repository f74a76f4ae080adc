"""Use cases of VMs: they record the wish; the reconciler makes it true; `observe` takes in what nodes saw."""
from __future__ import annotations

import random
import secrets as chance
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from ussycode.access.decide import Permit
from ussycode.base import ids, names
from ussycode.base.db import Tx
from ussycode.base.errors import ErrorCode, Kind
from ussycode.base.events import SYSTEM, Event
from ussycode.identity import store as identity
from ussycode.identity.model import SshKey
from ussycode.ports import App, Talk
from ussycode.runtime.driver import Egress, Isolation, Origin, OriginKind, Phase, Power, Seen, Spare, Want
from ussycode.runtime.isolation import NOT_ENABLED
from ussycode.vms import firstboot, policy, ports, store
from ussycode.vms import snapshot_store as snapshots
from ussycode.vms.firstboot import Gifts
from ussycode.vms.model import Vm
from ussycode.vms.policy import Size

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
FOREIGN_DISK = ErrorCode(
    "vm.foreign_disk", Kind.CONFLICT, "a disk that was uploaded boots in VMs only: the host's kernel must not mount it",
    hint="leave --isolation out, or import its files as a tar",
)
DISK_TOO_SMALL = ErrorCode(
    "vm.disk_too_small", Kind.USAGE, "the file system of {image} needs a disk of {least} GiB, not {asked}",
    hint="ask for {least}G, or leave --disk out",
)
HOST_FULL = ErrorCode("vm.host_full", Kind.UNAVAILABLE, "no address is left for another VM", hint="remove a VM")
NOT_UP = ErrorCode("vm.not_up", Kind.UNAVAILABLE, "VM {name} did not come up: {why}", hint="try: restart {name}")
NOT_MADE = ErrorCode(
    "vm.not_made", Kind.UNAVAILABLE, "VM {name} did not come up and is removed again: {why}",
    hint="try another image or other sizes; when it is neither, the operator's log knows more",
)
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
MAX_NOTICE = 500
"""Characters of a node's notice that are kept."""
CONSOLE_BYTES = 8 << 10
"""Console tail kept with a VM that failed."""


@dataclass(frozen=True)
class Spec:
    """What a new VM should be; `name` None lets one be invented."""

    name: str | None
    image: str
    env: tuple[tuple[str, str], ...] = ()
    size: Size = policy.DEFAULT_SIZE
    isolation: Isolation = Isolation.VM
    command: tuple[str, ...] = ()
    comment: str = ""
    tags: tuple[str, ...] = ()
    egress: Egress = Egress.ALL
    wake: bool = False
    origin: Origin = field(default_factory=Origin)
    gifts: Gifts = field(default_factory=Gifts)


async def create(app: App, permit: Permit, spec: Spec, talk: Talk) -> Vm:
    """Reserve a VM and wait until it answers; who presses Ctrl-C meanwhile has no VM afterwards.

    Raises NAME_TAKEN, a quota, NO_SUCH_IMAGE, DISK_TOO_SMALL, NOT_ENABLED or HOST_FULL with nothing left behind;
    NOT_MADE removed the VM again; SLOW leaves it, because it may still come up.
    """
    _require_env(spec.env)
    if spec.isolation is Isolation.CONTAINER and not app.config.containers:
        raise NOT_ENABLED()
    image = app.images.find(spec.image)
    least = least_disk(app, spec.image)
    if spec.isolation is Isolation.VM and spec.size.disk_gib < least:
        raise DISK_TOO_SMALL(image=spec.image.partition("#")[0], least=least, asked=spec.size.disk_gib)
    if image is not None and image.foreign and spec.isolation is Isolation.CONTAINER:
        raise FOREIGN_DISK()
    if spec.image not in app.images.names() and image is None:
        raise NO_SUCH_IMAGE(image=spec.image, ready=", ".join(app.images.names()) or "none; run ussycode image build")
    vm = await _recorded(app, permit, spec)
    app.nudge()

    async def undo() -> str:
        await _give_up(app, vm, permit.actor)
        return f"stopped; {vm.name} is removed again"

    talk.undone_by(undo)
    await talk.progress(f"{'copying to' if spec.origin.kind is OriginKind.VM else 'booting'} {vm.name}")
    return await until_up(app, vm, remove_on_failure=True)


def least_disk(app: App, image: str) -> int:
    """GiB below which no VM's disk of this image can be, since its file system is so large; 0 when it is not here."""
    found = app.images.find(image)
    return 0 if found is None else -(-found.size >> 30)


async def _recorded(app: App, permit: Permit, spec: Spec) -> Vm:
    """The wish for a VM, as one that stands by where there is one: it runs already, so without variables of its own."""
    size, spare = spec.size, None
    plain = not spec.env and not spec.command and spec.isolation is Isolation.VM
    if plain and spec.origin.kind is OriginKind.IMAGE:
        spare = await app.link.claim(spec.image, size.vcpus, size.memory_mib, size.disk_gib)
    try:
        return await app.db.write(lambda tx: reserve(tx, permit, spec, spare))
    except BaseException:
        if spare is not None:
            await app.link.give_back(spare)
        raise


def reserve(tx: Tx, permit: Permit, spec: Spec, spare: Spare | None = None) -> Vm:
    """Record the wish for a VM; the trash gives way to it. Raises a quota, HOST_FULL or a name that is taken."""
    for old in store.trashed_of(tx, permit.actor):
        if policy.lacks_disk(permit.caller.role, store.usage(tx, permit.actor), spec.size.disk_gib):
            forsake(tx, old, SYSTEM)
    policy.require_room(permit.caller.role, store.usage(tx, permit.actor), spec.size)
    vm = _new(tx, permit.actor, _free_name(tx, permit.actor, spec.name), spec, spare)
    store.insert(tx, vm)
    firstboot.keep(tx, vm.id, spec.gifts)
    tx.emit(Event("vm.created", permit.actor, vm.id, {"name": vm.name, "image": spec.image}))
    return vm


async def require_room(app: App, permit: Permit, name: str | None, size: Size) -> None:
    """Raise what `create` would for want of quota or because of the name, before anything slow is begun for it."""

    def look(tx: Tx) -> None:
        trashed = sum(vm.disk_gib for vm in store.trashed_of(tx, permit.actor))
        usage = store.usage(tx, permit.actor)
        policy.require_room(permit.caller.role, replace(usage, disk_gib=usage.disk_gib - trashed), size)
        if name is not None:
            require_free(tx, permit.actor, name)

    await app.db.read(look)


def _require_env(env: Sequence[tuple[str, str]]) -> None:
    if len(env) > MAX_ENV or sum(len(k.encode()) + len(v.encode()) for k, v in env) > MAX_ENV_BYTES:
        raise TOO_MUCH_ENV(count=MAX_ENV, size=MAX_ENV_BYTES)


def _free_name(tx: Tx, owner: str, wish: str | None) -> str:
    if wish is not None:
        require_free(tx, owner, wish)
        return wish
    while True:
        invented = names.invent(random.SystemRandom())
        if store.by_name(tx, invented) is None:
            return invented


def require_free(tx: Tx, owner: str, name: str) -> None:
    """Raise NAME_IS_LOBBY, NAME_YOURS or NAME_TAKEN unless the owner may give this name."""
    user = identity.user_by(tx, "id", owner)
    if user is not None and name in (user.handle, user.login_name):
        raise NAME_IS_LOBBY(name=name)
    other = store.by_name(tx, name)
    if other is not None:
        raise (NAME_YOURS if other.owner == owner else NAME_TAKEN)(name=name)


def _new(tx: Tx, owner: str, name: str, spec: Spec, spare: Spare | None) -> Vm:
    if spare is None or store.by_number(tx, spare.number) is not None:
        number = store.free_number(tx)
        if number is None:
            raise HOST_FULL()
        spare = Spare(ids.new("vm"), number)
    size = spec.size
    return Vm(
        id=spare.vm, number=spare.number, name=name, owner=owner, image=spec.image, env=spec.env, vcpus=size.vcpus,
        memory_mib=size.memory_mib, disk_gib=size.disk_gib, power=Power.RUNNING, boot=1, secret=chance.token_hex(32),
        phase=Phase.ABSENT, seen_boot=0, detail="", console="", address="", created_at=tx.now,
        isolation=spec.isolation, command=spec.command, comment=spec.comment, tags=spec.tags, egress=spec.egress,
        wake=spec.wake, origin=spec.origin,
    )


async def until_up(app: App, vm: Vm, remove_on_failure: bool = False) -> Vm:
    """Wait until the VM answers. Raises SLOW, or NOT_UP with the reason; NOT_MADE when it was told to delete it."""
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
            await _give_up(app, found, SYSTEM)
        error = NOT_MADE if remove_on_failure else NOT_UP
        raise error(name=vm.name, why=found.detail or "it stopped while booting").because(found.console)
    return found


async def _give_up(app: App, vm: Vm, actor: str) -> None:
    def give_up(tx: Tx) -> None:
        now = store.by_id(tx, vm.id)
        if now is not None and now.power is not Power.ABSENT and now.boot == vm.boot:
            forsake(tx, now, actor)

    await app.db.write(give_up)
    app.nudge()


def forsake(tx: Tx, vm: Vm, actor: str) -> None:
    """Delete a VM for good: its machine is taken down and its disk goes."""
    # The name is free for another at once, while the machine is still being taken down.
    store.update(tx, vm.id, power=Power.ABSENT, name=f"~{vm.id}", boot=vm.boot + 1)
    tx.emit(Event("vm.removed", actor, vm.id, {"name": vm.name}))


async def until(app: App, vm: Vm, seconds: float, reached: Callable[[Vm], bool]) -> Vm | None:
    """Wait until `reached` holds of the VM; None when it is gone or time is up."""

    async def check() -> tuple[Vm | None] | None:
        now = await app.db.read(lambda tx: store.by_id(tx, vm.id))
        return (now,) if now is None or reached(now) else None

    found = await app.waiters.until(vm.id, check, seconds)
    return found[0] if found is not None else None


async def remove(app: App, permit: Permit) -> None:
    """Delete a VM with its disk for good and wait until it is gone. Raises NO_SUCH_VM or NOT_GONE."""

    def wish(tx: Tx) -> Vm:
        vm = of(tx, permit)
        forsake(tx, vm, permit.actor)
        return vm

    vm = await app.db.write(wish)
    app.nudge()

    async def gone() -> bool | None:
        return True if await app.db.read(lambda tx: store.by_id(tx, vm.id)) is None else None

    if await app.waiters.until(vm.id, gone, 25) is None:
        raise NOT_GONE(name=vm.name)


async def discard(app: App, permit: Permit) -> None:
    """Put a VM into the trash and wait until it no longer runs. Raises NO_SUCH_VM or NOT_GONE."""

    def wish(tx: Tx) -> Vm:
        vm = of(tx, permit)
        store.update(tx, vm.id, power=Power.STOPPED, name=f"~{vm.id}", trash_name=vm.name, trashed_at=tx.now)
        tx.emit(Event("vm.trashed", permit.actor, vm.id, {"name": vm.name}))
        return vm

    vm = await app.db.write(wish)
    app.nudge()
    if await until(app, vm, 40, lambda now: now.phase is Phase.STOPPED or now.power is Power.ABSENT) is None:
        raise NOT_GONE(name=vm.name)


def require_memory(tx: Tx, vm: Vm) -> None:
    """Raise QUOTA_MEMORY when a VM that does not run now may not, by its owner's quota."""
    owner = identity.user_by(tx, "id", vm.owner)
    if vm.power is not Power.RUNNING and owner is not None:
        policy.require_memory(owner.role, store.usage(tx, vm.owner), vm.memory_mib)


async def restart(app: App, permit: Permit) -> Vm:
    """Shut the VM down and boot it again from the same disk; also starts one that is stopped or failed.

    Raises QUOTA_MEMORY, NOT_UP or SLOW.
    """
    vm = await _current(app, permit)

    def wish(tx: Tx) -> None:
        require_memory(tx, of(tx, permit))  # it may have been removed meanwhile
        secret = chance.token_hex(32)
        store.update(tx, vm.id, power=Power.RUNNING, boot=store.vms.c.boot + 1, secret=secret)
        tx.emit(Event("vm.restarted", permit.actor, vm.id, {"name": vm.name}))

    await app.db.write(wish)
    app.nudge()
    return await until_up(app, vm)


async def rename(app: App, permit: Permit, name: str) -> tuple[Vm, str]:
    """Give a VM another name; its host name moves at once. Result: the VM and its old name."""

    def change(tx: Tx) -> tuple[Vm, str]:
        vm = of(tx, permit)
        require_free(tx, permit.actor, name)
        store.update(tx, vm.id, name=name)
        tx.emit(Event("vm.renamed", permit.actor, vm.id, {"old": vm.name, "new": name}))
        found = store.by_id(tx, vm.id)
        assert found is not None
        return found, vm.name

    result = await app.db.write(change)
    app.nudge()
    return result


async def mine(app: App, permit: Permit) -> list[Vm]:
    """The caller's VMs by name; those that a key limited to a tag reaches."""
    tag = permit.caller.tag
    found = await app.db.read(lambda tx: store.of_owner(tx, permit.actor))
    return [vm for vm in found if not tag or tag in vm.tags]


async def usage(app: App, permit: Permit) -> policy.Usage:
    """What the caller has now."""
    return await app.db.read(lambda tx: store.usage(tx, permit.actor))


async def chosen_ports(app: App) -> dict[str, int]:
    """Primary port by VM id, of the VMs whose owner chose one; the others show their image's."""
    found = await app.db.read(ports.all_ports)
    return {vm: port for vm, rows in found.items() for port, (primary, _) in rows.items() if primary}


async def _current(app: App, permit: Permit) -> Vm:
    return await app.db.read(lambda tx: of(tx, permit))


def of(tx: Tx, permit: Permit) -> Vm:
    """The VM behind a permit as it is now. Raises NO_SUCH_VM when it was removed meanwhile."""
    assert permit.vm is not None
    vm = store.by_id(tx, permit.vm.vm)
    if vm is None or vm.power is Power.ABSENT or vm.trashed_at:
        raise NO_SUCH_VM(name=permit.vm.name)
    return vm


async def wants(app: App) -> list[Want]:
    """What the node should make true, with each owner's keys."""

    def collect(tx: Tx) -> list[Want]:
        found = store.everything(tx)
        keys = {o: identity.keys_of(tx, o) for o in {v.owner for v in found}}
        kept = snapshots.wanted_by_vm(tx)
        return [vm.want(reaching(keys[vm.owner], vm), *kept.get(vm.id, ((), ()))) for vm in found]

    return await app.db.read(collect)


def reaching(keys: Sequence[SshKey], vm: Vm) -> tuple[str, ...]:
    """Those that are not limited to a tag that the VM has not."""
    return tuple(key.public_key for key in keys if not key.tag or key.tag in vm.tags)


async def observe(app: App, seen: Sequence[Seen]) -> None:
    """Take in what a node saw; only what changed is written."""
    known = {v.id: v for v in await app.db.read(store.everything)}
    kept = await app.db.read(snapshots.seen_by_vm)
    changed = [
        s for s in seen if s.vm in known and (_differs(known[s.vm], s) or snapshots.differs(kept.get(s.vm, {}), s))
    ]
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
    known = vm.phase, vm.seen_boot, vm.detail, vm.address, vm.seen_disk_turn, vm.seen_disk_gib, vm.cold
    return (*known, vm.notice, vm.warning) != _observed(seen)


def _observed(seen: Seen) -> tuple[object, ...]:
    return (
        seen.phase, seen.boot, seen.detail, seen.address, seen.disk_turn, seen.disk_gib, seen.cold,
        seen.notice[:MAX_NOTICE], seen.warning[:MAX_NOTICE],
    )


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
        tx, vm.id, phase=seen.phase, seen_boot=seen.boot, detail=seen.detail, address=seen.address,
        console=seen.console[-CONSOLE_BYTES:], seen_disk_turn=seen.disk_turn, seen_disk_gib=seen.disk_gib,
        cold=seen.cold, notice=seen.notice[:MAX_NOTICE], warning=seen.warning[:MAX_NOTICE],
    )
    snapshots.take_in(tx, vm.id, seen)
    tx.emit(Event("vm.observed", SYSTEM, vm.id, data))
