"""SQL of accounts, keys, links and sessions. Plain functions of a transaction; absent is None."""
from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa

from ussycode.access.facts import Role
from ussycode.base import ids
from ussycode.base.db import Tx, events_table, metadata
from ussycode.identity.model import Link, Session, SshKey, User

LINKS_KEPT_SECONDS = 86_400.0
"""How long a code that is over is known, so that who comes late is told from who guesses."""

users = sa.Table(
    "users", metadata,
    sa.Column("id", sa.String, primary_key=True),
    sa.Column("handle", sa.String, nullable=False, unique=True),
    sa.Column("role", sa.String, nullable=False),
    sa.Column("email", sa.String, nullable=False, server_default=""),
    sa.Column("login_name", sa.String, nullable=False, server_default=""),
    sa.Column("handle_chosen", sa.Boolean, nullable=False),
    sa.Column("created_at", sa.Float, nullable=False),
)
ssh_keys = sa.Table(
    "ssh_keys", metadata,
    sa.Column("id", sa.String, primary_key=True),
    sa.Column("user", sa.String, sa.ForeignKey("users.id", ondelete="CASCADE"), nullable=False),
    sa.Column("fingerprint", sa.String, nullable=False, unique=True),
    sa.Column("public_key", sa.String, nullable=False),
    sa.Column("name", sa.String, nullable=False),
    sa.Column("created_at", sa.Float, nullable=False),
    sa.Column("tag", sa.String, nullable=False, server_default=""),
    sa.Column("last_used", sa.Float, nullable=False, server_default="0"),
    sa.UniqueConstraint("user", "name", name="one_key_name_per_user"),
)
approved_keys = sa.Table(
    "approved_keys", metadata,
    sa.Column("fingerprint", sa.String, primary_key=True),
    sa.Column("role", sa.String, nullable=False),
)
sign_in_links = sa.Table(
    "sign_in_links", metadata,
    sa.Column("digest", sa.String, primary_key=True),
    sa.Column("user", sa.String, sa.ForeignKey("users.id", ondelete="CASCADE"), nullable=False),
    sa.Column("host", sa.String, nullable=False),
    sa.Column("parent", sa.String, nullable=False, server_default=""),
    sa.Column("expires", sa.Float, nullable=False),
)
sessions = sa.Table(
    "sessions", metadata,
    sa.Column("digest", sa.String, primary_key=True),
    sa.Column("user", sa.String, sa.ForeignKey("users.id", ondelete="CASCADE"), nullable=False),
    sa.Column("host", sa.String, nullable=False),
    sa.Column("parent", sa.String, nullable=False, server_default=""),
    sa.Column("created_at", sa.Float, nullable=False),
    sa.Column("expires", sa.Float, nullable=False),
    sa.Column("agent", sa.String, nullable=False, server_default=""),
    sa.Column("last_used", sa.Float, nullable=False, server_default="0"),
    sa.Column("passkey", sa.String, nullable=False, server_default=""),
    sa.Index("sessions_by_parent", "parent"),
)


def _user(row: Any) -> User:
    values = dict(row._mapping)
    return User(**values | {"role": Role(values["role"])})


def user_by(tx: Tx, column: str, value: str) -> User | None:
    """The account whose `id` or `handle` is `value`."""
    row = tx.conn.execute(sa.select(users).where(users.c[column] == value)).first()
    return None if row is None else _user(row)


def all_users(tx: Tx) -> list[User]:
    """Every account."""
    return [_user(r) for r in tx.conn.execute(sa.select(users))]


def insert_user(tx: Tx, handle: str, role: Role, login_name: str, chosen: bool) -> User:
    """A new account; the caller has checked that the handle is free."""
    user = User(ids.new("user"), handle, role, "", login_name, chosen, tx.now)
    tx.conn.execute(users.insert(), vars(user) | {"role": role.value})
    return user


def update_user(tx: Tx, user: str, **values: object) -> None:
    """Change columns of an account."""
    tx.conn.execute(users.update().where(users.c.id == user).values(**values))


