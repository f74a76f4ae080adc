"""SQL of images that accounts pulled."""
from __future__ import annotations

from dataclasses import dataclass

import sqlalchemy as sa

from ussycode.base.db import Tx, metadata
from ussycode.vms.store import vms

pulled_images = sa.Table(
    "pulled_images", metadata,
    sa.Column("name", sa.String, primary_key=True),
    sa.Column("owner", sa.String, sa.ForeignKey("users.id", ondelete="CASCADE"), primary_key=True),
    sa.Column("reference", sa.String, nullable=False, index=True),
    sa.Column("private", sa.Boolean, nullable=False),
    sa.Column("size", sa.Integer, nullable=False),
    sa.Column("pulled_at", sa.Float, nullable=False),
)


@dataclass(frozen=True)
class PulledImage:
    """One account's pull. `name` pins the digest; `size` is the disk's in bytes; `pulled_at` in Unix seconds."""

    name: str
    owner: str
    reference: str
    private: bool
    size: int
    pulled_at: float


def put(tx: Tx, image: PulledImage) -> None:
    """Keep a pull, in the place of an earlier one of the same image."""
    _drop(tx, image.name, image.owner)
    tx.conn.execute(pulled_images.insert(), vars(image))


def seen_by(tx: Tx, owner: str) -> list[PulledImage]:
    """What an account may see: its own pulls and public ones of others, each image once, by reference."""
    own = pulled_images.c.owner == owner
    query = sa.select(pulled_images).where(own | ~pulled_images.c.private).order_by(own)
    found = {row.name: PulledImage(**row._mapping) for row in tx.conn.execute(query)}
    return sorted(found.values(), key=lambda image: (image.reference, image.pulled_at))


def drop(tx: Tx, name: str, owner: str | None) -> None:
    """Forget a pull of one account, or of every account."""
    _drop(tx, name, owner)


def _drop(tx: Tx, name: str, owner: str | None) -> None:
    query = pulled_images.delete().where(pulled_images.c.name == name)
    tx.conn.execute(query if owner is None else query.where(pulled_images.c.owner == owner))


def is_held(tx: Tx, name: str) -> bool:
    """Whether any account still holds a pull of an image."""
    return tx.conn.execute(sa.select(pulled_images.c.name).where(pulled_images.c.name == name)).first() is not None


def in_use(tx: Tx) -> frozenset[str]:
    """Images that VMs stand on."""
    return frozenset(tx.conn.execute(sa.select(vms.c.image).distinct()).scalars())
