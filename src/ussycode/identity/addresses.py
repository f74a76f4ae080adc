"""SQL of e-mail addresses, the codes that prove them, and invitations."""
from __future__ import annotations

from dataclasses import dataclass

import sqlalchemy as sa

from ussycode.access.facts import Role
from ussycode.base.db import Tx, metadata

addresses = sa.Table(
    "addresses", metadata,
    sa.Column("address", sa.String, primary_key=True),
    sa.Column("user", sa.String, sa.ForeignKey("users.id", ondelete="CASCADE"), primary_key=True),
    sa.Column("verified_at", sa.Float, nullable=False),
    sa.Column("created_at", sa.Float, nullable=False),
)
mail_codes = sa.Table(
    "mail_codes", metadata,
    sa.Column("id", sa.String, primary_key=True),
    *(sa.Column(name, sa.String, nullable=False) for name in ("address", "user", "code", "link", "goal")),
    sa.Column("attempts", sa.Integer, nullable=False),
    *(sa.Column(name, sa.Float, nullable=False) for name in ("created_at", "expires")),
    sa.Index("mail_codes_by_address", "address"),
)
invitations = sa.Table(
    "invitations", metadata,
    sa.Column("address", sa.String, primary_key=True),
    sa.Column("by", sa.String, nullable=False),
    sa.Column("created_at", sa.Float, nullable=False),
    sa.Column("role", sa.String, nullable=False, server_default="newbie"),
)


@dataclass(frozen=True)
class Address:
    """An address of an account. `verified_at` in unix seconds, 0 until it is proven."""

    address: str
    user: str
    verified_at: float
    created_at: float


@dataclass(frozen=True)
class MailCode:
    """A code that was mailed. `user` is empty for a sign-in; `code` and `link` are digests; `goal` a URL or empty."""

    id: str
    address: str
    user: str
    code: str
    link: str
    goal: str
    attempts: int
    created_at: float
    expires: float


def of_user(tx: Tx, user: str) -> list[Address]:
    """An account's addresses, oldest first."""
    query = sa.select(addresses).where(addresses.c.user == user).order_by(addresses.c.created_at, addresses.c.address)
    return [Address(**row._mapping) for row in tx.conn.execute(query)]


def owner_of(tx: Tx, address: str) -> str | None:
    """The one account that has proven the address."""
    query = sa.select(addresses.c.user).where(addresses.c.address == address, addresses.c.verified_at > 0)
    found = tx.conn.execute(query).scalar()
    return None if found is None else str(found)


def verified_of(tx: Tx, user: str) -> frozenset[str]:
    """Every address that an account has proven."""
    return frozenset(a.address for a in of_user(tx, user) if a.verified_at)


def add(tx: Tx, address: str, user: str) -> None:
    """Put an address on an account, unproven; nothing when it is there."""
    known = sa.select(addresses.c.address).where(addresses.c.address == address, addresses.c.user == user)
    if tx.conn.execute(known).first() is None:
        row = {"address": address, "user": user, "verified_at": 0.0, "created_at": tx.now}
        tx.conn.execute(addresses.insert(), row)


def verify(tx: Tx, address: str, user: str) -> None:
    """The account has proven the address; claims of others on it end."""
    add(tx, address, user)
    tx.conn.execute(addresses.delete().where(addresses.c.address == address, addresses.c.user != user))
    mine = (addresses.c.address == address) & (addresses.c.user == user)
    tx.conn.execute(addresses.update().where(mine).values(verified_at=tx.now))


def remove(tx: Tx, address: str, user: str) -> None:
    """Take an address off an account."""
    tx.conn.execute(addresses.delete().where(addresses.c.address == address, addresses.c.user == user))


def insert_code(tx: Tx, code: MailCode) -> None:
    """Keep a code that is being mailed; old ones are swept on the way."""
    tx.conn.execute(mail_codes.delete().where(mail_codes.c.expires <= tx.now - 3600))
    tx.conn.execute(mail_codes.insert(), vars(code))


def code_by(tx: Tx, column: str, value: str) -> MailCode | None:
    """A code that still counts, by `id` or by the digest of its `link`."""
    query = sa.select(mail_codes).where(mail_codes.c[column] == value, mail_codes.c.expires > tx.now)
    row = tx.conn.execute(query).first()
    return None if row is None else MailCode(**row._mapping)


def codes_for(tx: Tx, address: str) -> list[MailCode]:
    """Codes for an address that still count, newest first."""
    query = sa.select(mail_codes).where(mail_codes.c.address == address, mail_codes.c.expires > tx.now)
    return [MailCode(**row._mapping) for row in tx.conn.execute(query.order_by(mail_codes.c.created_at.desc()))]


def codes_since(tx: Tx, column: str, value: str, since: float) -> int:
    """How many codes were made for an `address` or a `user` since a moment."""
    made = (mail_codes.c[column] == value) & (mail_codes.c.created_at > since)
    return int(tx.conn.execute(sa.select(sa.func.count()).where(made)).scalar() or 0)


def note_attempt(tx: Tx, code: str) -> None:
    """Count a wrong guess."""
    mine = mail_codes.c.id == code
    tx.conn.execute(mail_codes.update().where(mine).values(attempts=mail_codes.c.attempts + 1))


def spend(tx: Tx, code: str) -> None:
    """A code is used up; it stays counted."""
    tx.conn.execute(mail_codes.update().where(mail_codes.c.id == code).values(expires=tx.now))


def invite(tx: Tx, address: str, by: str, role: Role = Role.NEWBIE) -> None:
    """Let somebody with this address make an account of `role`. Whoever is invited already stays so, or rises."""
    known = invited_as(tx, address)
    if known is None:
        row = {"address": address, "by": by, "created_at": tx.now, "role": role.value}
        tx.conn.execute(invitations.insert(), row)
    elif known is Role.GUEST:
        tx.conn.execute(invitations.update().where(invitations.c.address == address).values(role=role.value, by=by))


def invited_as(tx: Tx, address: str) -> Role | None:
    """What the invitation of an address leads to; None without one."""
    found = tx.conn.execute(sa.select(invitations.c.role).where(invitations.c.address == address)).scalar()
    return None if found is None else Role(found)


def uninvite_guest(tx: Tx, address: str) -> None:
    """Forget an invitation that leads to no VMs; any other stays."""
    guest = (invitations.c.address == address) & (invitations.c.role == Role.GUEST.value)
    tx.conn.execute(invitations.delete().where(guest))
