"""Use cases of passkeys: making one, signing in with one, naming, removing."""
from __future__ import annotations

import secrets as chance
from dataclasses import replace
from typing import Any

from ussycode.access.decide import Permit
from ussycode.base import ids, secrets
from ussycode.base.db import Tx
from ussycode.base.errors import ErrorCode, Kind
from ussycode.base.events import SYSTEM, Event
from ussycode.identity import ceremonies, challenges, passkeys, sessions, store
from ussycode.identity.ceremonies import Place, Refused
from ussycode.identity.model import Session
from ussycode.identity.passkeys import Passkey
from ussycode.identity.sessions import SignIn
from ussycode.mail import store as mail
from ussycode.ports import App

MAX_PASSKEYS = 20
"""Passkeys of one account."""
HANDLE = 32
"""Bytes of chance by which authenticators know an account."""
NOT_MADE = ErrorCode(
    "passkey.not_made", Kind.BAD_REQUEST, "that is no passkey for this page, or it took too long", hint="try again"
)
NOT_ACCEPTED = ErrorCode(
    "passkey.not_accepted", Kind.UNAUTHENTICATED, "this passkey was not accepted",
    hint="try again, or sign in another way",
)
TAKEN = ErrorCode(
    "passkey.taken", Kind.CONFLICT, "that passkey is registered already", hint="passkey list shows yours"
)
NAME_TAKEN = ErrorCode(
    "passkey.name_taken", Kind.CONFLICT, "you already have a passkey named {name}", hint="pick another name"
)
UNKNOWN = ErrorCode(
    "passkey.unknown", Kind.NOT_FOUND, "you have no passkey {name}", hint="passkey list shows yours"
)
TOO_MANY = ErrorCode(
    "passkey.too_many", Kind.CONFLICT, "an account has at most {limit} passkeys", hint="passkey remove NAME first"
)


async def mine(app: App, permit: Permit) -> list[Passkey]:
    """The caller's passkeys, oldest first."""
    return await app.db.read(lambda tx: passkeys.of_user(tx, permit.actor))


async def begin_adding(app: App, session: Session) -> str:
    """What the browser of a signed-in person is asked to make, as JSON. Raises TOO_MANY."""

    def ask(tx: Tx) -> str:
        known, user = passkeys.of_user(tx, session.user), store.user_by(tx, "id", session.user)
        if len(known) >= MAX_PASSKEYS or user is None:
            raise TOO_MANY(limit=MAX_PASSKEYS)
        # Not the account's id, which apps are told: a page of theirs could have a device replace the passkey.
        handle = known[0].handle if known else chance.token_bytes(HANDLE)
        challenge = challenges.make(tx, _adding(session, handle))
        return ceremonies.to_make(Place.of(app.config), challenge, handle, user.handle, [k.credential for k in known])

    return await app.db.read(ask)


async def add(app: App, session: Session, handle: bytes, answer: dict[str, Any], name: str) -> Passkey:
    """Keep the passkey that the browser made under the `handle` it was asked with; an empty `name` is filled in.

    Raises NOT_MADE, TAKEN, NAME_TAKEN or TOO_MANY.
    """
    try:
        challenge = ceremonies.challenge_of(answer)
        made = ceremonies.made(Place.of(app.config), challenge, answer)
    except Refused as why:
        raise NOT_MADE().because(why) from None

    def keep(tx: Tx) -> Passkey:
        known = passkeys.of_user(tx, session.user)
        if not challenges.holds(tx, challenge, _adding(session, handle)) or store.session(tx, session.digest) is None:
            raise NOT_MADE().because("challenge")
        if passkeys.by_credential(tx, made.credential) is not None:
            raise TAKEN()
        if len(known) >= MAX_PASSKEYS:
            raise TOO_MANY(limit=MAX_PASSKEYS)
        challenges.spend(tx, challenge)
        passkey = Passkey(
            ids.new("pk"), session.user, _free_name(known, name), made.credential, made.public_key,
            handle, made.count, made.synced, False, tx.now,
        )
        passkeys.insert(tx, passkey)
        tx.emit(Event("passkey.added", session.user, session.user, {"passkey": passkey.id, "name": passkey.name}))
        _tell(app, tx, session.user, f"The passkey {passkey.name} was added to your account at {app.config.domain}.")
        return passkey

    return await app.db.write(keep)


async def begin_sign_in(app: App, cookie: str) -> str:
    """What a browser with this note in its cookie is asked to show, as JSON."""
    return await app.db.read(
        lambda tx: ceremonies.to_show(Place.of(app.config), challenges.make(tx, _signing_in(cookie)))
    )


async def sign_in(app: App, cookie: str, answer: dict[str, Any], agent: str) -> SignIn:
    """The session that a passkey buys. Raises NOT_ACCEPTED, the same whatever was wrong."""
    made, result = await _sign_in(app, cookie, answer, agent)
    app.telemetry.sign_in("passkey", result)
    if made is None:
        raise NOT_ACCEPTED().because(result)
    return made


