"""Use cases: whom a VM is shared with."""
from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import sqlalchemy as sa

from ussycode.access.decide import Permit
from ussycode.access.facts import PRIMARY, Level, Role, VmFacts
from ussycode.base import ids
from ussycode.base.db import Tx, events_table
from ussycode.base.errors import ErrorCode, Kind
from ussycode.base.events import SYSTEM, Event
from ussycode.identity import addresses
from ussycode.identity import store as accounts
from ussycode.ports import App
from ussycode.sharing import facts, invitation, places, store
from ussycode.sharing.model import Share
from ussycode.vms import store as vms
from ussycode.vms.ops import NO_SUCH_VM

MAX_SHARES = 500
"""People one VM is shared with: every edge holds all of them."""
MAIL_PER_HOUR = 50
"""Invitations mailed for one account's VMs in an hour."""
OWNER = ErrorCode("share.owner", Kind.CONFLICT, "{who} owns {name} already", hint="share show {name}")
NOT_SHARED = ErrorCode(
    "share.unknown", Kind.NOT_FOUND, "{name} is not shared with {who}",
    hint="see whom it is shared with: share show {name}",
)
NOBODY = ErrorCode(
    "share.nobody", Kind.NOT_FOUND, "nobody here is called {who}", hint="write their e-mail address: name@example.org"
)
TOO_MANY = ErrorCode(
    "share.too_many", Kind.CONFLICT, "{name} is shared with {limit} people, and more do not fit",
    hint="remove some, or open the port to everybody: share set-public {name}",
)
TOO_MANY_MAILS = ErrorCode(
    "share.too_many_mails", Kind.TOO_MANY, "you have invited {limit} addresses within an hour", hint="wait an hour"
)
SHELL_PORT = ErrorCode(
    "share.shell_port", Kind.USAGE, "a shell reaches every port, so --root takes no --port",
    hint="leave one of them out",
)
NO_TEAMS = ErrorCode(
    "share.no_teams", Kind.FAILED, "accounts are not grouped into teams so far",
    hint="share with people: share add {name} EMAIL",
)


@dataclass(frozen=True)
class Wish:
    """Whom to share what with. `who` is an address or a handle; `life` in seconds, 0 for ever, None as it is."""

    who: str
    level: Level = Level.WEB
    port: int = PRIMARY
    life: int | None = None
    message: str = ""


@dataclass(frozen=True)
class Added:
    """What came of it: the share, whether it is a new one, and whether a mail was written.

    `who` is the person as they were named: who names a handle learns no address, who names an address no handle.
    """

    share: Share
    new: bool
    mailed: bool
    vm: VmFacts
    who: str


async def add(app: App, permit: Permit, wish: Wish) -> Added:
    """Share a VM with a person; a second time changes nothing, or only what differs.

    Raises OWNER, NOBODY, SHELL_PORT, NO_PLACE, TOO_MANY or TOO_MANY_MAILS. In force before it returns.
    """
    return await app.db.write(lambda tx: share(tx, app, permit, wish))


def share(tx: Tx, app: App, permit: Permit, wish: Wish) -> Added:
    """The same within a transaction."""
    vm = here(tx, app, permit)
    user, address, holder = _person(tx, wish.who)
    if holder == vm.owner:
        raise OWNER(who=wish.who, name=vm.name)
    if wish.level is Level.SHELL and wish.port != PRIMARY:
        raise SHELL_PORT()
    places.require(vm.name, wish.port or vm.primary_port, vm.primary_port)
    known = store.shares_of(tx, vm.vm)
    old = next((s for s in known if s.port == wish.port and _same(s, user, address, holder)), None)
    if old is not None and not (old.expires and old.expires <= tx.now):
        return _change(tx, permit, vm, old, wish)
    store.delete(tx, [old.id] if old is not None else [])
    if len(known) >= MAX_SHARES:
        raise TOO_MANY(name=vm.name, limit=MAX_SHARES)
    return _insert(tx, app, permit, vm, (user, address), wish)


def _change(tx: Tx, permit: Permit, vm: VmFacts, old: Share, wish: Wish) -> Added:
    level = Level.SHELL if wish.level is Level.SHELL else old.level
    expires = old.expires if wish.life is None else _end(tx, wish.life)
    if (level, expires) != (old.level, old.expires):
        store.update(tx, old.id, level, expires)
        told = {"who": old.name, "port": old.port, "level": level.value, "expires": expires}
        tx.emit(Event("share.changed", permit.actor, vm.vm, told))
    return Added(replace(old, level=level, expires=expires), False, False, vm, wish.who)


