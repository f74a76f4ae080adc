"""Use cases of sharing: ports and their visibility."""
from __future__ import annotations

from collections.abc import Sequence

from ussycode.access.decide import Permit
from ussycode.access.facts import VmFacts
from ussycode.base.db import Tx
from ussycode.base.events import Event
from ussycode.ports import App
from ussycode.runtime.driver import Power
from ussycode.sharing import facts
from ussycode.sharing.model import Ports
from ussycode.vms import ports as store
from ussycode.vms import store as vms
from ussycode.vms.ops import NO_SUCH_VM
from ussycode.wire.edge import Change, Snapshot


async def show(app: App, permit: Permit) -> Ports:
    """Ports of the VM."""
    return await app.db.read(lambda tx: _ports(tx, app, permit))


async def set_port(app: App, permit: Permit, port: int) -> Ports:
    """Make `port` the primary one; its visibility follows: what was public on the old one is on the new."""

    def change(tx: Tx) -> Ports:
        old = _ports(tx, app, permit)
        public = (old.public - {old.primary}) | ({port} if old.primary in old.public else frozenset())
        return _keep(tx, permit, Ports(port, frozenset(public)), "share.port")

    return await app.db.write(change)


async def set_visibility(app: App, permit: Permit, public: bool) -> Ports:
    """Open the primary port to everyone, or close it again. In force before this returns."""

    def change(tx: Tx) -> Ports:
        old = _ports(tx, app, permit)
        ports = old.public | {old.primary} if public else old.public - {old.primary}
        return _keep(tx, permit, Ports(old.primary, ports), "share.public" if public else "share.private")

    return await app.db.write(change)


def _ports(tx: Tx, app: App, permit: Permit) -> Ports:
    assert permit.vm is not None
    vm = vms.by_id(tx, permit.vm.vm)
    if vm is None:
        raise NO_SUCH_VM(name=permit.vm.name)
    return facts.ports_of(tx, app.images, vm)


def _keep(tx: Tx, permit: Permit, ports: Ports, kind: str) -> Ports:
    assert permit.vm is not None
    rows = {p: (p == ports.primary, p in ports.public) for p in ports.public | {ports.primary}}
    store.replace(tx, permit.vm.vm, rows)
    tx.emit(Event(kind, permit.actor, permit.vm.vm, {"port": ports.primary, "public": sorted(ports.public)}))
    return ports


async def edge_snapshot(app: App, seq: int) -> Snapshot:
    """Everything an edge must know."""
    return await app.db.read(lambda tx: facts.snapshot(tx, app.images, seq))


async def edge_change(app: App, seq: int, events: Sequence[Event]) -> Change:
    """What `events` changed for edges."""
    return await app.db.read(lambda tx: facts.change(tx, app.images, seq, events))


async def facts_of(app: App, name: str) -> VmFacts | None:
    """Facts about the VM called `name`; None when there is none."""
    return await app.db.read(lambda tx: facts.of_vm(tx, app.images, name))


async def names_of(app: App, ids: Sequence[str]) -> dict[str, str]:
    """Names of VMs by their ids; those that are gone are missing."""

    def find(tx: Tx) -> dict[str, str]:
        found = (vms.by_id(tx, vm) for vm in ids)
        return {vm.id: vm.name for vm in found if vm is not None and vm.power is not Power.ABSENT}

    return await app.db.read(find)