async def _sign_in(app: App, cookie: str, answer: dict[str, Any], agent: str) -> tuple[SignIn | None, str]:
    try:
        claim = ceremonies.shown(answer)
    except Refused:
        return None, "malformed"
    found = await app.db.read(lambda tx: passkeys.by_credential(tx, claim.credential))
    if found is None:
        return None, "unknown"
    count, wrong = _proven(app, claim, found)
    session_cookie = secrets.token()

    def begin(tx: Tx) -> tuple[SignIn | None, str]:
        passkey = passkeys.by_credential(tx, claim.credential)
        result = _why_not(tx, cookie, claim, passkey, wrong)
        if result or passkey is None:
            about = {"passkey": found.id, "reason": result} | ({"detail": wrong} if wrong else {})
            tx.emit(Event("passkey.refused", SYSTEM, found.user, about))
            return None, result
        challenges.spend(tx, claim.challenge)
        if (count or passkey.count) and count <= passkey.count:
            _block(app, tx, passkey)
            return None, "copied"
        passkeys.update(tx, passkey.id, count=count, last_used=tx.now)
        return sessions.start(tx, session_cookie, passkey.user, app.config.domain, "", agent, passkey.id), "ok"

    return await app.db.write(begin)


async def rename(app: App, permit: Permit, which: str, name: str) -> Passkey:
    """Give a passkey another name. Raises UNKNOWN or NAME_TAKEN."""

    def change(tx: Tx) -> Passkey:
        known = passkeys.of_user(tx, permit.actor)
        passkey = _pick(known, which)
        if any(k.name == name and k.id != passkey.id for k in known):
            raise NAME_TAKEN(name=name)
        passkeys.update(tx, passkey.id, name=name)
        tx.emit(Event("passkey.renamed", permit.actor, permit.actor, {"passkey": passkey.id, "name": name}))
        return replace(passkey, name=name)

    return await app.db.write(change)


async def remove(app: App, permit: Permit, which: str) -> tuple[Passkey, int]:
    """Forget a passkey and end the sessions that began with it; how many ended. Raises UNKNOWN."""

    def drop(tx: Tx) -> tuple[Passkey, int]:
        passkey = _pick(passkeys.of_user(tx, permit.actor), which)
        passkeys.delete(tx, passkey.id)
        tx.emit(Event("passkey.removed", permit.actor, permit.actor, {"passkey": passkey.id, "name": passkey.name}))
        return passkey, sessions.end_of_passkey(tx, passkey.id, permit.actor)

    return await app.db.write(drop)


def _proven(app: App, claim: ceremonies.Shown, passkey: Passkey) -> tuple[int, str]:
    try:
        return ceremonies.prove(Place.of(app.config), claim, passkey.public_key), ""
    except Refused as why:
        return 0, str(why)[:200]


def _why_not(tx: Tx, cookie: str, claim: ceremonies.Shown, passkey: Passkey | None, wrong: str) -> str:
    if passkey is None:
        return "removed"
    if wrong:
        return "unproven"
    if passkey.blocked:
        return "blocked"
    if claim.handle != passkey.handle:
        return "other_account"
    return "" if challenges.holds(tx, claim.challenge, _signing_in(cookie)) else "challenge"


def _block(app: App, tx: Tx, passkey: Passkey) -> None:
    # Nobody can tell which of the two that count is the copy, so neither may go on.
    passkeys.update(tx, passkey.id, blocked=True)
    tx.emit(Event("passkey.copied", SYSTEM, passkey.user, {"passkey": passkey.id, "name": passkey.name}))
    sessions.end_of_passkey(tx, passkey.id, SYSTEM)
    _tell(app, tx, passkey.user, f"The passkey {passkey.name} at {app.config.domain} counted backwards, as a copy of "
          "one does. It signs nobody in any more, and the browsers that it signed in are signed out.")


def _tell(app: App, tx: Tx, user: str, sentence: str) -> None:
    account = store.user_by(tx, "id", user)
    if account is None or not account.email:
        return
    home = app.config.host_url(app.config.domain)
    body = f"{sentence}\n\nYour passkeys: {home}passkeys\nIf this was not you, remove it there and sign out " \
           f"everywhere: {app.config.ssh_command()} logout --all\n"
    mail.post(tx, account.email, f"Your passkeys at {app.config.domain}", body)


def _pick(known: list[Passkey], which: str) -> Passkey:
    for passkey in known:
        if which in (passkey.name, passkey.id):
            return passkey
    raise UNKNOWN(name=which[:80])


def _free_name(known: list[Passkey], wish: str) -> str:
    taken = {k.name for k in known}
    if wish:
        if wish in taken:
            raise NAME_TAKEN(name=wish)
        return wish
    return next(name for number in range(1, MAX_PASSKEYS + 2) if (name := f"passkey-{number}") not in taken)


def _adding(session: Session, handle: bytes) -> str:
    return f"add:{session.digest}:{handle.hex()}"


def _signing_in(cookie: str) -> str:
    return f"sign-in:{secrets.digest(cookie)}"
