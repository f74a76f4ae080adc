"""SQL of VMs."""
from __future__ import annotations

import json
from typing import Any

import msgspec
import sqlalchemy as sa

from ussycode.base.db import Tx, metadata
from ussycode.runtime.driver import Egress, Isolation, Origin, Phase, Power
from ussycode.vms.model import Mailbox, Vm
from ussycode.vms.policy import Usage

vms = sa.Table(
    "vms", metadata,
    sa.Column("id", sa.String, primary_key=True),
    sa.Column("number", sa.Integer, nullable=False, unique=True),
    sa.Column("name", sa.String, nullable=False, unique=True),
    sa.Column("owner", sa.String, sa.ForeignKey("users.id"), nullable=False, index=True),
    sa.Column("image", sa.String, nullable=False),
    sa.Column("env", sa.String, nullable=False),
    sa.Column("vcpus", sa.Integer, nullable=False),
    sa.Column("memory_mib", sa.Integer, nullable=False),
    sa.Column("disk_gib", sa.Integer, nullable=False),
    sa.Column("power", sa.String, nullable=False),
    sa.Column("boot", sa.Integer, nullable=False),
    sa.Column("secret", sa.String, nullable=False),
    sa.Column("phase", sa.String, nullable=False),
    sa.Column("seen_boot", sa.Integer, nullable=False),
    sa.Column("detail", sa.String, nullable=False),
    sa.Column("console", sa.String, nullable=False),
    sa.Column("address", sa.String, nullable=False),
    sa.Column("created_at", sa.Float, nullable=False),
    sa.Column("isolation", sa.String, nullable=False, server_default="vm"),
    sa.Column("command", sa.String, nullable=False, server_default="[]"),
    *(sa.Column(name, sa.String, nullable=False, server_default=default) for name, default in (
        ("comment", ""), ("tags", "[]"), ("egress", "all"), ("origin", "{}"), ("trash_name", ""), ("notice", ""),
        ("warning", ""), ("mailbox", "off"),
    )),
    *(sa.Column(name, sa.Integer, nullable=False, server_default=default) for name, default in (
        ("disk_turn", "1"), ("seen_disk_turn", "0"), ("seen_disk_gib", "0"),
    )),
    *(sa.Column(name, sa.Boolean, nullable=False, server_default=sa.false())
      for name in ("wake", "cold", "snapshot_daily")),
    sa.Column("trashed_at", sa.Float, nullable=False, server_default="0"),
)
_ENUMS: dict[str, Any] = {
    "power": Power, "phase": Phase, "isolation": Isolation, "egress": Egress, "mailbox": Mailbox,
}
_WORDS = msgspec.json.Decoder(tuple[str, ...])
_JSON: dict[str, msgspec.json.Decoder[Any]] = {
    "env": msgspec.json.Decoder(tuple[tuple[str, str], ...]), "command": _WORDS, "tags": _WORDS,
    "origin": msgspec.json.Decoder(Origin),
}
FIRST_NUMBER, LAST_NUMBER = 2, 16_000
"""Numbers stand for addresses and uids; 0 and 1 are the platform's own."""


def _vm(row: Any) -> Vm:
    v = dict(row._mapping)
    for name, kind in _ENUMS.items():
        v[name] = kind(v[name])
    for name, decoder in _JSON.items():
        v[name] = decoder.decode(v[name])
    return Vm(**v)


def _row(values: dict[str, Any]) -> dict[str, Any]:
    """Values as columns hold them."""
    made = dict(values)
    for name in _ENUMS.keys() & values.keys():
        made[name] = values[name].value
    for name in ("env", "command", "tags"):
        if name in values:
            made[name] = json.dumps(values[name])
    if "origin" in values:
        made["origin"] = msgspec.json.encode(values["origin"]).decode()
    return made


def by_name(tx: Tx, name: str) -> Vm | None:
    """The VM called `name`."""
    row = tx.conn.execute(sa.select(vms).where(vms.c.name == name)).first()
    return None if row is None else _vm(row)


def by_id(tx: Tx, vm: str) -> Vm | None:
    """The VM with this id, also while it is being deleted."""
    row = tx.conn.execute(sa.select(vms).where(vms.c.id == vm)).first()
    return None if row is None else _vm(row)


def by_number(tx: Tx, number: int) -> Vm | None:
    """The VM with this number, also while it is being deleted."""
    row = tx.conn.execute(sa.select(vms).where(vms.c.number == number)).first()
    return None if row is None else _vm(row)


def of_owner(tx: Tx, owner: str) -> list[Vm]:
    """An account's VMs by name, without those being deleted or in the trash."""
    here = (vms.c.power != Power.ABSENT.value) & (vms.c.trashed_at == 0)
    query = sa.select(vms).where(vms.c.owner == owner, here).order_by(vms.c.name)
    return [_vm(r) for r in tx.conn.execute(query)]


def everything(tx: Tx) -> list[Vm]:
    """Every VM, those being deleted included."""
    return [_vm(r) for r in tx.conn.execute(sa.select(vms))]


def ids(tx: Tx) -> frozenset[str]:
    """Ids of every VM, those being deleted included."""
    return frozenset(tx.conn.execute(sa.select(vms.c.id)).scalars())


def usage(tx: Tx, owner: str) -> Usage:
    """What an account has now."""
    found = of_owner(tx, owner)
    memory = sum(vm.memory_mib for vm in found if vm.power is Power.RUNNING)
    disk = sum(vm.disk_gib for vm in (*found, *trashed_of(tx, owner)))
    return Usage(len(found), memory, disk, max((vm.vcpus for vm in found), default=0))


def trashed_of(tx: Tx, owner: str) -> list[Vm]:
    """An account's VMs in the trash, oldest first."""
    query = sa.select(vms).where(vms.c.owner == owner, vms.c.trashed_at > 0, vms.c.power != Power.ABSENT.value)
    return [_vm(r) for r in tx.conn.execute(query.order_by(vms.c.trashed_at, vms.c.id))]


def trashed_before(tx: Tx, at: float) -> list[Vm]:
    """VMs in the trash since before `at`."""
    old = (vms.c.trashed_at > 0) & (vms.c.trashed_at < at) & (vms.c.power != Power.ABSENT.value)
    return [_vm(r) for r in tx.conn.execute(sa.select(vms).where(old))]


def free_number(tx: Tx) -> int | None:
    """The smallest number no VM has; None when all are taken."""
    taken = {r[0] for r in tx.conn.execute(sa.select(vms.c.number))}
    return next((n for n in range(FIRST_NUMBER, LAST_NUMBER + 1) if n not in taken), None)


def insert(tx: Tx, vm: Vm) -> None:
    """Keep a new VM."""
    tx.conn.execute(vms.insert(), _row(vars(vm)))


def update(tx: Tx, vm: str, **values: object) -> None:
    """Change columns of a VM; values as `Vm` has them, or as SQL."""
    plain = {k: v for k, v in values.items() if isinstance(v, sa.ColumnElement | str)}
    made = {k: v for k, v in values.items() if k not in plain}
    tx.conn.execute(vms.update().where(vms.c.id == vm).values(**_row(made), **plain))


def delete(tx: Tx, vm: str) -> None:
    """Forget a VM whose machine is gone."""
    tx.conn.execute(vms.delete().where(vms.c.id == vm))
