"""One-time codes in links: from a terminal to a browser, and from the base domain to a VM's host."""
from __future__ import annotations

from ussycode.access.decide import Permit
from ussycode.base import secrets
from ussycode.base.db import Tx
from ussycode.base.errors import ErrorCode, Kind
from ussycode.base.events import SYSTEM, Event
from ussycode.identity import sessions, store
from ussycode.identity.model import Link, Session, User
from ussycode.identity.sessions import SignIn
from ussycode.ports import App

LINK_SECONDS = 300
"""Life of a sign-in link."""
HANDOFF_SECONDS = 60
"""Life of the code that carries a sign-in from the base domain to a VM's host."""
LINK_USED = ErrorCode(
    "link.used", Kind.UNAUTHENTICATED, "this sign-in link is used up or too old", hint="make a new one: {command}"
)


async def make_link(app: App, permit: Permit) -> str:
    """A one-time code that signs a browser in on the base domain; only its digest is stored."""
    code = secrets.token()

    def make(tx: Tx) -> None:
        expires = tx.now + LINK_SECONDS
        store.insert_link(tx, Link(secrets.digest(code), permit.actor, app.config.domain, "", expires))
        tx.emit(Event("link.made", permit.actor, permit.actor, {}))

    await app.db.write(make)
    return code


async def peek_link(app: App, code: str) -> User:
    """Whom a link would sign in; it stays usable. Raises LINK_USED."""

    def peek(tx: Tx) -> User | None:
        found = store.link(tx, secrets.digest(code))
        good = found is not None and not _why_not(tx, found, app.config.domain)
        return store.user_by(tx, "id", found.user) if found is not None and good else None

    user = await app.db.read(peek)
    if user is None:
        raise LINK_USED(command=app.config.ssh_command() + " browser")
    return user


async def redeem(app: App, code: str, host: str, agent: str = "") -> SignIn:
    """Use up a link or a hand-off code and start a session on `host`. Raises LINK_USED, also for another host."""
    cookie = secrets.token()

    def start(tx: Tx) -> tuple[SignIn | None, str]:
        found = store.link(tx, secrets.digest(code))
        reason = _why_not(tx, found, host)
        if found is not None:
            store.delete_link(tx, found.digest)
            about = {"host": host} | ({"reason": reason} if reason else {})
            tx.emit(Event("link.refused" if reason else "link.redeemed", SYSTEM, found.user, about))
        if found is None or reason:
            return None, reason
        return sessions.start(tx, cookie, found.user, host, found.parent, agent), "ok"

    made, result = await app.db.write(start)
    app.telemetry.sign_in("link", result)
    if made is None:
        raise LINK_USED(command=app.config.ssh_command() + " browser").because(result)
    return made


async def hand_off(app: App, base: Session, host: str) -> str:
    """A one-time code that carries the sign-in `base` to another host of ours."""
    code = secrets.token()

    def make(tx: Tx) -> None:
        store.insert_link(tx, Link(secrets.digest(code), base.user, host, base.digest, tx.now + HANDOFF_SECONDS))

    await app.db.write(make)
    return code


def _why_not(tx: Tx, found: Link | None, host: str) -> str:
    if found is None:
        return "unknown"
    if found.expires <= tx.now:
        return "expired"
    if found.host != host:
        return "other_host"
    return "signed_out" if found.parent and store.session(tx, found.parent) is None else ""
