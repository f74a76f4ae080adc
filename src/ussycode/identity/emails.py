"""Use cases of e-mail: proving an address, and signing in with one."""
from __future__ import annotations

import hmac
import secrets as chance
from dataclasses import dataclass

from ussycode.access.decide import Permit
from ussycode.access.facts import Role
from ussycode.base import ids, names, secrets
from ussycode.base.db import Tx
from ussycode.base.errors import ErrorCode, Kind
from ussycode.base.events import SYSTEM, Event
from ussycode.identity import addresses, sessions, store
from ussycode.identity.addresses import Address, MailCode
from ussycode.identity.sessions import SignIn
from ussycode.mail import store as mail
from ussycode.mail.relay import ADDRESS
from ussycode.ports import App

CODE_SECONDS = 900
"""Life of a mailed code."""
ATTEMPTS = 5
"""Guesses at one code."""
CODES_PER_HOUR = 5
"""Codes mailed to one address, and for one account, in an hour: at most 25 guesses at a million."""
MAX_ADDRESSES = 5
MAX_ADDRESS = 254
"""Characters of an address."""
BAD_ADDRESS = ErrorCode("email.bad", Kind.USAGE, "{address} is not an e-mail address", hint="write name@example.org")
CODE_WRONG = ErrorCode(
    "email.code_wrong", Kind.UNAUTHENTICATED, "that code is wrong, used up or too old", hint="ask for another one"
)
TOO_MANY_CODES = ErrorCode("email.too_many_codes", Kind.TOO_MANY, "too many codes were mailed", hint="wait an hour")
TOO_MANY = ErrorCode(
    "email.too_many", Kind.CONFLICT, "an account has at most {limit} addresses", hint="remove one first"
)
NO_ADDRESS = ErrorCode("email.unknown", Kind.NOT_FOUND, "you have no address {address}", hint="email ls shows yours")
NOT_VERIFIED = ErrorCode(
    "email.not_verified", Kind.CONFLICT, "{address} is not verified yet", hint="email verify {address} CODE"
)


@dataclass(frozen=True)
class Pending:
    """A code is on its way, or looks as if: who asks learns nothing about whose address it is."""

    id: str
    address: str


def read_address(text: str) -> str:
    """The one spelling under which an address is kept. Raises BAD_ADDRESS."""
    address = text.strip().lower()
    if len(address) > MAX_ADDRESS or not ADDRESS.fullmatch(address) or ".." in address:
        raise BAD_ADDRESS(address=text[:80])
    return address


async def mine(app: App, permit: Permit) -> tuple[list[Address], str]:
    """The caller's addresses, and which of them apps are told."""

    def find(tx: Tx) -> tuple[list[Address], str]:
        user = store.user_by(tx, "id", permit.actor)
        return addresses.of_user(tx, permit.actor), user.email if user else ""

    return await app.db.read(find)


async def add(app: App, permit: Permit, text: str) -> Pending:
    """Put an address on the account and mail a code to it. Raises BAD_ADDRESS, TOO_MANY or TOO_MANY_CODES."""
    address = read_address(text)

    def begin(tx: Tx) -> Pending:
        known = {a.address for a in addresses.of_user(tx, permit.actor)}
        if address not in known and len(known) >= MAX_ADDRESSES:
            raise TOO_MANY(limit=MAX_ADDRESSES)
        addresses.add(tx, address, permit.actor)
        tx.emit(Event("email.added", permit.actor, permit.actor, {"address": address}))
        purpose = f"verify this address for your account at {_place(app, '')}"
        return _mail_code(app, tx, address, permit.actor, "", purpose)

    return await app.db.write(begin)


async def verify(app: App, permit: Permit, text: str, code: str) -> str:
    """Prove an address with the code that was mailed to it; the address. Raises CODE_WRONG."""
    address = read_address(text)

    def prove(tx: Tx) -> str | None:
        pending = [c for c in addresses.codes_for(tx, address) if c.user == permit.actor]
        if not any([_matches(tx, c, code) for c in pending]) or _taken(tx, address, permit.actor):
            return None
        _proven(tx, address, permit.actor)
        return address

    found = await app.db.write(prove)
    if found is None:
        raise CODE_WRONG()
    return found


async def verify_link(app: App, token: str) -> str:
    """Prove an address with the link of the mail; the address. Raises CODE_WRONG."""

    def prove(tx: Tx) -> str | None:
        found = addresses.code_by(tx, "link", secrets.digest(token))
        if found is None or not found.user or _taken(tx, found.address, found.user):
            return None
        addresses.spend(tx, found.id)
        _proven(tx, found.address, found.user)
        return found.address

    address = await app.db.write(prove)
    if address is None:
        raise CODE_WRONG()
    return address


