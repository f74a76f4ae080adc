"""The visitor log: who came to a VM over HTTPS, when, from where, and what was decided. Bounded for each VM."""
from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from ussycode.access.decide import Permit, Reason
from ussycode.base.db import Tx, metadata
from ussycode.identity.store import users
from ussycode.ports import App
from ussycode.vms.store import vms
from ussycode.wire.edge import Visitor

HOUR = 3600
"""Requests of one visitor with one decision are one row an hour."""
MAX_ROWS = 1000
"""Rows of one VM; the oldest go first."""
KEEP_SECONDS = 30 * 86_400
"""Addresses of visitors are nobody's business for longer."""
MAX_COUNT = 1_000_000_000
share_visitors = sa.Table(
    "share_visitors", metadata,
    sa.Column("vm", sa.String, sa.ForeignKey("vms.id", ondelete="CASCADE"), primary_key=True),
    sa.Column("hour", sa.Integer, primary_key=True),
    sa.Column("port", sa.Integer, primary_key=True),
    sa.Column("user", sa.String, primary_key=True),
    sa.Column("address", sa.String, primary_key=True),
    sa.Column("reason", sa.String, primary_key=True),
    sa.Column("allowed", sa.Boolean, nullable=False),
    sa.Column("requests", sa.Integer, nullable=False),
    sa.Column("first_at", sa.Float, nullable=False),
    sa.Column("last_at", sa.Float, nullable=False),
    sa.Index("share_visitors_by_time", "vm", "last_at"),
)
_REASONS = frozenset(reason.value for reason in Reason)


@dataclass(frozen=True)
class Visit:
    """One visitor with one decision in one hour. `who` is empty for nobody who signed in."""

    port: int
    who: str
    handle: str
    address: str
    allowed: bool
    reason: str
    requests: int
    first_at: float
    last_at: float


async def record(app: App, seen: Sequence[Visitor]) -> None:
    """Take in what an edge saw. What cannot be, and VMs that are gone, are left out."""
    good = [v for v in seen if v.reason in _REASONS and _address(v.address) and 0 < v.requests < MAX_COUNT]

    def write(tx: Tx) -> None:
        here = {v.vm for v in good}
        known = {r[0] for r in tx.conn.execute(sa.select(vms.c.id).where(vms.c.id.in_(here)))}
        for visitor in good:
            if visitor.vm in known:
                _add(tx, visitor)
        for vm in known:
            _trim(tx, vm)

    if good:
        await app.db.write(write)


async def newest(app: App, permit: Permit, limit: int) -> list[Visit]:
    """Visits of the permit's VM, newest first."""
    assert permit.vm is not None
    v = share_visitors.c
    query = (
        sa.select(
            v.port, users.c.email, users.c.handle, v.address, v.allowed, v.reason, v.requests, v.first_at, v.last_at,
        )
        .select_from(share_visitors.outerjoin(users, users.c.id == v.user))
        .where(v.vm == permit.vm.vm).order_by(v.last_at.desc(), v.first_at.desc()).limit(limit)
    )

    def read(tx: Tx) -> list[Visit]:
        return [
            Visit(row.port, _who(row), row.handle or "", *row[3:]) for row in tx.conn.execute(query)
        ]

    return await app.db.read(read)


async def forget_old(app: App) -> None:
    """Drop visits that are older than anybody needs to know."""
    old = share_visitors.c.last_at < app.clock.now() - KEEP_SECONDS
    if await app.db.read(lambda tx: tx.conn.execute(sa.select(share_visitors.c.vm).where(old).limit(1)).first()):
        await app.db.write(lambda tx: tx.conn.execute(share_visitors.delete().where(old)) and None)


def _add(tx: Tx, visitor: Visitor) -> None:
    v = share_visitors.c
    key = {
        "vm": visitor.vm, "hour": int(tx.now // HOUR), "port": visitor.port, "user": visitor.user,
        "address": visitor.address, "reason": visitor.reason,
    }
    mine = sa.and_(*(v[name] == value for name, value in key.items()))
    more = {"requests": v.requests + visitor.requests, "last_at": tx.now, "allowed": visitor.allowed}
    if not tx.conn.execute(share_visitors.update().where(mine).values(**more)).rowcount:
        row = {"allowed": visitor.allowed, "requests": visitor.requests, "first_at": tx.now, "last_at": tx.now}
        tx.conn.execute(share_visitors.insert(), key | row)


def _trim(tx: Tx, vm: str) -> None:
    v = share_visitors.c
    newest = sa.select(v.last_at).where(v.vm == vm).order_by(v.last_at.desc())
    oldest = tx.conn.execute(newest.offset(MAX_ROWS - 1).limit(1)).scalar()
    if oldest is not None:
        tx.conn.execute(share_visitors.delete().where(v.vm == vm, v.last_at < oldest))


def _who(row: Any) -> str:
    """An app is told the address of whom it serves; of whom it does not serve, its owner learns the handle."""
    return (row.email if row.allowed else "") or row.handle or ""


def _address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True
