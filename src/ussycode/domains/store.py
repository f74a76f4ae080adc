"""SQL of domains. A name that is served is in `served_names`, whose key lets nobody else have it."""
from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa

from ussycode.base.db import Tx, metadata
from ussycode.domains.model import Covers, Proof, VmDomain
from ussycode.vms.store import vms

domains = sa.Table(
    "domains", metadata,
    sa.Column("id", sa.String, primary_key=True),
    sa.Column("vm", sa.String, nullable=False),
    sa.Column("owner", sa.String, sa.ForeignKey("users.id"), nullable=False, index=True),
    sa.Column("name", sa.String, nullable=False),
    sa.Column("covers", sa.String, nullable=False),
    sa.Column("created_at", sa.Float, nullable=False),
    sa.Column("verified_at", sa.Float, nullable=False),
    sa.Column("proof", sa.String, nullable=False),
    sa.Column("target", sa.String, nullable=False),
    sa.Column("failing_since", sa.Float, nullable=False),
    sa.Column("checked_at", sa.Float, nullable=False),
    sa.Column("check_at", sa.Float, nullable=False, index=True),
    sa.Column("checks", sa.Integer, nullable=False),
    sa.Column("why", sa.String, nullable=False),
    sa.UniqueConstraint("vm", "name", "covers"),
)
served_names = sa.Table(
    "served_names", metadata,
    sa.Column("pattern", sa.String, primary_key=True),
    sa.Column("domain", sa.String, sa.ForeignKey("domains.id", ondelete="CASCADE"), nullable=False, index=True),
)


def _domain(row: Any) -> VmDomain:
    values = dict(row._mapping)
    return VmDomain(**values | {"covers": Covers(values["covers"]), "proof": Proof(values["proof"])})


def _many(tx: Tx, query: sa.Select[Any]) -> list[VmDomain]:
    return [_domain(row) for row in tx.conn.execute(query)]


def by_id(tx: Tx, domain: str) -> VmDomain | None:
    """The domain with this id."""
    return next(iter(_many(tx, sa.select(domains).where(domains.c.id == domain))), None)


def of_vm(tx: Tx, vm: str) -> list[VmDomain]:
    """A VM's domains by name."""
    return _many(tx, sa.select(domains).where(domains.c.vm == vm).order_by(domains.c.name, domains.c.covers))


def of_owner(tx: Tx, owner: str) -> list[VmDomain]:
    """An account's domains by name."""
    return _many(tx, sa.select(domains).where(domains.c.owner == owner).order_by(domains.c.name, domains.c.covers))


def served(tx: Tx) -> list[VmDomain]:
    """Every domain that is served."""
    return _many(tx, sa.select(domains).where(domains.c.verified_at > 0))


def due(tx: Tx, limit: int) -> list[VmDomain]:
    """Domains that DNS must be asked about now, those that waited longest first."""
    return _many(tx, sa.select(domains).where(domains.c.check_at <= tx.now).order_by(domains.c.check_at).limit(limit))


def orphans(tx: Tx) -> list[VmDomain]:
    """Domains whose VM is gone for good."""
    return _many(tx, sa.select(domains).where(domains.c.vm.not_in(sa.select(vms.c.id))))


def holders(tx: Tx, patterns: Sequence[str]) -> list[VmDomain]:
    """Who has any of these served."""
    holding = sa.select(served_names.c.domain).where(served_names.c.pattern.in_(patterns))
    return _many(tx, sa.select(domains).where(domains.c.id.in_(holding)))


def insert(tx: Tx, domain: VmDomain) -> None:
    """Keep a claim."""
    tx.conn.execute(domains.insert(), _row(vars(domain)))


def update(tx: Tx, domain: str, **values: object) -> None:
    """Change columns of a domain; values as `VmDomain` has them."""
    tx.conn.execute(domains.update().where(domains.c.id == domain).values(**_row(values)))


def delete(tx: Tx, domain: str) -> None:
    """Forget a domain and what it is served as."""
    tx.conn.execute(domains.delete().where(domains.c.id == domain))


def serve(tx: Tx, domain: VmDomain) -> None:
    """Serve a domain's names. Raises IntegrityError when somebody else has one: check `holders` first."""
    for pattern in domain.patterns:
        tx.conn.execute(served_names.insert(), {"pattern": pattern, "domain": domain.id})


def unserve(tx: Tx, domain: str) -> None:
    """Serve a domain's names no longer."""
    tx.conn.execute(served_names.delete().where(served_names.c.domain == domain))


def _row(values: dict[str, Any]) -> dict[str, Any]:
    return {k: v.value if isinstance(v, Covers | Proof) else v for k, v in values.items()}