async def remove(app: App, permit: Permit, text: str) -> str:
    """Take an address off the account; apps are told the next proven one, if any. Raises NO_ADDRESS."""
    address = read_address(text)

    def drop(tx: Tx) -> str:
        if address not in {a.address for a in addresses.of_user(tx, permit.actor)}:
            raise NO_ADDRESS(address=address)
        addresses.remove(tx, address, permit.actor)
        _settle_primary(tx, permit.actor)
        tx.emit(Event("email.removed", permit.actor, permit.actor, {"address": address}))
        return address

    return await app.db.write(drop)


async def choose(app: App, permit: Permit, text: str) -> str:
    """Make a proven address the one that apps are told. Raises NO_ADDRESS or NOT_VERIFIED."""
    address = read_address(text)

    def pick(tx: Tx) -> str:
        found = {a.address: a for a in addresses.of_user(tx, permit.actor)}.get(address)
        if found is None:
            raise NO_ADDRESS(address=address)
        if not found.verified_at:
            raise NOT_VERIFIED(address=address)
        store.update_user(tx, permit.actor, email=address)
        tx.emit(Event("user.email", permit.actor, permit.actor, {"address": address}))
        return address

    return await app.db.write(pick)


async def begin_sign_in(app: App, text: str, goal: str, host: str) -> Pending:
    """Mail a code that signs in, when the address may; the answer is the same when it may not.

    `goal` is where the browser wants to go, `host` the machine it opens, named in the mail. Raises BAD_ADDRESS.
    """
    address = read_address(text)

    def begin(tx: Tx) -> Pending:
        allowed = addresses.owner_of(tx, address) is not None or _joins_as(app, tx, address) is not None
        if not allowed or _too_many(tx, address, ""):
            return Pending(ids.new("code"), address)
        tx.emit(Event("sign_in.mailed", SYSTEM, address, {"host": host}))
        return _mail_code(app, tx, address, "", goal, f"sign in at {_place(app, host)}")

    return await app.db.write(begin)


async def finish_sign_in(app: App, pending: str, code: str, agent: str) -> tuple[SignIn, str]:
    """The session that a mailed code buys, and where the browser wanted to go. Raises CODE_WRONG.

    An address that nobody has proven before makes a new account, without an SSH key.
    """
    cookie = secrets.token()

    def finish(tx: Tx) -> tuple[SignIn, str] | None:
        found = addresses.code_by(tx, "id", pending)
        if found is None or found.user or not _matches(tx, found, code):
            tx.emit(Event("sign_in.refused", SYSTEM, pending[:40], {}))
            return None
        user = addresses.owner_of(tx, found.address) or _join(app, tx, found.address)
        _proven(tx, found.address, user)
        return sessions.start(tx, cookie, user, app.config.domain, "", agent), found.goal

    made = await app.db.write(finish)
    app.telemetry.sign_in("mail", "ok" if made else "refused")
    if made is None:
        raise CODE_WRONG()
    return made


async def peek_sign_in(app: App, token: str) -> str:
    """The address that a mailed link would sign in; it stays usable. Raises CODE_WRONG."""
    found = await app.db.read(lambda tx: addresses.code_by(tx, "link", secrets.digest(token)))
    if found is None:
        raise CODE_WRONG()
    return found.address


async def sign_in_by_link(app: App, token: str, agent: str) -> tuple[SignIn, str]:
    """Like `finish_sign_in`, with the link of the mail. Raises CODE_WRONG."""
    cookie = secrets.token()

    def finish(tx: Tx) -> tuple[SignIn, str] | None:
        found = addresses.code_by(tx, "link", secrets.digest(token))
        if found is None or found.user:
            return None
        addresses.spend(tx, found.id)
        user = addresses.owner_of(tx, found.address) or _join(app, tx, found.address)
        _proven(tx, found.address, user)
        return sessions.start(tx, cookie, user, app.config.domain, "", agent), found.goal

    made = await app.db.write(finish)
    app.telemetry.sign_in("mail", "ok" if made else "refused")
    if made is None:
        raise CODE_WRONG()
    return made


