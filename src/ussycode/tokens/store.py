"""SQL of token handles and revoked tokens."""
from __future__ import annotations

import sqlalchemy as sa

from ussycode.base.db import Tx, metadata
from ussycode.tokens.model import Handle

handles = sa.Table(
    "token_handles", metadata,
    sa.Column("id", sa.String, primary_key=True),
    sa.Column("user", sa.String, sa.ForeignKey("users.id", ondelete="CASCADE"), nullable=False),
    sa.Column("digest", sa.String, nullable=False, unique=True),
    *(sa.Column(name, sa.String, nullable=False) for name in ("label", "vm", "payload", "key", "tag")),
    sa.Column("created_at", sa.Float, nullable=False),
    sa.Column("last_used", sa.Float, nullable=False),
    sa.UniqueConstraint("user", "label", name="one_token_label_per_user"),
)
revoked = sa.Table(
    "revoked_tokens", metadata,
    sa.Column("digest", sa.String, primary_key=True),
    sa.Column("user", sa.String, sa.ForeignKey("users.id", ondelete="CASCADE"), nullable=False),
    sa.Column("revoked_at", sa.Float, nullable=False),
    sa.Column("until", sa.Float, nullable=False),
)


def insert(tx: Tx, handle: Handle) -> None:
    """Keep a new handle."""
    tx.conn.execute(handles.insert(), vars(handle))


def by_digest(tx: Tx, digest: str) -> Handle | None:
    """The handle of a token."""
    row = tx.conn.execute(sa.select(handles).where(handles.c.digest == digest)).first()
    return None if row is None else Handle(**row._mapping)


def of_user(tx: Tx, user: str) -> list[Handle]:
    """An account's handles, oldest first."""
    query = sa.select(handles).where(handles.c.user == user).order_by(handles.c.created_at, handles.c.id)
    return [Handle(**row._mapping) for row in tx.conn.execute(query)]


def delete(tx: Tx, handle: str) -> None:
    """Forget a handle: its token is unknown from now on."""
    tx.conn.execute(handles.delete().where(handles.c.id == handle))


def delete_of_key(tx: Tx, key: str) -> list[Handle]:
    """Forget the handles that live as long as the SSH key with this fingerprint; the ones that are gone."""
    gone = [Handle(**row._mapping) for row in tx.conn.execute(sa.select(handles).where(handles.c.key == key))]
    tx.conn.execute(handles.delete().where(handles.c.key == key))
    return gone


def used(tx: Tx, handle: str, at: float) -> None:
    """Note when a handle was used last."""
    tx.conn.execute(handles.update().where(handles.c.id == handle, handles.c.last_used < at).values(last_used=at))


def revoke(tx: Tx, digest: str, user: str, until: float) -> None:
    """Refuse a signed token until `until`, when it is over anyway; old entries are swept on the way."""
    tx.conn.execute(revoked.delete().where((revoked.c.until <= tx.now) | (revoked.c.digest == digest)))
    row = {"digest": digest, "user": user, "revoked_at": tx.now, "until": until}
    tx.conn.execute(revoked.insert(), row)


def is_revoked(tx: Tx, *digests: str) -> bool:
    """A signed token that its owner has revoked, by any of the digests it may be listed under."""
    return tx.conn.execute(sa.select(revoked.c.digest).where(revoked.c.digest.in_(digests))).first() is not None


def count_revoked(tx: Tx, user: str) -> int:
    """Signed tokens that an account has revoked and that would still hold."""
    query = sa.select(sa.func.count()).where(revoked.c.user == user, revoked.c.until > tx.now)
    return int(tx.conn.execute(query).scalar() or 0)
