"""SQL of shares and share links."""
from __future__ import annotations

from typing import Any

import sqlalchemy as sa

from ussycode.access.facts import Grant, Level
from ussycode.base.db import Tx, metadata
from ussycode.identity.addresses import addresses
from ussycode.identity.store import users
from ussycode.sharing.model import Link, Share

share_grants = sa.Table(
    "share_grants", metadata,
    sa.Column("id", sa.String, primary_key=True),
    sa.Column("vm", sa.String, sa.ForeignKey("vms.id", ondelete="CASCADE"), nullable=False),
    sa.Column("port", sa.Integer, nullable=False),
    *(sa.Column(name, sa.String, nullable=False) for name in ("level", "user", "address", "link", "by")),
    *(sa.Column(name, sa.Float, nullable=False) for name in ("expires", "created_at")),
    sa.UniqueConstraint("vm", "port", "user", "address", name="one_grant_for_each_port"),
    sa.CheckConstraint("(\"user\" = '') <> (address = '')", name="one_holder"),
    sa.Index("share_grants_by_address", "address"),
)
share_links = sa.Table(
    "share_links", metadata,
    sa.Column("id", sa.String, primary_key=True),
    sa.Column("vm", sa.String, sa.ForeignKey("vms.id", ondelete="CASCADE"), nullable=False),
    sa.Column("port", sa.Integer, nullable=False),
    sa.Column("digest", sa.String, nullable=False, unique=True),
    *(sa.Column(name, sa.String, nullable=False) for name in ("label", "by")),
    *(sa.Column(name, sa.Integer, nullable=False) for name in ("max_uses", "use_count")),
    *(sa.Column(name, sa.Float, nullable=False) for name in ("expires", "created_at", "last_used_at")),
    sa.Index("share_links_by_vm", "vm"),
)
_proven = sa.and_(addresses.c.address == share_grants.c.address, addresses.c.verified_at > 0)
_holder = sa.func.coalesce(addresses.c.user, share_grants.c.user)
_WITH_HOLDER = (
    sa.select(
        share_grants, _holder.label("holder"), sa.func.coalesce(users.c.handle, "").label("handle"),
        sa.func.coalesce(users.c.email, "").label("email"),
    )
    .select_from(share_grants.outerjoin(addresses, _proven).outerjoin(users, users.c.id == _holder))
    .order_by(share_grants.c.created_at, share_grants.c.port, share_grants.c.id)
)


def _share(row: Any) -> Share:
    values = dict(row._mapping)
    return Share(**values | {"level": Level(values["level"])})


def shares_of(tx: Tx, vm: str) -> list[Share]:
    """Whom a VM is shared with, oldest first."""
    return [_share(r) for r in tx.conn.execute(_WITH_HOLDER.where(share_grants.c.vm == vm))]


def all_grants(tx: Tx) -> dict[str, dict[str, tuple[Grant, ...]]]:
    """VM -> account -> what it was given, for every VM."""
    found: dict[str, list[Share]] = {}
    for row in tx.conn.execute(_WITH_HOLDER):
        share = _share(row)
        found.setdefault(share.vm, []).append(share)
    return {vm: grants(shares) for vm, shares in found.items()}


def grants(shares: list[Share]) -> dict[str, tuple[Grant, ...]]:
    """What shares give to each account; those that are pending give nothing."""
    made: dict[str, tuple[Grant, ...]] = {}
    for s in shares:
        if s.holder:
            grant = Grant(s.level, s.port, bool(s.link), s.expires)
            made[s.holder] = (*made.get(s.holder, ()), grant)
    return made


def shares_with(tx: Tx, user: str) -> list[Share]:
    """What others share with an account, oldest first."""
    return [_share(r) for r in tx.conn.execute(_WITH_HOLDER.where(_holder == user))]


def vms_for(tx: Tx, address: str) -> list[str]:
    """VMs shared with an address."""
    query = sa.select(share_grants.c.vm).where(share_grants.c.address == address).distinct()
    return [row[0] for row in tx.conn.execute(query)]


def insert(tx: Tx, share: Share) -> None:
    """Keep a new share."""
    columns = share_grants.c.keys()
    row = {name: value for name, value in vars(share).items() if name in columns}
    tx.conn.execute(share_grants.insert(), row | {"level": share.level.value})


def update(tx: Tx, share: str, level: Level, expires: float) -> None:
    """Change what a share gives."""
    tx.conn.execute(
        share_grants.update().where(share_grants.c.id == share).values(level=level.value, expires=expires)
    )


def delete(tx: Tx, shares: list[str]) -> None:
    """Take shares back."""
    tx.conn.execute(share_grants.delete().where(share_grants.c.id.in_(shares)))


def over(tx: Tx) -> list[Share]:
    """Shares whose time is over."""
    ended = (share_grants.c.expires > 0) & (share_grants.c.expires <= tx.now)
    return [_share(r) for r in tx.conn.execute(_WITH_HOLDER.where(ended))]


def links_of(tx: Tx, vm: str) -> list[Link]:
    """Share links of a VM, oldest first."""
    query = sa.select(share_links).where(share_links.c.vm == vm).order_by(share_links.c.created_at, share_links.c.id)
    return [Link(**row._mapping) for row in tx.conn.execute(query)]


def link_by_digest(tx: Tx, digest: str) -> Link | None:
    """The link of a token."""
    row = tx.conn.execute(sa.select(share_links).where(share_links.c.digest == digest)).first()
    return None if row is None else Link(**row._mapping)


def insert_link(tx: Tx, link: Link) -> None:
    """Keep a new link."""
    tx.conn.execute(share_links.insert(), vars(link))


def link_used(tx: Tx, link: str) -> None:
    """Count one redemption."""
    used = {"use_count": share_links.c.use_count + 1, "last_used_at": tx.now}
    tx.conn.execute(share_links.update().where(share_links.c.id == link).values(**used))


def delete_link(tx: Tx, link: str) -> None:
    """Forget a link."""
    tx.conn.execute(share_links.delete().where(share_links.c.id == link))
