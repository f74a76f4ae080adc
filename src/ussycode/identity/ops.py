"""Registering, recognising keys, and signing browsers in."""
from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from ussycode.access.decide import Permit
from ussycode.access.facts import Caller, Role, Via
from ussycode.base import names, secrets
from ussycode.base.db import Tx
from ussycode.base.errors import ErrorCode, Kind
from ussycode.base.events import SYSTEM, Event
from ussycode.identity import store
from ussycode.identity.keys import PublicKey
from ussycode.identity.model import Session, SshKey, User
from ussycode.ports import App

HANDLE_TAKEN = ErrorCode("handle.taken", Kind.CONFLICT, "{handle} is taken", hint="try another handle")
REGISTRATION_CLOSED = ErrorCode(
    "registration.closed", Kind.FORBIDDEN, "this key is not registered here and registration is closed",
    hint="ask the operator to let you in; your key is {fingerprint}",
)
KEY_TAKEN = ErrorCode(
    "key.taken", Kind.CONFLICT, "that key is already registered", hint="ssh-key list shows yours; use another key"
)
KEY_NAME_TAKEN = ErrorCode(
    "key.name_taken", Kind.CONFLICT, "you already have a key named {name}", hint="ssh-key rename {name} NEW-NAME"
)
NO_SUCH_KEY = ErrorCode("key.unknown", Kind.NOT_FOUND, "you have no key {key}", hint="ssh-key list shows your keys")
LAST_KEY = ErrorCode(
    "key.last", Kind.CONFLICT, "that is your only key: without it you could never come back",
    hint="add another with ssh-key add first",
)
KEY_ALONE = ErrorCode(
    "key.alone", Kind.CONFLICT, "no other key of yours would reach everything", hint="add one first: ssh-key add"
)
TOO_MANY_KEYS = ErrorCode("key.too_many", Kind.CONFLICT, "an account has at most {limit} keys", hint="remove one first")
MAX_KEYS = 100
"""SSH keys of one account."""

def caller_of(user: User, via: Via, key: str = "", commands: frozenset[str] | None = None) -> Caller:
    """`user` as somebody who asks."""
    return Caller(user.id, user.handle, user.role, via, key, commands, user.email)


async def recognise(app: App, key: str) -> tuple[Caller, User] | None:
    """Who owns the key with this fingerprint; None for a stranger."""

    def find(tx: Tx) -> tuple[Caller, User] | None:
        return who(tx, key, Via.SSH_KEY)

    return await app.db.read(find)


def who(tx: Tx, key: str, via: Via) -> tuple[Caller, User] | None:
    """Caller and account behind a registered fingerprint."""
    found = store.key_by_fingerprint(tx, key)
    user = None if found is None else store.user_by(tx, "id", found.user)
    if found is None or user is None:
        return None
    return replace(caller_of(user, via, key), tag=found.tag), user


async def may_register(app: App, key: str) -> Role | None:
    """Role that a stranger with this fingerprint would get; None when registration is closed to them."""
    role = await app.db.read(lambda tx: store.approved_role(tx, key))
    if role is not None:
        return role
    return Role.NEWBIE if app.config.registration == "open" else None


async def register(app: App, key: PublicKey, handle: str, login_name: str, chosen: bool = True) -> User:
    """Make an account with its first key. `chosen` is false when a script's login name stands in for a handle.

    Raises REGISTRATION_CLOSED, HANDLE_TAKEN or KEY_TAKEN; nothing is left behind then.
    """
    role = await may_register(app, key.fingerprint)
    if role is None:
        raise REGISTRATION_CLOSED(fingerprint=key.fingerprint)

    def make(tx: Tx) -> User:
        if store.user_by(tx, "handle", handle) is not None:
            raise HANDLE_TAKEN(handle=handle)
        if store.key_by_fingerprint(tx, key.fingerprint) is not None:
            raise KEY_TAKEN()
        user = store.insert_user(tx, handle, role, login_name, chosen)
        store.insert_key(tx, user.id, key.fingerprint, key.line, key.comment or "first key")
        tx.emit(Event("user.registered", user.id, user.id, {"handle": handle, "role": role.value}))
        return user

    return await app.db.write(make)


async def choose_handle(app: App, user: str, handle: str) -> User:
    """Replace a stand-in handle by the one its owner picked. Raises HANDLE_TAKEN."""

    def change(tx: Tx) -> User:
        other = store.user_by(tx, "handle", handle)
        if other is not None and other.id != user:
            raise HANDLE_TAKEN(handle=handle)
        store.update_user(tx, user, handle=handle, handle_chosen=True)
        tx.emit(Event("user.renamed", user, user, {"handle": handle}))
        found = store.user_by(tx, "id", user)
        assert found is not None
        return found

    return await app.db.write(change)


async def free_handle(app: App, wish: str) -> str:
    """A handle close to `wish` that is free, for accounts made by a script before a person picked one."""
    try:
        base = names.handle(wish)
    except ValueError:
        base = "owner"

    def pick(tx: Tx) -> str:
        taken = {u.handle for u in store.all_users(tx)}
        return next(h for h in (base, *(f"{base[:15]}-{n}" for n in range(2, 10_000))) if h not in taken)

    return await app.db.read(pick)