def key_by_fingerprint(tx: Tx, fingerprint: str) -> SshKey | None:
    """The registered key with this fingerprint."""
    row = tx.conn.execute(sa.select(ssh_keys).where(ssh_keys.c.fingerprint == fingerprint)).first()
    return None if row is None else SshKey(**row._mapping)


def keys_of(tx: Tx, user: str) -> list[SshKey]:
    """Keys of an account, oldest first."""
    query = sa.select(ssh_keys).where(ssh_keys.c.user == user).order_by(ssh_keys.c.created_at, ssh_keys.c.id)
    return [SshKey(**r._mapping) for r in tx.conn.execute(query)]


def insert_key(tx: Tx, user: str, fingerprint: str, public_key: str, name: str, tag: str = "") -> SshKey:
    """Register a key; the caller has checked fingerprint and name."""
    key = SshKey(ids.new("key"), user, fingerprint, public_key, name, tx.now, tag)
    tx.conn.execute(ssh_keys.insert(), vars(key))
    return key


def key_used(tx: Tx, fingerprint: str, at: float) -> None:
    """Note when a key was used last."""
    older = (ssh_keys.c.fingerprint == fingerprint) & (ssh_keys.c.last_used < at)
    tx.conn.execute(ssh_keys.update().where(older).values(last_used=at))


def delete_key(tx: Tx, key: str) -> None:
    """Forget a key by id."""
    tx.conn.execute(ssh_keys.delete().where(ssh_keys.c.id == key))


def rename_key(tx: Tx, key: str, name: str) -> None:
    """Give a key another name."""
    tx.conn.execute(ssh_keys.update().where(ssh_keys.c.id == key), {"name": name})


def tag_key(tx: Tx, key: str, tag: str) -> None:
    """Limit a key to VMs with a tag; an empty one limits it no more."""
    tx.conn.execute(ssh_keys.update().where(ssh_keys.c.id == key), {"tag": tag})


def approved_role(tx: Tx, fingerprint: str) -> Role | None:
    """Role that a key not yet registered was approved for."""
    found = tx.conn.execute(sa.select(approved_keys.c.role).where(approved_keys.c.fingerprint == fingerprint)).scalar()
    return None if found is None else Role(found)


def replace_approved(tx: Tx, fingerprints: Sequence[str], role: Role) -> None:
    """Make `fingerprints` the whole list of approved keys."""
    tx.conn.execute(approved_keys.delete())
    for fingerprint in dict.fromkeys(fingerprints):
        tx.conn.execute(approved_keys.insert(), {"fingerprint": fingerprint, "role": role.value})


def disapprove(tx: Tx, fingerprint: str) -> None:
    """Let a key no longer register by approval."""
    tx.conn.execute(approved_keys.delete().where(approved_keys.c.fingerprint == fingerprint))


def removed_keys(tx: Tx) -> set[str]:
    """Fingerprints that an owner has removed at some time."""
    query = sa.select(events_table.c.data).where(events_table.c.kind == "key.removed")
    return {str(json.loads(data)["fingerprint"]) for (data,) in tx.conn.execute(query)}


def insert_link(tx: Tx, link: Link) -> None:
    """Keep a one-time code; those long over are swept on the way."""
    tx.conn.execute(sign_in_links.delete().where(sign_in_links.c.expires <= tx.now - LINKS_KEPT_SECONDS))
    tx.conn.execute(sign_in_links.insert(), vars(link))


def link(tx: Tx, digest: str) -> Link | None:
    """A code that nobody used, be it over or not."""
    row = tx.conn.execute(sa.select(sign_in_links).where(sign_in_links.c.digest == digest)).first()
    return None if row is None else Link(**row._mapping)


def delete_link(tx: Tx, digest: str) -> None:
    """Forget a code."""
    tx.conn.execute(sign_in_links.delete().where(sign_in_links.c.digest == digest))


def insert_session(tx: Tx, session: Session) -> None:
    """Keep a new session."""
    tx.conn.execute(sessions.insert(), vars(session))


def session(tx: Tx, digest: str) -> Session | None:
    """A session that has not expired."""
    query = sa.select(sessions).where(sessions.c.digest == digest, sessions.c.expires > tx.now)
    row = tx.conn.execute(query).first()
    return None if row is None else Session(**row._mapping)


