"""Requests to be let into a VM, and their SQL."""
from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from ussycode.base.db import Tx, metadata
from ussycode.identity.store import users
from ussycode.vms.store import vms

access_requests = sa.Table(
    "access_requests", metadata,
    sa.Column("id", sa.String, primary_key=True),
    sa.Column("vm", sa.String, sa.ForeignKey("vms.id", ondelete="CASCADE")),
    sa.Column("user", sa.String, sa.ForeignKey("users.id", ondelete="CASCADE"), nullable=False),
    sa.Column("port", sa.Integer, nullable=False),
    sa.Column("message", sa.String, nullable=False),
    sa.Column("declined", sa.Boolean, nullable=False),
    *(sa.Column(name, sa.Float, nullable=False) for name in ("created_at", "expires")),
    sa.Index("access_requests_by_vm", "vm"),
    sa.Index("access_requests_by_user", "user"),
)


@dataclass(frozen=True)
class AccessRequest:
    """Somebody asks for a port of a VM (0 is its primary one).

    Without `vm` it leads to nobody and only counts: who asks for a VM that is not there is treated alike.
    """

    id: str
    vm: str | None
    user: str
    port: int
    message: str
    declined: bool
    created_at: float
    expires: float
    """Unix seconds; then it is forgotten, declined or not."""


@dataclass(frozen=True)
class Waiting:
    """A request as its owner sees it."""

    request: AccessRequest
    vm_name: str
    handle: str
    email: str


def insert(tx: Tx, request: AccessRequest) -> None:
    """Keep a new one."""
    tx.conn.execute(access_requests.insert(), vars(request))


def count_since(tx: Tx, user: str, since: float) -> int:
    """How often an account asked for anything since a moment."""
    asked = (access_requests.c.user == user) & (access_requests.c.created_at > since)
    return int(tx.conn.execute(sa.select(sa.func.count()).where(asked)).scalar() or 0)


def count_for(tx: Tx, owner: str, since: float) -> int:
    """How often anybody asked an owner since a moment."""
    theirs = sa.select(vms.c.id).where(vms.c.owner == owner)
    asked = access_requests.c.vm.in_(theirs) & (access_requests.c.created_at > since)
    return int(tx.conn.execute(sa.select(sa.func.count()).where(asked)).scalar() or 0)


def of_vm(tx: Tx, vm: str) -> list[AccessRequest]:
    """Everything asked of a VM, declined or not."""
    query = sa.select(access_requests).where(access_requests.c.vm == vm, access_requests.c.expires > tx.now)
    return [AccessRequest(**row._mapping) for row in tx.conn.execute(query)]


def waiting_for(tx: Tx, owner: str) -> list[Waiting]:
    """What waits for an owner's answer, oldest first."""
    found = access_requests.join(vms, vms.c.id == access_requests.c.vm)
    found = found.join(users, users.c.id == access_requests.c.user)
    query = (
        sa.select(access_requests, vms.c.name.label("vm_name"), users.c.handle, users.c.email).select_from(found)
        .where(vms.c.owner == owner, vms.c.trashed_at == 0, sa.not_(access_requests.c.declined))
        .where(access_requests.c.expires > tx.now)
        .order_by(access_requests.c.created_at, access_requests.c.id)
    )
    return [_waiting(dict(row._mapping)) for row in tx.conn.execute(query)]


def _waiting(values: dict[str, Any]) -> Waiting:
    vm_name, handle, email = (values.pop(name) for name in ("vm_name", "handle", "email"))
    return Waiting(AccessRequest(**values), vm_name, handle, email)


def decline(tx: Tx, request: str, until: float) -> None:
    """Remember until a moment that the owner said no."""
    mine = access_requests.c.id == request
    tx.conn.execute(access_requests.update().where(mine).values(declined=True, expires=until))


def delete(tx: Tx, request: str) -> None:
    """Forget one."""
    tx.conn.execute(access_requests.delete().where(access_requests.c.id == request))


def over(tx: Tx) -> list[AccessRequest]:
    """Those whose time is over."""
    query = sa.select(access_requests).where(access_requests.c.expires <= tx.now)
    return [AccessRequest(**row._mapping) for row in tx.conn.execute(query)]
