"""SQL of VMs."""
from __future__ import annotations

import json
from typing import Any

import sqlalchemy as sa

from ussycode.base.db import Tx, metadata
from ussycode.runtime.driver import Isolation, Phase, Power
from ussycode.vms.model import Vm
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
    sa.Column("isolation", sa.String, nullable=False),
    sa.Column("command", sa.String, nullable=False),
)
FIRST_NUMBER, LAST_NUMBER = 2, 16_000
"""Numbers stand for addresses and uids; 0 and 1 are the platform's own."""


def _vm(row: Any) -> Vm:
    v = dict(row._mapping)
    env = tuple((k, x) for k, x in json.loads(v["env"]))
    command = tuple(json.loads(v["command"]))
    return Vm(**v | {"env": env, "command": command, "power": Power(v["power"]), "phase": Phase(v["phase"]),
                     "isolation": Isolation(v["isolation"])})


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
    """An account's VMs by name, without those being deleted."""
    query = sa.select(vms).where(vms.c.owner == owner, vms.c.power != Power.ABSENT.value).order_by(vms.c.name)
    return [_vm(r) for r in tx.conn.execute(query)]


def everything(tx: Tx) -> list[Vm]:
    """Every VM, those being deleted included."""
    return [_vm(r) for r in tx.conn.execute(sa.select(vms))]


def usage(tx: Tx, owner: str) -> Usage:
    """What an account has now."""
    columns = sa.func.count(), sa.func.sum(vms.c.memory_mib), sa.func.sum(vms.c.disk_gib)
    query = sa.select(*columns).where(vms.c.owner == owner, vms.c.power != Power.ABSENT.value)
    count, memory, disk = tx.conn.execute(query).one()
    return Usage(count, memory or 0, disk or 0)


def free_number(tx: Tx) -> int | None:
    """The smallest number no VM has; None when all are taken."""
    taken = {r[0] for r in tx.conn.execute(sa.select(vms.c.number))}
    return next((n for n in range(FIRST_NUMBER, LAST_NUMBER + 1) if n not in taken), None)


def insert(tx: Tx, vm: Vm) -> None:
    """Keep a new VM."""
    words = {"env": json.dumps(vm.env), "command": json.dumps(vm.command), "isolation": vm.isolation.value}
    row = vars(vm) | words | {"power": vm.power.value, "phase": vm.phase.value}
    tx.conn.execute(vms.insert(), row)


def update(tx: Tx, vm: str, **values: object) -> None:
    """Change columns of a VM."""
    tx.conn.execute(vms.update().where(vms.c.id == vm).values(**values))


def delete(tx: Tx, vm: str) -> None:
    """Forget a VM whose machine is gone."""
    tx.conn.execute(vms.delete().where(vms.c.id == vm))
