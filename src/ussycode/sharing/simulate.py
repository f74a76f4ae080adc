"""What would be decided: who reaches which port and the shell of a VM, by what, and why not. Changes nothing."""
from __future__ import annotations

from dataclasses import dataclass, replace

from ussycode.access.actions import Action
from ussycode.access.decide import Decision, Permit, decide
from ussycode.access.facts import NOBODY, Caller, Facts, Grant, VmFacts
from ussycode.base.db import Tx
from ussycode.identity import addresses
from ussycode.identity import store as accounts
from ussycode.identity.model import User
from ussycode.ports import App
from ussycode.sharing import facts, store
from ussycode.sharing.model import Share, effective
from ussycode.sharing.people import here


@dataclass(frozen=True)
class Standing:
    """One person, and the decision about the shell and about each port."""

    who: str
    status: str
    """`owner`, `active`, `pending` (once they sign in with the address), `stranger`, or `anyone` without an account."""
    shell: Decision
    ports: tuple[tuple[int, Decision], ...]


async def who(app: App, permit: Permit, person: str) -> tuple[VmFacts, list[Standing]]:
    """The real decision about everybody whom it may concern, or about `person` (an address or a handle) alone."""
    return await app.db.read(lambda tx: _who(tx, app, permit, person))


@dataclass(frozen=True)
class Received:
    """One thing that somebody else shares with the caller; `port` is the one that it opens now."""

    share: Share
    vm: VmFacts
    owner: str
    port: int


async def received(app: App, permit: Permit) -> list[Received]:
    """What others share with the caller and is open to them now, by the VM's name."""

    def read(tx: Tx) -> list[Received]:
        found = []
        for share in store.shares_with(tx, permit.actor):
            vm = facts.shown(tx, app.images, share.vm)
            owner = accounts.user_by(tx, "id", vm.owner) if vm is not None else None
            if vm is None or owner is None:
                continue
            port = effective(share.port, vm.primary_port)
            if decide(Action.VM_OPEN, Facts(permit.caller, vm, port, now=tx.now)).allowed:
                found.append(Received(share, vm, owner.handle, port))
        return sorted(found, key=lambda one: (one.vm.name, one.port))

    return await app.db.read(read)


def _who(tx: Tx, app: App, permit: Permit, person: str) -> tuple[VmFacts, list[Standing]]:
    vm = here(tx, app, permit)
    shares = store.shares_of(tx, vm.vm)
    ports = (vm.primary_port, *sorted((vm.public_ports | {s.port for s in shares if s.port}) - {vm.primary_port}))
    # Those who have not signed in yet are judged as if each were an account of the address's name.
    supposed = replace(vm, grants={**vm.grants, **_pending(shares)})
    asked = _callers(tx, vm, shares) if not person else [_one(tx, vm, shares, person)]
    return vm, [_standing(supposed, ports, tx.now, *one) for one in asked]


def _standing(vm: VmFacts, ports: tuple[int, ...], now: float, name: str, status: str, caller: Caller) -> Standing:
    shell = decide(Action.VM_SHELL, Facts(caller, vm, now=now))
    return Standing(name, status, shell, tuple(
        (port, decide(Action.VM_OPEN, Facts(caller, vm, port, now=now))) for port in ports
    ))


def _pending(shares: list[Share]) -> dict[str, tuple[Grant, ...]]:
    waiting = [replace(s, holder=s.address) for s in shares if s.pending]
    return store.grants(waiting)


def _callers(tx: Tx, vm: VmFacts, shares: list[Share]) -> list[tuple[str, str, Caller]]:
    owner = accounts.user_by(tx, "id", vm.owner)
    found = {vm.owner: (_name(owner, vm.owner), "owner", Caller(vm.owner))}
    for s in shares:
        account = s.holder or s.address
        found.setdefault(account, (s.name, "pending" if s.pending else "active", Caller(account)))
    return [*found.values(), ("anyone", "anyone", NOBODY)]


def _one(tx: Tx, vm: VmFacts, shares: list[Share], person: str) -> tuple[str, str, Caller]:
    user = addresses.owner_of(tx, person) if "@" in person else None
    account = accounts.user_by(tx, "id", user) if user else accounts.user_by(tx, "handle", person)
    known = account.id if account else person
    for _, status, caller in _callers(tx, vm, shares):
        if caller.user == known:
            return person, status, caller
    return person, "stranger", Caller(known)


def _name(user: User | None, otherwise: str) -> str:
    return otherwise if user is None else user.email or user.handle
