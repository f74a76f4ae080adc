"""Use cases of domains: claim, remove, list, and what others ask about them."""
from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from ussycode.access.decide import Permit
from ussycode.base import ids
from ussycode.base.db import Tx
from ussycode.base.errors import ErrorCode, Kind
from ussycode.base.events import Event
from ussycode.domains import certificates, checking, policy, store
from ussycode.domains.certificates import Kept
from ussycode.domains.model import VmDomain
from ussycode.domains.names import Domain
from ussycode.ports import App
from ussycode.runtime.driver import Power
from ussycode.vms import ops as vm_ops
from ussycode.vms import store as vms
from ussycode.vms.ops import NO_SUCH_VM

NO_SUCH_DOMAIN = ErrorCode("domain.unknown", Kind.NOT_FOUND, "{vm} has no domain {domain}",
                           hint="domain ls {vm} shows what it has")
TAKEN = ErrorCode("domain.taken", Kind.CONFLICT, "{domain} is served for somebody else, and its DNS still says so",
                  hint="if it is yours, change its DNS first: domain add says how it must look")
ON_ANOTHER = ErrorCode("domain.on_another_vm", Kind.CONFLICT, "{domain} is on your VM {vm}",
                       hint="domain rm {vm} {domain} frees it")


@dataclass(frozen=True)
class Listed:
    """A domain with the name of its VM, and the certificate that is kept for it."""

    domain: VmDomain
    vm_name: str
    certificate: Kept | None


async def add(app: App, permit: Permit, wanted: Domain, wildcard: bool) -> VmDomain:
    """Claim a domain for a VM and ask DNS at once; a claim that stands already is asked about again.

    The claim stays when DNS does not prove it: it is looked at again by itself until it is a week old.
    Raises OURS, TOO_MANY, TAKEN, ON_ANOTHER or NO_SUCH_VM.
    """
    covered = policy.covers(wanted, wildcard)
    policy.require_foreign(app.config.domain, wanted.name, covered)

    def claim(tx: Tx) -> VmDomain:
        vm = vm_ops.of(tx, permit)
        known = [d for d in store.of_vm(tx, vm.id) if (d.name, d.covers) == (wanted.name, covered)]
        if known:
            return known[0]
        policy.require_room(len(store.of_owner(tx, vm.owner)))
        made = VmDomain(ids.new("dom"), vm.id, vm.owner, wanted.name, covered, tx.now)
        made = replace(made, check_at=policy.next_look(made, tx.now))
        store.insert(tx, made)
        tx.emit(Event("domain.claimed", permit.actor, made.id, {"domain": made.shown, "vm": vm.id}))
        return made

    made = await app.db.write(claim)
    if not await checking.is_free(app, made):
        await _refuse(app, permit, made)
    return await checking.look(app, made.id) or made


async def _refuse(app: App, permit: Permit, made: VmDomain) -> None:
    """Withdraw a claim on what somebody else has, and say so."""

    def withdraw(tx: Tx) -> str:
        store.delete(tx, made.id)
        tx.emit(Event("domain.refused", permit.actor, made.id, {"domain": made.shown}))
        own = [d for d in store.holders(tx, made.patterns) if d.owner == made.owner]
        vm = vms.by_id(tx, own[0].vm) if own else None
        return vm.name if vm is not None else ""

    on = await app.db.write(withdraw)
    raise ON_ANOTHER(domain=made.shown, vm=on) if on else TAKEN(domain=made.shown)


async def remove(app: App, permit: Permit, which: Domain) -> VmDomain:
    """Let a domain go: not served with the next request, its sign-ins ended. Raises NO_SUCH_DOMAIN."""

    def drop(tx: Tx) -> VmDomain:
        vm = vm_ops.of(tx, permit)
        found = [d for d in store.of_vm(tx, vm.id) if d.shown == str(which)]
        if not found:
            raise NO_SUCH_DOMAIN(vm=vm.name, domain=which)
        for domain in found:
            checking.forget(tx, domain, permit.actor, "domain.removed")
        return found[-1]

    return await app.db.write(drop)


async def of_vm(app: App, permit: Permit, name: str) -> list[Listed]:
    """Domains of the caller's VM called `name`. Raises NO_SUCH_VM, also for somebody else's."""

    def find(tx: Tx) -> list[Listed]:
        vm = next((v for v in vms.of_owner(tx, permit.actor) if v.name == name), None)
        if vm is None:
            raise NO_SUCH_VM(name=name)
        return [Listed(d, vm.name, certificates.of(tx, d.id)) for d in store.of_vm(tx, vm.id)]

    return await app.db.read(find)


async def mine(app: App, permit: Permit) -> list[Listed]:
    """The caller's domains, those of VMs in the trash included, by name."""

    def find(tx: Tx) -> list[Listed]:
        found = ((d, vms.by_id(tx, d.vm)) for d in store.of_owner(tx, permit.actor))
        return [
            Listed(d, vm.name if vm is not None and not vm.trashed_at else "", certificates.of(tx, d.id))
            for d, vm in found
        ]

    return await app.db.read(find)


async def served_of(app: App, permit: Permit) -> list[str]:
    """Domains at which the permit's VM is served."""
    vm = permit.vm.vm if permit.vm is not None else ""
    return [d.shown for d in await app.db.read(lambda tx: store.of_vm(tx, vm)) if d.verified]


async def serves(app: App, host: str) -> bool:
    """Whether `host` (lower case, no port) is a domain at which people may be signed in to a VM that is here.

    While DNS leads it elsewhere nobody is: a sign-in would be carried to whoever is there now.
    """

    def find(tx: Tx) -> bool:
        found = at(tx, host)
        return found is not None and not found.failing_since

    return await app.db.read(find)


async def certifiable(app: App, host: str) -> VmDomain | None:
    """The proven domain of a VM that is here, for which whoever ends TLS may get a certificate; None for any other."""
    return await app.db.read(lambda tx: at(tx, host))


async def pem(app: App, host: str) -> bytes:
    """Key and chain of the certificate that is kept for a proven domain; empty when there is none that is good."""

    def find(tx: Tx) -> bytes:
        found = at(tx, host)
        kept = certificates.of(tx, found.id) if found is not None else None
        return kept.key + kept.chain if kept is not None and kept.expires > tx.now else b""

    return await app.db.read(find)


def at(tx: Tx, host: str) -> VmDomain | None:
    """The domain that is served as `host`: the exact name goes before the wildcard above it."""
    found: Sequence[VmDomain] = store.holders(tx, [host]) or store.holders(tx, [policy.above(host)])
    vm = vms.by_id(tx, found[0].vm) if found else None
    here = vm is not None and vm.power is not Power.ABSENT and not vm.trashed_at
    return found[0] if here else None
