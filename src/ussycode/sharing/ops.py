"""Use cases of sharing: ports and their visibility, and what doors and nodes are told."""
from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from ussycode.access.decide import Permit
from ussycode.access.facts import Grant, Level, VmFacts
from ussycode.base.db import Tx
from ussycode.base.events import Event
from ussycode.identity import store as identity
from ussycode.ports import App
from ussycode.runtime.driver import Power, Want
from ussycode.sharing import facts, places, store
from ussycode.sharing.model import Link, Ports, Share
from ussycode.vms import ops as machines
from ussycode.vms import ports
from ussycode.vms import store as vms
from ussycode.vms.ops import NO_SUCH_VM
from ussycode.wire.edge import Change, Snapshot

MAX_LISTENING = 64
"""Ports that a VM says something listens on, of which are told."""


async def show(app: App, permit: Permit) -> Ports:
    """Ports of the VM."""
    return await app.db.read(lambda tx: _ports(tx, app, permit))


async def everything(app: App, permit: Permit) -> tuple[Ports, list[Share], list[Link]]:
    """Ports of the VM, whom it is shared with, and its links."""
    assert permit.vm is not None
    vm = permit.vm.vm
    return await app.db.read(lambda tx: (_ports(tx, app, permit), store.shares_of(tx, vm), store.links_of(tx, vm)))


async def listening(app: App, permit: Permit) -> tuple[int, ...] | None:
    """Ports on which something listens in the VM, lowest first; None when it does not run or does not say."""
    assert permit.vm is not None
    said = await app.link.listening(permit.vm.vm)
    return None if said is None else tuple(sorted({one.port for one in said})[:MAX_LISTENING])


async def set_port(app: App, permit: Permit, port: int) -> Ports:
    """Make `port` the primary one; its visibility follows: what was public on the old one is on the new."""

    def change(tx: Tx) -> Ports:
        old = _ports(tx, app, permit)
        public = (old.public - {old.primary}) | ({port} if old.primary in old.public else frozenset())
        return _keep(tx, permit, Ports(port, frozenset(public)), "share.port")

    return await app.db.write(change)


async def set_visibility(app: App, permit: Permit, public: bool, chosen: int | None = None) -> Ports:
    """Open a port to everyone, or close it again: the primary one, or the `chosen` one.

    In force before this returns. Raises NO_PLACE for a port that has no address.
    """

    def change(tx: Tx) -> Ports:
        old = _ports(tx, app, permit)
        port = chosen or old.primary
        if public:
            assert permit.vm is not None
            places.require(permit.vm.name, port, old.primary)
        open_ports = old.public | {port} if public else old.public - {port}
        return _keep(tx, permit, Ports(old.primary, open_ports), "share.public" if public else "share.private")

    return await app.db.write(change)


def _ports(tx: Tx, app: App, permit: Permit) -> Ports:
    assert permit.vm is not None
    vm = vms.by_id(tx, permit.vm.vm)
    if vm is None:
        raise NO_SUCH_VM(name=permit.vm.name)
    return facts.ports_of(tx, app.images, vm)


def _keep(tx: Tx, permit: Permit, made: Ports, kind: str) -> Ports:
    assert permit.vm is not None
    rows = {p: (p == made.primary, p in made.public) for p in made.public | {made.primary}}
    ports.replace(tx, permit.vm.vm, rows)
    tx.emit(Event(kind, permit.actor, permit.vm.vm, {"port": made.primary, "public": sorted(made.public)}))
    return made


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


async def wants(app: App) -> list[Want]:
    """What the node should make true, with the keys of everybody who may have a shell: owners and their guests."""
    found = await machines.wants(app)
    shells = await app.db.read(_shell_keys)
    return [replace(w, authorized_keys=(*w.authorized_keys, *shells[w.vm])) if w.vm in shells else w for w in found]


def _shell_keys(tx: Tx) -> dict[str, tuple[str, ...]]:
    made: dict[str, tuple[str, ...]] = {}
    for vm, granted in store.all_grants(tx).items():
        for user in (u for u, some in granted.items() if any(_shell_now(g, tx.now) for g in some)):
            found = vms.by_id(tx, vm)
            keys = machines.reaching(identity.keys_of(tx, user), found) if found is not None else ()
            made[vm] = (*made.get(vm, ()), *keys)
    return made


def _shell_now(grant: Grant, now: float) -> bool:
    return grant.level is Level.SHELL and (not grant.expires or now < grant.expires)
