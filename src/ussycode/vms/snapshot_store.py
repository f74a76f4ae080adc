"""SQL of snapshots: which are wanted, which are to go, which a node has."""
from __future__ import annotations

from dataclasses import dataclass

import sqlalchemy as sa

from ussycode.base.db import Tx, metadata
from ussycode.base.events import SYSTEM, Event
from ussycode.runtime.driver import Seen

snapshots = sa.Table(
    "snapshots", metadata,
    sa.Column("id", sa.String, primary_key=True),
    sa.Column("vm", sa.String, sa.ForeignKey("vms.id", ondelete="CASCADE"), nullable=False, index=True),
    sa.Column("name", sa.String, nullable=False),
    *(sa.Column(name, sa.Boolean, nullable=False) for name in ("scheduled", "dropped", "there")),
    sa.Column("size", sa.Integer, nullable=False),
    sa.Column("created_at", sa.Float, nullable=False),
)


@dataclass(frozen=True)
class SnapshotRow:
    """A snapshot by name. `there` says that the node has it, `dropped` that it must go; `size` in bytes."""

    id: str
    vm: str
    name: str
    scheduled: bool
    dropped: bool
    there: bool
    size: int
    created_at: float


def insert(tx: Tx, row: SnapshotRow) -> None:
    """Want a snapshot."""
    tx.conn.execute(snapshots.insert(), vars(row))


def of_vm(tx: Tx, vm: str) -> list[SnapshotRow]:
    """A VM's snapshots, oldest first, without those that must go."""
    mine = (snapshots.c.vm == vm) & ~snapshots.c.dropped
    query = sa.select(snapshots).where(mine).order_by(snapshots.c.created_at, snapshots.c.id)
    return [SnapshotRow(**row._mapping) for row in tx.conn.execute(query)]


def drop(tx: Tx, snapshot: str) -> None:
    """Want a snapshot gone."""
    tx.conn.execute(snapshots.update().where(snapshots.c.id == snapshot).values(dropped=True))


def forget(tx: Tx, snapshot: str) -> None:
    """Forget a snapshot that was never taken."""
    tx.conn.execute(snapshots.delete().where(snapshots.c.id == snapshot))


def wanted_by_vm(tx: Tx) -> dict[str, tuple[tuple[str, ...], tuple[str, ...]]]:
    """Ids that must exist and ids that must not, by VM."""
    found: dict[str, tuple[list[str], list[str]]] = {}
    for row in tx.conn.execute(sa.select(snapshots.c.vm, snapshots.c.id, snapshots.c.dropped)):
        found.setdefault(row.vm, ([], []))[row.dropped].append(row.id)
    return {vm: (tuple(keep), tuple(gone)) for vm, (keep, gone) in found.items()}


def seen_by_vm(tx: Tx) -> dict[str, dict[str, tuple[bool, bool]]]:
    """(there, dropped) by VM and snapshot."""
    found: dict[str, dict[str, tuple[bool, bool]]] = {}
    for row in tx.conn.execute(sa.select(snapshots.c.vm, snapshots.c.id, snapshots.c.there, snapshots.c.dropped)):
        found.setdefault(row.vm, {})[row.id] = (row.there, row.dropped)
    return found


def differs(known: dict[str, tuple[bool, bool]], seen: Seen) -> bool:
    """What a node has is not what is noted of it."""
    has = {one.id for one in seen.snapshots}
    return any(there != (name in has) or (dropped and name not in has) for name, (there, dropped) in known.items())


def take_in(tx: Tx, vm: str, seen: Seen) -> None:
    """Note what a node has; what had to go and is gone is forgotten."""
    has = {one.id: one for one in seen.snapshots}
    for name, (there, dropped) in seen_by_vm(tx).get(vm, {}).items():
        one = has.get(name)
        if one is None and dropped:
            forget(tx, name)
        elif (one is not None) != there:
            size = one.size if one is not None else 0
            tx.conn.execute(snapshots.update().where(snapshots.c.id == name).values(there=one is not None, size=size))
            tx.emit(Event("snapshot.seen", SYSTEM, vm, {"snapshot": name}))