def _insert(tx: Tx, app: App, permit: Permit, vm: VmFacts, who: tuple[str, str], wish: Wish) -> Added:
    user, address = who
    made = Share(
        ids.new("share"), vm.vm, wish.port, wish.level, user, address, "", permit.actor, _end(tx, wish.life or 0),
        tx.now,
    )
    store.insert(tx, made)
    kept = next(s for s in store.shares_of(tx, vm.vm) if s.id == made.id)
    to = kept.address or kept.email
    told = {"who": kept.name, "port": kept.port, "level": kept.level.value, "expires": kept.expires}
    if kept.pending:  # where accounts are by invitation they could not come otherwise
        addresses.invite(tx, address, permit.actor, Role.GUEST)
    if to:
        _require_mails(tx, vm.owner)
        invitation.post(tx, app, permit.caller, vm, kept, to, wish.message)
    tx.emit(Event("share.added", permit.actor, vm.vm, told))
    return Added(kept, True, bool(to), vm, wish.who)


def _require_mails(tx: Tx, owner: str) -> None:
    mine = [vm.id for vm in vms.everything(tx) if vm.owner == owner]
    recent = events_table.c.subject.in_(mine) & (events_table.c.kind == "share.added") & (
        events_table.c.at > tx.now - 3600
    )
    query = sa.select(sa.func.count()).select_from(events_table).where(recent)
    if int(tx.conn.execute(query).scalar() or 0) >= MAIL_PER_HOUR:
        raise TOO_MANY_MAILS(limit=MAIL_PER_HOUR)


async def remove(app: App, permit: Permit, who: str, shell: bool = False, port: int | None = None) -> str:
    """Take a VM back from a person, or with `shell` only the shell; who, as named. Raises NOT_SHARED or NOBODY.

    However many ways they came by it, all end; with `port` those of that port. In force before it returns.
    """

    def write(tx: Tx) -> str:
        vm = here(tx, app, permit)
        user, address, holder = _person(tx, who)
        theirs = [s for s in store.shares_of(tx, vm.vm) if _same(s, user, address, holder)]
        theirs = [s for s in theirs if port is None or s.port == port]
        if not theirs:
            raise NOT_SHARED(name=vm.name, who=who)
        kind = "share.lowered" if shell else "share.removed"
        if shell:
            _lower(tx, theirs)
        else:
            store.delete(tx, [s.id for s in theirs])
            _uninvite(tx, theirs)
        tx.emit(Event(kind, permit.actor, vm.vm, {"who": theirs[0].name, "ports": sorted({s.port for s in theirs})}))
        return who

    return await app.db.write(write)


def _uninvite(tx: Tx, gone: Sequence[Share]) -> None:
    for address in {s.address for s in gone if s.address}:
        if not store.vms_for(tx, address):
            addresses.uninvite_guest(tx, address)


def _lower(tx: Tx, shares: Sequence[Share]) -> None:
    for share in shares:
        store.update(tx, share.id, Level.WEB, share.expires)


async def end_over(app: App) -> None:
    """Take back every share whose time is over; the decision has refused it since."""

    def write(tx: Tx) -> None:
        ended = store.over(tx)
        store.delete(tx, [s.id for s in ended])
        _uninvite(tx, ended)
        for share in ended:
            tx.emit(Event("share.ended", SYSTEM, share.vm, {"who": share.name, "port": share.port}))

    if await app.db.read(store.over):
        await app.db.write(write)


def here(tx: Tx, app: App, permit: Permit) -> VmFacts:
    """The permit's VM as it is now. Raises NO_SUCH_VM when it is gone."""
    assert permit.vm is not None
    found = facts.of_id(tx, app.images, permit.vm.vm)
    if found is None:
        raise NO_SUCH_VM(name=permit.vm.name)
    return found


def _end(tx: Tx, life: int) -> float:
    return tx.now + life if life else 0.0


def _person(tx: Tx, who: str) -> tuple[str, str, str]:
    """(user, "", user) of a handle; ("", address, user or "") of an address. Raises NOBODY."""
    if "@" in who:
        return "", who, addresses.owner_of(tx, who) or ""
    user = accounts.user_by(tx, "handle", who)
    if user is None:
        raise NOBODY(who=who)
    return user.id, "", user.id


def _same(share: Share, user: str, address: str, holder: str) -> bool:
    return (share.user, share.address) == (user, address) or (bool(holder) and share.holder == holder)
