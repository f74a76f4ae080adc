"""Browser sessions: one kind, kept as digests, with an end of their own and one for who stays away."""
from __future__ import annotations

from dataclasses import dataclass

from ussycode.access.decide import Permit
from ussycode.base import secrets
from ussycode.base.db import Tx
from ussycode.base.errors import ErrorCode, Kind, printable
from ussycode.base.events import SYSTEM, Event
from ussycode.identity import store
from ussycode.identity.model import Session
from ussycode.ports import App

MAX_SESSIONS = 200
"""Browser sessions of one account over all hosts; past that the oldest ends."""
SESSION_SECONDS = 30 * 86_400
"""Life of a browser session, whatever is done with it."""
IDLE_SECONDS = 14 * 86_400
"""Life of a session that nobody uses."""
MAX_AGENT = 120
"""Characters of a browser's own name that are kept."""
NO_SESSION = ErrorCode(
    "session.unknown", Kind.NOT_FOUND, "you have no browser session {session}", hint="browser --list shows yours"
)


@dataclass(frozen=True)
class SignIn:
    """A fresh session: the cookie's value, where it belongs and until when (unix seconds)."""

    cookie: str
    host: str
    expires: float


def start(tx: Tx, cookie: str, user: str, host: str, parent: str, agent: str, passkey: str = "") -> SignIn:
    """Begin a session. `parent` is the digest of the sign-in it comes from, `agent` the browser's own name.

    `passkey` is the id of the one it began with; the session ends with it.
    """
    expires, known_as = tx.now + SESSION_SECONDS, printable(agent, MAX_AGENT)
    made = Session(secrets.digest(cookie), user, host, parent, tx.now, expires, known_as, tx.now, passkey)
    for gone in store.trim_sessions(tx, user, MAX_SESSIONS - 1):
        tx.emit(Event("session.ended", SYSTEM, gone, {}))
    store.insert_session(tx, made)
    tx.emit(Event("session.started", user, made.digest, {"host": host} | ({"passkey": passkey} if passkey else {})))
    return SignIn(cookie, host, expires)


async def mine(app: App, permit: Permit) -> list[Session]:
    """The caller's sign-ins on the base domain, newest first; what they were carried to ends with them."""
    return await app.db.read(lambda tx: store.sign_ins_of(tx, permit.actor))


async def revoke(app: App, permit: Permit, which: str) -> Session:
    """End one sign-in, on every host it was carried to. Raises NO_SESSION."""

    def end(tx: Tx) -> Session:
        found = [s for s in store.sign_ins_of(tx, permit.actor) if s.name == which]
        if not found:
            raise NO_SESSION(session=which[:40])
        _end(tx, store.delete_sessions(tx, found[0].digest), permit.actor)
        return found[0]

    return await app.db.write(end)


async def sign_out_all(app: App, permit: Permit) -> int:
    """End every browser session of the caller; how many sessions ended."""

    def end(tx: Tx) -> int:
        gone = store.delete_sign_ins(tx, permit.actor)
        _end(tx, gone, permit.actor)
        return len(gone)

    return await app.db.write(end)


async def end_idle(app: App) -> int:
    """End what nobody used for IDLE_SECONDS; how many sessions ended."""

    def end(tx: Tx) -> int:
        gone = store.delete_idle_sessions(tx, tx.now - IDLE_SECONDS)
        _end(tx, gone, SYSTEM)
        return len(gone)

    return await app.db.write(end)


def end_of_passkey(tx: Tx, passkey: str, actor: str) -> int:
    """End what began with a passkey, on every host it was carried to; how many sign-ins that were."""
    begun = store.sessions_of_passkey(tx, passkey)
    for digest in begun:
        _end(tx, store.delete_sessions(tx, digest), actor)
    return len(begun)


def _end(tx: Tx, digests: list[str], actor: str) -> None:
    for digest in digests:
        tx.emit(Event("session.ended", actor, digest, {}))
