"""Use cases: asking to be let into a VM, and its owner's answer. Who asks learns nothing, not even that it exists."""
from __future__ import annotations

from dataclasses import dataclass

from ussycode.access.actions import Action
from ussycode.access.decide import Permit, decide
from ussycode.access.facts import PRIMARY, Caller, Facts, VmFacts
from ussycode.base import ids
from ussycode.base.db import Tx
from ussycode.base.errors import ErrorCode, Kind
from ussycode.base.events import SYSTEM, Event
from ussycode.domains import ops as domains
from ussycode.identity import store as accounts
from ussycode.mail import store as mail
from ussycode.ports import App
from ussycode.sharing import facts, people, requests
from ussycode.sharing.model import effective
from ussycode.sharing.people import Added
from ussycode.sharing.requests import AccessRequest, Waiting

DAY = 86_400.0
ASKS_PER_DAY = 10
"""Requests of one account in a day, for whatever VM, be it there or not."""
MAX_WAITING = 50
"""Requests that wait for one VM; further ones lead to nobody."""
MAILS_PER_DAY = 20
"""Mails that one owner gets about requests in a day; the others are only listed."""
WAIT_SECONDS = 14 * DAY
"""How long a request waits for an answer."""
DECLINED_SECONDS = 30 * DAY
"""How long somebody who was declined asks in vain."""
TOO_OFTEN = ErrorCode(
    "request.too_often", Kind.TOO_MANY, "you have asked for {limit} machines within a day", hint="try again tomorrow"
)
NO_REQUEST = ErrorCode(
    "request.unknown", Kind.NOT_FOUND, "{who} does not ask for {name}", hint="share requests lists who asks"
)


@dataclass(frozen=True)
class Place:
    """Where somebody stands: a host, the VM's name and port that it means (0 for the primary one).

    `name` is empty for a domain of an owner's.
    """

    host: str
    name: str
    port: int = PRIMARY


async def ask(app: App, caller: Caller, place: Place, message: str) -> bool:
    """Ask the owner, if there is one; True when the caller may go there already. Raises TOO_OFTEN.

    Asking again changes nothing while the first request waits, nor for a while after it was declined.
    """

    def write(tx: Tx) -> bool:
        vm = _vm(tx, app, place)
        if vm is not None and _may(tx, caller, vm, place.port):
            return True
        if requests.count_since(tx, caller.user, tx.now - DAY) >= ASKS_PER_DAY:
            raise TOO_OFTEN(limit=ASKS_PER_DAY)
        known = requests.of_vm(tx, vm.vm) if vm is not None else []
        heard = vm is not None and len(known) < MAX_WAITING and not any(r.user == caller.user for r in known)
        request = AccessRequest(
            ids.new("ask"), vm.vm if vm is not None and heard else None, caller.user, place.port, message, False,
            tx.now, tx.now + (WAIT_SECONDS if heard else DAY),
        )
        requests.insert(tx, request)
        if vm is not None and heard:
            _tell(tx, app, caller, vm, request)
        return False

    return await app.db.write(write)


async def waiting(app: App, owner: str) -> list[Waiting]:
    """What waits for an owner's answer, oldest first."""
    return await app.db.read(lambda tx: requests.waiting_for(tx, owner))


async def approve(app: App, permit: Permit, who: str, life: int | None) -> Added:
    """Share what was asked for, for `life` seconds (None for ever). Raises NO_REQUEST and what sharing raises."""

    def write(tx: Tx) -> Added:
        found = _find(tx, app, permit, who)
        requests.delete(tx, found.request.id)
        added = people.share(tx, app, permit, people.Wish(found.handle, port=found.request.port, life=life))
        tx.emit(Event("share.approved", permit.actor, added.vm.vm, {"who": found.handle, "port": found.request.port}))
        return added

    return await app.db.write(write)


async def decline(app: App, permit: Permit, who: str) -> Waiting:
    """Say no; they hear nothing, and ask in vain for DECLINED_SECONDS. Raises NO_REQUEST."""

    def write(tx: Tx) -> Waiting:
        found = _find(tx, app, permit, who)
        requests.decline(tx, found.request.id, tx.now + DECLINED_SECONDS)
        tx.emit(Event("share.declined", permit.actor, str(found.request.vm), {"who": found.handle}))
        return found

    return await app.db.write(write)


async def end_over(app: App) -> None:
    """Forget requests that nobody answered in time, and refusals that are old."""

    def write(tx: Tx) -> None:
        for request in requests.over(tx):
            requests.delete(tx, request.id)
            if request.vm is not None and not request.declined:
                tx.emit(Event("share.request_ended", SYSTEM, request.vm, {"who": request.user}))

    if await app.db.read(requests.over):
        await app.db.write(write)


def _vm(tx: Tx, app: App, place: Place) -> VmFacts | None:
    if place.name:
        found = facts.of_vm(tx, app.images, place.name)
        return facts.shown(tx, app.images, found.vm) if found is not None else None
    domain = domains.at(tx, place.host)
    return facts.shown(tx, app.images, domain.vm) if domain is not None else None


def _may(tx: Tx, caller: Caller, vm: VmFacts, port: int) -> bool:
    return decide(Action.VM_OPEN, Facts(caller, vm, effective(port, vm.primary_port), now=tx.now)).allowed


def _find(tx: Tx, app: App, permit: Permit, who: str) -> Waiting:
    vm = people.here(tx, app, permit)
    for found in requests.waiting_for(tx, vm.owner):
        if found.request.vm == vm.vm and who in (found.handle, found.email):
            return found
    raise NO_REQUEST(who=who, name=vm.name)


def _tell(tx: Tx, app: App, caller: Caller, vm: VmFacts, request: AccessRequest) -> None:
    tx.emit(Event("share.asked", caller.user, vm.vm, {"who": caller.handle, "port": request.port}))
    owner = accounts.user_by(tx, "id", vm.owner)
    if owner is None or not owner.email or requests.count_for(tx, vm.owner, tx.now - DAY) > MAILS_PER_DAY:
        return
    who = f"{caller.handle} <{caller.email}>" if caller.email else caller.handle
    what = f"port {request.port} of {vm.name}" if request.port else vm.name
    said = [f"{who} asks to open {what} at {app.config.domain}."]
    said += [f"    {request.message}"] if request.message else []
    said += [f"Answer here:\n\n{app.config.host_url(app.config.domain)}requests"]
    said += [f"or in a terminal:\n\n{app.config.ssh_command()} share approve {vm.name} {caller.handle}"]
    said += ["If you do nothing, nobody is let in, and nobody is told."]
    mail.post(tx, owner.email, f"{caller.handle} asks to open {vm.name}", "\n\n".join(said) + "\n")
