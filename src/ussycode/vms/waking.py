"""Reaching a VM: waiting for one that comes up, and starting one that sleeps and may be woken."""
from __future__ import annotations

import secrets as chance

from ussycode.access.decide import Permit
from ussycode.base.db import Tx
from ussycode.base.errors import Failure
from ussycode.base.events import Event
from ussycode.ports import App
from ussycode.runtime.driver import Phase, Power
from ussycode.vms import ops, store
from ussycode.vms.model import Vm


async def reachable(app: App, permit: Permit) -> Vm:
    """The VM behind a permit, when streams can be opened to it; one that may be woken is.

    Raises NOT_RUNNING with its state in words.
    """
    vm = await app.db.read(lambda tx: ops.of(tx, permit))
    if vm.asleep:
        woken, why = await wake(app, vm.id)
        vm = await app.db.read(lambda tx: ops.of(tx, permit))
        if not woken and vm.asleep:
            raise ops.NOT_RUNNING(name=vm.name, status=vm.status, why=f" ({why})")
    if vm.status == "starting":
        vm = await _settled(app, vm)
    if vm.status == "starting":
        raise ops.UNREACHED(name=vm.name, seconds=app.config.boot_timeout)
    if not vm.running:
        why = f" ({vm.detail})" if vm.detail else ""
        raise ops.NOT_RUNNING(name=vm.name, status=vm.status, why=why)
    return vm


async def _settled(app: App, vm: Vm) -> Vm:
    try:
        return await ops.until_up(app, vm)
    except Failure as failure:
        if failure.error not in (ops.NOT_UP, ops.SLOW):
            raise
    now = await app.db.read(lambda tx: store.by_id(tx, vm.id))
    return now or vm


def fresh_boot(vm: Vm) -> dict[str, object]:
    """What makes the next run a boot; a paused VM keeps boot and secret, since its guest knows them."""
    if vm.power is Power.PAUSED and vm.phase is Phase.PAUSED:
        return {}
    return {"boot": vm.boot + 1, "secret": chance.token_hex(32)}


async def wake(app: App, vm: str) -> tuple[bool, str]:
    """Start a VM that is marked to be woken and sleeps; whether it runs now, and why not."""

    def wish(tx: Tx) -> Vm | None:
        found = store.by_id(tx, vm)
        if found is None or not found.asleep:
            return found
        ops.require_memory(tx, found)
        store.update(tx, vm, power=Power.RUNNING, **fresh_boot(found))
        tx.emit(Event("vm.woken", found.owner, vm, {"name": found.name}))
        return store.by_id(tx, vm)

    try:
        found = await app.db.write(wish)
    except Failure as failure:
        return False, f"it cannot be woken: {failure.sentence}"
    if found is None:
        return False, "this machine is gone"
    if found.power is not Power.RUNNING:
        return False, f"it is {found.status}, and a visit does not start it"
    app.nudge()
    seconds = app.config.boot_timeout + 5.0
    ended = (Phase.FAILED, Phase.STOPPED)
    now = await ops.until(app, found, seconds, lambda v: v.running or (v.seen_boot == v.boot and v.phase in ended))
    if now is not None and now.running:
        return True, ""
    return False, now.detail if now is not None else f"it did not answer within {seconds:.0f} s"