def live_sessions(tx: Tx) -> list[Session]:
    """Every session that has not expired."""
    return [Session(**r._mapping) for r in tx.conn.execute(sa.select(sessions).where(sessions.c.expires > tx.now))]


def sign_ins_of(tx: Tx, user: str) -> list[Session]:
    """An account's sessions that came from no other, newest first."""
    own = (sessions.c.user == user) & (sessions.c.parent == "") & (sessions.c.expires > tx.now)
    return [Session(**r._mapping) for r in tx.conn.execute(sa.select(sessions).where(own).order_by(
        sessions.c.created_at.desc(), sessions.c.digest))]


def sessions_of_passkey(tx: Tx, passkey: str) -> list[str]:
    """Digests of the sign-ins that began with a passkey."""
    return [r[0] for r in tx.conn.execute(sa.select(sessions.c.digest).where(sessions.c.passkey == passkey))]


def session_used(tx: Tx, digest: str, at: float) -> None:
    """Note when a session, and the sign-in it came from, were used last."""
    parent = sa.select(sessions.c.parent).where(sessions.c.digest == digest).scalar_subquery()
    family = (sessions.c.digest == digest) | (sessions.c.digest == parent)
    tx.conn.execute(sessions.update().where(family, sessions.c.last_used < at).values(last_used=at))


def delete_idle_sessions(tx: Tx, before: float) -> list[str]:
    """Drop sessions not used since `before`; digests that are gone."""
    gone = [r[0] for r in tx.conn.execute(sa.select(sessions.c.digest).where(sessions.c.last_used < before))]
    tx.conn.execute(sessions.delete().where(sessions.c.digest.in_(gone)))
    return gone


def delete_sessions_on(tx: Tx, pattern: str) -> list[str]:
    """End every session and link on a host, or on all hosts one label below with `*.NAME`; digests of the sessions."""

    def on(host: sa.Column[str]) -> sa.ColumnElement[bool]:
        if not pattern.startswith("*."):
            return host == pattern
        below = pattern.removeprefix("*")
        return host.endswith(below, autoescape=True) & ~host.contains("%.%" + below)

    tx.conn.execute(sign_in_links.delete().where(on(sign_in_links.c.host)))
    gone = [r[0] for r in tx.conn.execute(sa.select(sessions.c.digest).where(on(sessions.c.host)))]
    tx.conn.execute(sessions.delete().where(sessions.c.digest.in_(gone)))
    return gone


def trim_sessions(tx: Tx, user: str, keep: int) -> list[str]:
    """Drop expired sessions of everybody and the oldest of `user` beyond `keep`; digests that are gone."""
    mine = sa.select(sessions.c.digest).where(sessions.c.user == user, sessions.c.expires > tx.now)
    oldest = mine.order_by(sessions.c.created_at.desc()).offset(keep)
    gone = [r[0] for r in tx.conn.execute(sa.select(sessions.c.digest).where(sessions.c.expires <= tx.now))]
    gone += [r[0] for r in tx.conn.execute(oldest)]
    tx.conn.execute(sessions.delete().where(sessions.c.digest.in_(gone)))
    return gone


def delete_sign_ins(tx: Tx, user: str) -> list[str]:
    """End every session and link of an account; digests of the sessions."""
    tx.conn.execute(sign_in_links.delete().where(sign_in_links.c.user == user))
    gone = [r[0] for r in tx.conn.execute(sa.select(sessions.c.digest).where(sessions.c.user == user))]
    tx.conn.execute(sessions.delete().where(sessions.c.user == user))
    return gone


def delete_sessions(tx: Tx, digest: str) -> list[str]:
    """End a session and those that came from it, or, for a child, its whole family; digests that are gone."""
    parent = tx.conn.execute(sa.select(sessions.c.parent).where(sessions.c.digest == digest)).scalar()
    root = parent or digest
    family = (sessions.c.digest == root) | (sessions.c.parent == root) | (sessions.c.digest == digest)
    gone = [r[0] for r in tx.conn.execute(sa.select(sessions.c.digest).where(family))]
    tx.conn.execute(sessions.delete().where(family))
    return gone