async def approve_admins(app: App, keys: Sequence[PublicKey]) -> None:
    """Let exactly these keys register as admin, but for those that an owner has removed since."""

    def approve(tx: Tx) -> None:
        removed = store.removed_keys(tx)
        store.replace_approved(tx, [k.fingerprint for k in keys if k.fingerprint not in removed], Role.ADMIN)

    await app.db.write(approve)


async def list_keys(app: App, permit: Permit) -> list[SshKey]:
    """The caller's keys, oldest first."""
    kept = await app.db.read(lambda tx: store.keys_of(tx, permit.actor))
    return [replace(k, last_used=app.uses.latest(f"key:{k.fingerprint}", k.last_used)) for k in kept]


async def add_key(app: App, permit: Permit, key: PublicKey, name: str, tag: str = "") -> SshKey:
    """Register another key, for VMs with `tag` only unless that is empty.

    Raises KEY_TAKEN, KEY_NAME_TAKEN or TOO_MANY_KEYS.
    """

    def add(tx: Tx) -> SshKey:
        mine = store.keys_of(tx, permit.actor)
        if len(mine) >= MAX_KEYS:
            raise TOO_MANY_KEYS(limit=MAX_KEYS)
        # An approved key waits for its owner; nobody else may put it on their account.
        reserved = store.approved_role(tx, key.fingerprint) is not None and permit.caller.role is not Role.ADMIN
        if reserved or store.key_by_fingerprint(tx, key.fingerprint) is not None:
            raise KEY_TAKEN()
        if any(k.name == name for k in mine):
            raise KEY_NAME_TAKEN(name=name)
        made = store.insert_key(tx, permit.actor, key.fingerprint, key.line, name, tag)
        told = {"fingerprint": key.fingerprint, "name": name} | ({"tag": tag} if tag else {})
        tx.emit(Event("key.added", permit.actor, permit.actor, told))
        return made

    return await app.db.write(add)


async def remove_key(app: App, permit: Permit, which: str) -> SshKey:
    """Forget a key by name, fingerprint or public key, and end every browser sign-in of the account.

    Whoever stole the key may have signed a browser in with it. Raises NO_SUCH_KEY, LAST_KEY or KEY_ALONE.
    """

    def remove(tx: Tx) -> SshKey:
        mine = store.keys_of(tx, permit.actor)
        key = _pick(mine, which)
        if len(mine) == 1:
            raise LAST_KEY()
        if not key.tag and not any(k.id != key.id and not k.tag for k in mine):
            raise KEY_ALONE()
        store.delete_key(tx, key.id)
        store.disapprove(tx, key.fingerprint)
        for digest in store.delete_sign_ins(tx, permit.actor):
            tx.emit(Event("session.ended", permit.actor, digest, {}))
        tx.emit(Event("key.removed", permit.actor, permit.actor, {"fingerprint": key.fingerprint, "name": key.name}))
        return key

    return await app.db.write(remove)


async def rename_key(app: App, permit: Permit, which: str, name: str) -> SshKey:
    """Give a key another name. Raises NO_SUCH_KEY or KEY_NAME_TAKEN."""

    def rename(tx: Tx) -> SshKey:
        mine = store.keys_of(tx, permit.actor)
        key = _pick(mine, which)
        if any(k.name == name and k.id != key.id for k in mine):
            raise KEY_NAME_TAKEN(name=name)
        store.rename_key(tx, key.id, name)
        tx.emit(Event("key.renamed", permit.actor, permit.actor, {"fingerprint": key.fingerprint, "name": name}))
        return key

    return await app.db.write(rename)


async def tag_key(app: App, permit: Permit, which: str, tag: str) -> SshKey:
    """Let a key reach only VMs with `tag`, or everything with an empty one. Raises NO_SUCH_KEY or KEY_ALONE."""

    def change(tx: Tx) -> SshKey:
        mine = store.keys_of(tx, permit.actor)
        key = _pick(mine, which)
        if tag and not any(k.id != key.id and not k.tag for k in mine):
            raise KEY_ALONE()
        store.tag_key(tx, key.id, tag)
        tx.emit(Event("key.tagged", permit.actor, permit.actor, {"fingerprint": key.fingerprint, "tag": tag}))
        return replace(key, tag=tag)

    return await app.db.write(change)


def _pick(keys: Sequence[SshKey], which: str) -> SshKey:
    line = " ".join(which.split()[:2])
    for key in keys:
        if which in (key.name, key.fingerprint, key.id) or line == key.public_key:
            return key
    raise NO_SUCH_KEY(key=which[:80])


async def session_of(app: App, cookie: str, host: str) -> tuple[Session, User] | None:
    """The session behind a cookie on exactly this host, with its account."""

    def find(tx: Tx) -> tuple[Session, User] | None:
        session = store.session(tx, secrets.digest(cookie))
        if session is None or session.host != host:
            return None
        user = store.user_by(tx, "id", session.user)
        if user is not None:
            app.uses.note(f"session:{session.digest}")
        return None if user is None else (session, user)

    return await app.db.read(find)


async def sign_out(app: App, cookie: str) -> None:
    """End the sign-in behind a cookie on every host it was carried to. Idempotent."""

    def end(tx: Tx) -> None:
        for digest in store.delete_sessions(tx, secrets.digest(cookie)):
            tx.emit(Event("session.ended", SYSTEM, digest, {}))

    await app.db.write(end)
