"""Use cases: links that anyone who has them turns into a share of their own, after signing in."""
from __future__ import annotations

from dataclasses import dataclass

from ussycode.access.actions import Action
from ussycode.access.decide import Permit, decide
from ussycode.access.facts import PRIMARY, Caller, Facts, Level, VmFacts
from ussycode.base import ids, secrets
from ussycode.base.db import Tx
from ussycode.base.errors import ErrorCode, Kind
from ussycode.base.events import Event
from ussycode.identity import store as accounts
from ussycode.ports import App
from ussycode.sharing import facts, places, store
from ussycode.sharing.model import Link, Share, effective
from ussycode.sharing.people import MAX_SHARES, here

TOKEN_BYTES = 16
"""Chance in a link: 128 bits, and short enough for a QR code that phones read off a terminal."""
MAX_TOKEN = 64
MAX_LINKS = 50
"""Share links of one VM."""
TOO_MANY_LINKS = ErrorCode(
    "share.too_many_links", Kind.CONFLICT, "{name} has {limit} links, and more do not fit",
    hint="remove one: share remove-link {name} ID",
)
NO_LINK = ErrorCode("share.no_link", Kind.NOT_FOUND, "{name} has no such link", hint="see its links: share show {name}")
DEAD_LINK = ErrorCode(
    "share.dead_link", Kind.UNKNOWN_COMMAND,
    "this link opens nothing: it was typed wrongly, taken back or used up, or its time is over",
    hint="ask whoever gave it to you for another one",
)


@dataclass(frozen=True)
class Wish:
    """A link to make. `life` in seconds and `max_uses` are 0 for no end."""

    port: int = PRIMARY
    label: str = ""
    life: int = 0
    max_uses: int = 0


@dataclass(frozen=True)
class Offer:
    """What a link leads to: the VM's name, who shares it, where it is, and whether one may go there already."""

    vm: str
    owner: str
    url: str
    there: bool


async def add(app: App, permit: Permit, wish: Wish) -> tuple[str, Link]:
    """A new link: its token, of which only the digest is kept. Raises NO_PLACE or TOO_MANY_LINKS."""
    token = secrets.token(TOKEN_BYTES)

    def write(tx: Tx) -> Link:
        vm = here(tx, app, permit)
        places.require(vm.name, wish.port or vm.primary_port, vm.primary_port)
        if len(store.links_of(tx, vm.vm)) >= MAX_LINKS:
            raise TOO_MANY_LINKS(name=vm.name, limit=MAX_LINKS)
        expires = tx.now + wish.life if wish.life else 0.0
        link = Link(
            ids.new("link"), vm.vm, wish.port, secrets.digest(token), wish.label, permit.actor, wish.max_uses, 0,
            expires, tx.now, 0.0,
        )
        store.insert_link(tx, link)
        told = {"link": link.id, "label": link.label, "port": link.port, "max_uses": link.max_uses, "expires": expires}
        tx.emit(Event("share.link_added", permit.actor, vm.vm, told))
        return link

    return token, await app.db.write(write)


async def remove(app: App, permit: Permit, which: str, revoke: bool) -> int:
    """End a link by token or id; with `revoke` also the shares it made. How many those were. Raises NO_LINK."""

    def write(tx: Tx) -> int:
        vm = here(tx, app, permit)
        wanted = which, secrets.digest(which)
        link = next((one for one in store.links_of(tx, vm.vm) if one.id == wanted[0] or one.digest == wanted[1]), None)
        if link is None:
            raise NO_LINK(name=vm.name)
        store.delete_link(tx, link.id)
        came = [s.id for s in store.shares_of(tx, vm.vm) if s.link == link.id] if revoke else []
        store.delete(tx, came)
        tx.emit(Event("share.link_removed", permit.actor, vm.vm, {"link": link.id, "revoked": len(came)}))
        return len(came)

    return await app.db.write(write)


async def look(app: App, caller: Caller, token: str) -> Offer:
    """What a link would give to somebody signed in; nothing is used up. Raises DEAD_LINK, whatever is wrong."""
    return await app.db.read(lambda tx: _offer(tx, app, caller, token)[2])


async def redeem(app: App, caller: Caller, token: str) -> Offer:
    """Make the share that a link promises. Raises DEAD_LINK, whatever is wrong. A second time changes nothing."""

    def write(tx: Tx) -> Offer:
        link, vm, offer = _offer(tx, app, caller, token)
        if offer.there:
            return offer
        known = store.shares_of(tx, vm.vm)
        if len(known) >= MAX_SHARES:
            raise DEAD_LINK()
        # What they had here of the same port is over, or the link would not be needed.
        store.delete(tx, [s.id for s in known if s.user == caller.user and s.port == link.port])
        share = Share(ids.new("share"), vm.vm, link.port, Level.WEB, caller.user, "", link.id, link.by, 0.0, tx.now)
        store.insert(tx, share)
        store.link_used(tx, link.id)
        tx.emit(Event("share.redeemed", caller.user, vm.vm, {"link": link.id, "port": link.port}))
        return offer

    return await app.db.write(write)


def _offer(tx: Tx, app: App, caller: Caller, token: str) -> tuple[Link, VmFacts, Offer]:
    link = store.link_by_digest(tx, secrets.digest(token[:MAX_TOKEN]))
    vm = None if link is None else facts.shown(tx, app.images, link.vm)
    if link is None or vm is None:
        raise DEAD_LINK()
    port = effective(link.port, vm.primary_port)
    # Public ports are open to everybody, but a link makes a share that stays when the port is closed again.
    private = VmFacts(vm.vm, vm.name, vm.owner, frozenset(), vm.primary_port, vm.grants, vm.tags)
    there = decide(Action.VM_OPEN, Facts(caller, private, port, now=tx.now)).allowed
    if not there and not link.open(tx.now):
        raise DEAD_LINK()
    owner = accounts.user_by(tx, "id", vm.owner)
    url = places.url(app.config, vm.name, port, vm.primary_port)
    return link, vm, Offer(vm.name, owner.handle if owner else "", url, there)
