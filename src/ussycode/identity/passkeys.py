"""SQL of passkeys. Plain functions of a transaction; absent is None."""
from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from ussycode.base.db import Tx, metadata

passkeys = sa.Table(
    "passkeys", metadata,
    sa.Column("id", sa.String, primary_key=True),
    sa.Column("user", sa.String, sa.ForeignKey("users.id", ondelete="CASCADE"), nullable=False),
    sa.Column("name", sa.String, nullable=False),
    sa.Column("credential", sa.LargeBinary, nullable=False, unique=True),
    sa.Column("public_key", sa.LargeBinary, nullable=False),
    sa.Column("handle", sa.LargeBinary, nullable=False),
    sa.Column("count", sa.Integer, nullable=False),
    *(sa.Column(name, sa.Boolean, nullable=False) for name in ("synced", "blocked")),
    *(sa.Column(name, sa.Float, nullable=False) for name in ("created_at", "last_used")),
    sa.UniqueConstraint("user", "name", name="one_passkey_name_per_user"),
)


@dataclass(frozen=True)
class Passkey:
    """A passkey of an account. `blocked` since its counter went back: a copy of it is about."""

    id: str
    user: str
    name: str
    credential: bytes
    public_key: bytes
    handle: bytes
    """What the authenticator knows the account by: chance, told to nobody else."""
    count: int
    synced: bool
    blocked: bool
    created_at: float
    last_used: float = 0.0
    """Unix seconds; 0 until it is used."""


def of_user(tx: Tx, user: str) -> list[Passkey]:
    """An account's passkeys, oldest first."""
    mine = sa.select(passkeys).where(passkeys.c.user == user).order_by(passkeys.c.created_at, passkeys.c.name)
    return [Passkey(**row._mapping) for row in tx.conn.execute(mine)]


def by_credential(tx: Tx, credential: bytes) -> Passkey | None:
    """The passkey whose authenticator calls it so."""
    row = tx.conn.execute(sa.select(passkeys).where(passkeys.c.credential == credential)).first()
    return None if row is None else Passkey(**row._mapping)


def insert(tx: Tx, passkey: Passkey) -> None:
    """Keep a new one; the caller has checked credential and name."""
    tx.conn.execute(passkeys.insert(), vars(passkey))


def update(tx: Tx, passkey: str, **values: Any) -> None:
    """Change columns of one."""
    tx.conn.execute(passkeys.update().where(passkeys.c.id == passkey).values(**values))


def delete(tx: Tx, passkey: str) -> None:
    """Forget one."""
    tx.conn.execute(passkeys.delete().where(passkeys.c.id == passkey))
