"""SQL of ports: which one is primary and which are public."""
from __future__ import annotations

import sqlalchemy as sa

from ussycode.base.db import Tx, metadata

vm_ports = sa.Table(
    "vm_ports", metadata,
    sa.Column("vm", sa.String, sa.ForeignKey("vms.id", ondelete="CASCADE"), primary_key=True),
    sa.Column("port", sa.Integer, primary_key=True),
    sa.Column("primary", sa.Boolean, nullable=False),
    sa.Column("public", sa.Boolean, nullable=False),
)


def ports_of(tx: Tx, vm: str) -> dict[int, tuple[bool, bool]]:
    """Port -> (primary, public) of the ports somebody chose; a VM nobody touched has none."""
    query = sa.select(vm_ports.c.port, vm_ports.c.primary, vm_ports.c.public).where(vm_ports.c.vm == vm)
    return {r[0]: (r[1], r[2]) for r in tx.conn.execute(query)}


def all_ports(tx: Tx) -> dict[str, dict[int, tuple[bool, bool]]]:
    """The same for every VM."""
    found: dict[str, dict[int, tuple[bool, bool]]] = {}
    for row in tx.conn.execute(sa.select(vm_ports)):
        found.setdefault(row.vm, {})[row.port] = (row.primary, row.public)
    return found


def replace(tx: Tx, vm: str, ports: dict[int, tuple[bool, bool]]) -> None:
    """Make `ports` the whole truth about a VM."""
    tx.conn.execute(vm_ports.delete().where(vm_ports.c.vm == vm))
    for port, (primary, public) in ports.items():
        tx.conn.execute(vm_ports.insert(), {"vm": vm, "port": port, "primary": primary, "public": public})