async def invite(app: App, permit: Permit, text: str) -> str:
    """Let an address make an account and tell it so. Raises BAD_ADDRESS."""
    address = read_address(text)

    def write(tx: Tx) -> str:
        addresses.invite(tx, address, permit.actor)
        _raise_guest(tx, address, permit.actor)
        body = f"You are invited to {_place(app, '')}.\n\nSign in with this address:\n{_home(app)}login\n"
        mail.post(tx, address, f"An invitation to {app.config.domain}", body)
        tx.emit(Event("user.invited", permit.actor, address, {}))
        return address

    return await app.db.write(write)


def _raise_guest(tx: Tx, address: str, by: str) -> None:
    """Somebody who came for what is shared with them may have VMs from now on."""
    user = addresses.owner_of(tx, address)
    account = store.user_by(tx, "id", user) if user else None
    if account is not None and account.role is Role.GUEST:
        store.update_user(tx, account.id, role=Role.NEWBIE.value)
        tx.emit(Event("user.role", by, account.id, {"role": Role.NEWBIE.value}))


def _mail_code(app: App, tx: Tx, address: str, user: str, goal: str, purpose: str) -> Pending:
    if _too_many(tx, address, user):
        raise TOO_MANY_CODES()
    code, link, name = f"{chance.randbelow(1_000_000):06d}", secrets.token(), ids.new("code")
    addresses.insert_code(tx, MailCode(
        name, address, user, _digest(name, code), secrets.digest(link), goal, 0, tx.now, tx.now + CODE_SECONDS
    ))
    where = f"{_home(app)}{'email' if user else 'login/mail'}/{link}"
    body = (
        f"To {purpose}, enter this code:\n\n    {code}\n\nor open this address:\n\n{where}\n\n"
        f"Both work once, within {CODE_SECONDS // 60} minutes. If you did not ask for this, do nothing.\n"
    )
    mail.post(tx, address, f"{code} is your code for {app.config.domain}", body)
    return Pending(name, address)


def _too_many(tx: Tx, address: str, user: str) -> bool:
    since = tx.now - 3600
    if addresses.codes_since(tx, "address", address, since) >= CODES_PER_HOUR:
        return True
    return bool(user) and addresses.codes_since(tx, "user", user, since) >= CODES_PER_HOUR


def _matches(tx: Tx, found: MailCode, code: str) -> bool:
    if found.attempts >= ATTEMPTS:
        return False
    if not hmac.compare_digest(found.code, _digest(found.id, code.strip())):
        addresses.note_attempt(tx, found.id)
        return False
    addresses.spend(tx, found.id)
    return True


def _digest(name: str, code: str) -> str:
    return secrets.digest(f"{name}:{code}")


def _taken(tx: Tx, address: str, user: str) -> bool:
    """Another account has proven it: it must give the address up first."""
    return addresses.owner_of(tx, address) not in (None, user)


def _proven(tx: Tx, address: str, user: str) -> None:
    if addresses.owner_of(tx, address) == user:
        return
    addresses.verify(tx, address, user)
    tx.emit(Event("email.verified", user, user, {"address": address}))
    _settle_primary(tx, user)


def _settle_primary(tx: Tx, user: str) -> None:
    account = store.user_by(tx, "id", user)
    proven = [a.address for a in addresses.of_user(tx, user) if a.verified_at]
    if account is None or account.email in proven:
        return
    chosen = proven[0] if proven else ""
    if chosen != account.email:
        store.update_user(tx, user, email=chosen)
        tx.emit(Event("user.email", user, user, {"address": chosen}))


def _joins_as(app: App, tx: Tx, address: str) -> Role | None:
    """The role of an account that somebody with this address may make; None when they may not."""
    if app.config.registration == "open":
        return Role.NEWBIE
    return addresses.invited_as(tx, address) if app.config.registration == "invite" else None


def _join(app: App, tx: Tx, address: str) -> str:
    role = _joins_as(app, tx, address)
    if role is None:
        raise CODE_WRONG()
    made = store.insert_user(tx, _free_handle(tx, address), role, "", chosen=False)
    told = {"handle": made.handle, "address": address, "role": role.value}
    tx.emit(Event("user.registered", made.id, made.id, told))
    return made.id


def _free_handle(tx: Tx, address: str) -> str:
    wish = "".join(c for c in address.partition("@")[0] if c.isalnum() or c == "-").strip("-")[:20] or "guest"
    for number in range(1, 10_000):
        handle = wish if number == 1 else f"{wish}{number}"
        usable = names.HANDLE.fullmatch(handle) is not None and handle not in names.RESERVED
        if usable and store.user_by(tx, "handle", handle) is None:
            return handle
    return ids.new("u")


def _place(app: App, host: str) -> str:
    return host or app.config.domain


def _home(app: App) -> str:
    return app.config.host_url(app.config.domain)
