"""Holding claims against DNS: at once, again in the background, and when two accounts want the same name.

A claim is looked at after 1, 2, 4, … minutes, then each hour, for a week. A domain that is served is looked at every
6 hours. When DNS no longer proves it, that is noted, it is looked at every quarter of an hour, and after three days
it is not served any more; a DNS that is silent changes nothing. It is let go at once when another account proves it.
"""
from __future__ import annotations

import asyncio

from ussycode.base.db import Tx
from ussycode.base.events import SYSTEM, Event
from ussycode.domains import notices, policy, store
from ussycode.domains.lookups import Lookups, Silence
from ussycode.domains.model import Finding, Place, Proof, VmDomain
from ussycode.identity import store as identity
from ussycode.ports import App
from ussycode.runtime.driver import Power
from ussycode.vms import store as vms

AT_A_TIME = 50
"""Domains looked at in one round; rounds are a minute apart."""
AT_ONCE = 8
"""Of these, how many at the same time."""


async def look(app: App, which: str) -> VmDomain | None:
    """Ask DNS about a domain and take in what it says; the domain as it is then, None when it is gone."""
    domain = await app.db.read(lambda tx: store.by_id(tx, which))
    if domain is None:
        return None
    finding = await _find(app, domain)
    if finding.proof is not Proof.NONE and not domain.verified and await is_free(app, domain):
        for holder in await _others(app, domain):
            await _let_go(app, holder)
    return await app.db.write(lambda tx: _take_in(tx, which, finding))


async def is_free(app: App, domain: VmDomain) -> bool:
    """Whether whoever has a domain's names would have to leave them to somebody who proves them now.

    DNS is the judge: a holder whose domain now leads elsewhere would, one that is still proven would not.
    """
    return all([await _gives_way(app, holder, domain) for holder in await _others(app, domain)])


async def _others(app: App, domain: VmDomain) -> list[VmDomain]:
    """Who else has names of a domain."""
    holders = await app.db.read(lambda tx: store.holders(tx, domain.patterns))
    return [holder for holder in holders if holder.id != domain.id]


async def _gives_way(app: App, holder: VmDomain, domain: VmDomain) -> bool:
    """Whether `holder` must leave its names to `domain`. Within an account only a VM in the trash leaves them."""
    if holder.owner == domain.owner:
        return not await app.db.read(lambda tx: _here(tx, holder.vm))
    finding = await _find(app, holder)
    return finding.proof is Proof.NONE and finding.sure


async def look_at_due(app: App) -> int:
    """One round in the background; how many domains were looked at."""
    due = await app.db.read(lambda tx: store.due(tx, AT_A_TIME))
    gate = asyncio.Semaphore(AT_ONCE)

    async def one(domain: VmDomain) -> None:
        async with gate:
            await look(app, domain.id)

    await asyncio.gather(*(one(d) for d in due))
    if await app.db.read(store.orphans):
        await app.db.write(_sweep)
    return len(due)


async def place_of(app: App, domain: VmDomain) -> Place:
    """What a domain may lead to."""
    vm = await app.db.read(lambda tx: vms.by_id(tx, domain.vm))
    host = app.config.vm_host(vm.name) if vm is not None else ""
    return Place(app.config.domain, host, await _our_addresses(app), app.config.delegation_zone)


async def _our_addresses(app: App) -> frozenset[str]:
    config = app.config
    if config.public_addresses:
        return frozenset(config.public_addresses)
    if config.on_loopback:
        return frozenset(config.listen)
    try:
        return await Lookups.of(config).addresses(config.domain)
    except Silence:
        return frozenset()


async def _find(app: App, domain: VmDomain) -> Finding:
    seen = await Lookups.of(app.config).about(domain, app.config.domain)
    place = await place_of(app, domain)
    others = [] if domain.wildcard else await app.db.read(lambda tx: store.holders(tx, [policy.above(domain.name)]))
    return policy.judge(domain, seen, place, policy.held_against(others, domain.owner))


def _take_in(tx: Tx, which: str, finding: Finding) -> VmDomain | None:
    domain = store.by_id(tx, which)
    if domain is None:
        return None
    if finding.proof is not Proof.NONE:
        _proven(tx, domain, finding)
    elif domain.verified and finding.sure and not domain.failing_since:
        store.update(tx, which, failing_since=tx.now)
        tx.emit(Event("domain.failing", SYSTEM, which, {"domain": domain.shown, "why": finding.why}))
        notices.failing(tx, domain, finding.why)
    now = store.by_id(tx, which)
    assert now is not None
    if policy.is_over(now, tx.now) or (finding.sure and policy.is_lost(now, tx.now)):
        forget(tx, now, SYSTEM, "domain.lost" if now.verified else "domain.expired")
        if now.verified:
            notices.lost(tx, now)
        return None
    checks = 0 if now.verified else now.checks + 1
    store.update(tx, which, checked_at=tx.now, checks=checks, why=finding.why, check_at=policy.next_look(now, tx.now))
    return store.by_id(tx, which)


def _proven(tx: Tx, domain: VmDomain, finding: Finding) -> None:
    held = [h for h in store.holders(tx, domain.patterns) if h.id != domain.id]
    if held:  # somebody was quicker, and DNS is for both
        return
    store.update(tx, domain.id, proof=finding.proof, failing_since=0.0, target=finding.target or domain.target)
    if not domain.verified:
        store.serve(tx, domain)
        store.update(tx, domain.id, verified_at=tx.now)
        about = {"domain": domain.shown, "vm": domain.vm, "proof": finding.proof.value}
        tx.emit(Event("domain.verified", domain.owner, domain.id, about))


def forget(tx: Tx, domain: VmDomain, actor: str, kind: str) -> None:
    """Drop a domain. Its sign-ins end with it: whoever has the name next must not be handed them."""
    store.delete(tx, domain.id)
    tx.emit(Event(kind, actor, domain.id, {"domain": domain.shown, "vm": domain.vm}))
    if domain.verified:
        for pattern in domain.patterns:
            for digest in identity.delete_sessions_on(tx, pattern):
                tx.emit(Event("session.ended", actor, digest, {}))


async def _let_go(app: App, domain: VmDomain) -> None:
    def drop(tx: Tx) -> None:
        now = store.by_id(tx, domain.id)
        if now is not None:
            forget(tx, now, SYSTEM, "domain.lost")
            notices.lost(tx, now)

    await app.db.write(drop)


def _here(tx: Tx, vm: str) -> bool:
    found = vms.by_id(tx, vm)
    return found is not None and found.power is not Power.ABSENT and not found.trashed_at


def _sweep(tx: Tx) -> None:
    for domain in store.orphans(tx):
        forget(tx, domain, SYSTEM, "domain.removed")
