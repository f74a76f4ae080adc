"""Use cases of tokens: making handles, listing and revoking."""
from __future__ import annotations

import json
from collections.abc import Collection
from dataclasses import dataclass, replace

from ussycode.access.decide import Permit
from ussycode.access.facts import Caller, Via
from ussycode.base import ids, secrets
from ussycode.base.db import Tx
from ussycode.base.errors import ErrorCode, Kind
from ussycode.base.events import Event
from ussycode.identity import store as accounts
from ussycode.ports import App
from ussycode.tokens import refusals, signed, store
from ussycode.tokens.model import Handle
from ussycode.tokens.payload import DEFAULT_COMMANDS, LATEST, MAX_COMMANDS
from ussycode.tokens.verify import Place, TokenVerifier

MAX_HANDLES = 100
"""Token handles of one account."""
LABEL_TAKEN = ErrorCode(
    "token.label_taken", Kind.CONFLICT, "you already have a token labelled {label}",
    hint="pick another label, or remove it: ssh-key remove {label}",
)
TOO_MANY = ErrorCode("token.too_many", Kind.CONFLICT, "an account has at most {limit} tokens", hint="remove one first")
WIDER = ErrorCode(
    "token.wider", Kind.FORBIDDEN, "a token cannot make one that may do more: {what}",
    hint="make it over SSH, or leave that out",
)
NOT_YOURS = ErrorCode("token.not_yours", Kind.FORBIDDEN, "that token was signed with somebody else's key")
TOO_MANY_COMMANDS = ErrorCode("token.too_many_commands", Kind.USAGE, "a token lists at most {limit} commands")


@dataclass(frozen=True)
class Wish:
    """What a new token should be. `expires` in unix seconds, None for never; `vm` an id, empty for the API."""

    label: str | None = None
    vm: str = ""
    commands: frozenset[str] | None = None
    expires: int | None = None
    tag: str = ""


async def generate(app: App, permit: Permit, wish: Wish) -> tuple[str, Handle]:
    """A new opaque token and what is kept of it. Raises LABEL_TAKEN, TOO_MANY or WIDER.

    It lives as long as the SSH key that asked for it: whoever lost a key ends everything made with it.
    """
    caller = permit.caller
    commands = DEFAULT_COMMANDS if wish.commands is None else wish.commands
    _require_narrower(caller, wish, commands)
    said: dict[str, object] = {"cmds": sorted(commands)} | ({"exp": wish.expires} if wish.expires is not None else {})
    return await _keep(app, permit, wish, json.dumps(said, separators=(",", ":")), caller.key)


async def convert(app: App, permit: Permit, tokens: TokenVerifier, token: str, place: Place) -> tuple[str, Handle]:
    """A short handle for a signed token; it means the same and ends with the same key.

    Raises what is wrong with the token, NOT_YOURS, LABEL_TAKEN or TOO_MANY.
    """
    found = await tokens.check(token, place)
    if found.caller.user != permit.actor:
        raise NOT_YOURS()
    wish = Wish(None, place.vm, None, found.payload.exp, found.caller.tag)
    _require_narrower(permit.caller, wish, found.payload.commands)
    if not token.startswith(tuple(f"{p}." for p in signed.PREFIXES)):
        raise refusals.MALFORMED()
    raw, _ = signed.parts(token)
    return await _keep(app, permit, wish, raw.decode(), found.caller.key)


async def mine(app: App, permit: Permit) -> tuple[list[Handle], int]:
    """The caller's handles, and how many signed tokens they have revoked that would still hold."""
    kept, revoked = await app.db.read(
        lambda tx: (store.of_user(tx, permit.actor), store.count_revoked(tx, permit.actor))
    )
    return [replace(h, last_used=app.uses.latest(f"handle:{h.id}", h.last_used)) for h in kept], revoked


async def revoke(app: App, permit: Permit, which: str) -> Handle | None:
    """End the handle with this label, fingerprint or text; None when there is none. In force with the return."""

    def end(tx: Tx) -> Handle | None:
        digest = signed.digest(which)
        mine = store.of_user(tx, permit.actor)
        found = [h for h in mine if which in (h.label, h.fingerprint, h.id) or digest == h.digest]
        if not found:
            return None
        store.delete(tx, found[0].id)
        told = {"label": found[0].label, "token": found[0].fingerprint}
        tx.emit(Event("token.revoked", permit.actor, permit.actor, told))
        return found[0]

    return await app.db.write(end)


async def revoke_signed(app: App, permit: Permit, tokens: TokenVerifier, token: str, place: Place) -> None:
    """Refuse a signed token of the caller from now on. Raises what is wrong with it, or NOT_YOURS."""
    found = await tokens.check(token, place)
    if found.caller.user != permit.actor:
        raise NOT_YOURS()

    said = signed.statement(signed.parts(token)[0], found.caller.key, place.namespace)

    def end(tx: Tx) -> None:
        store.revoke(tx, said, permit.actor, found.payload.exp or LATEST)
        tx.emit(Event("token.revoked", permit.actor, permit.actor, {"key": found.caller.key}))

    await app.db.write(end)


_NOTE = {"key": accounts.key_used, "handle": store.used, "session": accounts.session_used}
"""Who keeps the last use of what."""


async def write_uses(app: App) -> None:
    """Keep when keys and tokens were used last."""
    seen = app.uses.take()
    if not seen:
        return

    def write(tx: Tx) -> None:
        for subject, at in seen.items():
            kind, _, name = subject.partition(":")
            _NOTE[kind](tx, name, at)

    await app.db.write(write)


async def _keep(app: App, permit: Permit, wish: Wish, payload: str, key: str) -> tuple[str, Handle]:
    token = f"usy1.{secrets.token()}"

    def keep(tx: Tx) -> Handle:
        known = store.of_user(tx, permit.actor)
        if len(known) >= MAX_HANDLES:
            raise TOO_MANY(limit=MAX_HANDLES)
        label = _label(wish.label, {h.label for h in known})
        made = Handle(
            ids.new("tok"), permit.actor, signed.digest(token), label, wish.vm, payload, key, wish.tag, tx.now, 0
        )
        store.insert(tx, made)
        told = {"label": label, "token": made.fingerprint} | ({"vm": wish.vm} if wish.vm else {})
        tx.emit(Event("token.made", permit.actor, permit.actor, told))
        return made

    return token, await app.db.write(keep)


def _label(wish: str | None, taken: Collection[str]) -> str:
    if wish is None:
        return next(name for n in range(1, MAX_HANDLES + 2) if (name := f"token-{n}") not in taken)
    if wish in taken:
        raise LABEL_TAKEN(label=wish)
    return wish


def _require_narrower(caller: Caller, wish: Wish, commands: frozenset[str]) -> None:
    if len(commands) > MAX_COMMANDS:
        raise TOO_MANY_COMMANDS(limit=MAX_COMMANDS)
    if caller.tag and wish.tag != caller.tag:
        raise WIDER(what=f"it would reach VMs without the tag {caller.tag}")
    if caller.via is not Via.TOKEN or caller.commands is None:
        return
    if not wish.vm and (more := sorted(commands - caller.commands)):
        raise WIDER(what=f"it would run {more[0]}")
    if caller.expires is not None and (wish.expires is None or wish.expires > caller.expires):
        raise WIDER(what="it would live longer")
