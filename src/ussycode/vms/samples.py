"""What VMs used over time: taken from the node now and then, thinned out with age, forgotten after 30 days."""
from __future__ import annotations

import asyncio
from collections.abc import Sequence

import msgspec
import sqlalchemy as sa

from ussycode.access.decide import Permit
from ussycode.base.db import Tx, metadata
from ussycode.base.errors import Failure
from ussycode.ports import App
from ussycode.runtime.driver import Sample
from ussycode.vms import ops, store
from ussycode.vms.model import Vm

AT_ONCE = 32
"""VMs that are asked at the same time: one that stalls takes a place for its timeout, and no more."""
INTERVAL = 60.0
"""Seconds between two samples of a VM."""
FINE_SECONDS = 86_400.0
"""How long every sample is kept; older ones are thinned to one an hour."""
KEEP_SECONDS = 30 * 86_400.0
RANGES = {"24h": 86_400.0, "7d": 7 * 86_400.0, "30d": 30 * 86_400.0}
MAX_POINTS = 1500
"""Points of one answer; more are thinned evenly."""
samples = sa.Table(
    "samples", metadata,
    sa.Column("vm", sa.String, sa.ForeignKey("vms.id", ondelete="CASCADE"), primary_key=True),
    sa.Column("at", sa.Float, primary_key=True),
    sa.Column("figures", sa.String, nullable=False),
)


async def take(app: App) -> int:
    """Sample every VM that runs; how many answered. A VM that does not answer is left out, and delays no other."""
    running = [vm.id for vm in await app.db.read(store.everything) if vm.running]
    asking = asyncio.Semaphore(AT_ONCE)
    asked = await asyncio.gather(*(_of(app, vm, asking) for vm in running))
    found = [(vm, sample) for vm, sample in zip(running, asked, strict=True) if sample is not None]

    def keep(tx: Tx) -> None:
        for vm, sample in found:
            if store.by_id(tx, vm) is not None:
                row = {"vm": vm, "at": tx.now, "figures": msgspec.json.encode(sample).decode()}
                tx.conn.execute(samples.insert().prefix_with("OR REPLACE"), row)
        _thin(tx)

    await app.db.write(keep)
    return len(found)


async def _of(app: App, vm: str, asking: asyncio.Semaphore) -> Sample | None:
    async with asking:
        try:
            return await app.link.sample(vm)
        except Failure:
            return None


def _thin(tx: Tx) -> None:
    tx.conn.execute(samples.delete().where(samples.c.at < tx.now - KEEP_SECONDS))
    tx.conn.execute(sa.text(
        "DELETE FROM samples WHERE at < :fine AND at NOT IN "
        "(SELECT min(at) FROM samples WHERE at < :fine GROUP BY vm, CAST(at / 3600 AS INTEGER))"
    ), {"fine": tx.now - FINE_SECONDS})


async def latest(app: App, wanted: Sequence[str]) -> dict[str, tuple[float, Sample]]:
    """When VMs were last looked at and what they used, by id; none for one that was not within a day."""
    def find(tx: Tx) -> dict[str, tuple[float, Sample]]:
        newest = sa.select(samples.c.vm, sa.func.max(samples.c.at), samples.c.figures)
        recent = newest.where(samples.c.at > tx.now - FINE_SECONDS).group_by(samples.c.vm)
        rows = tx.conn.execute(recent).all()
        asked = set(wanted)
        return {vm: (at, msgspec.json.decode(figures, type=Sample)) for vm, at, figures in rows if vm in asked}

    return await app.db.read(find)


async def of_range(app: App, permit: Permit, seconds: float) -> tuple[Vm, list[tuple[float, Sample]]]:
    """A VM and its samples of the last `seconds`, oldest first, at most MAX_POINTS."""

    def find(tx: Tx) -> tuple[Vm, list[tuple[float, Sample]]]:
        vm = ops.of(tx, permit)
        mine = (samples.c.vm == vm.id) & (samples.c.at >= tx.now - seconds)
        rows = tx.conn.execute(sa.select(samples.c.at, samples.c.figures).where(mine).order_by(samples.c.at)).all()
        step = max(1, -(-len(rows) // MAX_POINTS))
        return vm, [(at, msgspec.json.decode(figures, type=Sample)) for at, figures in rows[::step]]

    return await app.db.read(find)
