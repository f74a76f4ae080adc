"""A VM's state in words."""
from __future__ import annotations

import json
from dataclasses import dataclass

import sqlalchemy as sa

from ussycode.access.decide import Permit
from ussycode.base.db import Tx, events_table
from ussycode.ports import App
from ussycode.vms import ops
from ussycode.vms.documents import Status
from ussycode.vms.model import Vm

MAX_EVENTS = 10
"""Latest events that are told."""
_SENTENCES = {
    "running": "it answers", "starting": "it is being brought up, or waits for its turn",
    "stopped": "it was shut down", "paused": "its memory is on disk and it takes none on the host",
    "failed": "it died or never came up", "deleting": "it is being taken down",
}
_ADVICE = {
    "running": "nothing; ssh {name} opens a shell", "starting": "wait a moment, then ask again",
    "stopped": "start {name}", "paused": "resume {name}", "failed": "restart {name}",
    "deleting": "nothing; it will be gone soon",
}


@dataclass(frozen=True)
class Why:
    """An explanation. `events` are (unix seconds, what happened), latest last."""

    name: str
    status: Status
    sentence: str
    events: tuple[tuple[float, str], ...]
    console: str
    advice: str


async def explain(app: App, permit: Permit) -> Why:
    """Why the VM behind a permit is as it is."""

    def find(tx: Tx) -> Why:
        vm = ops.of(tx, permit)
        return Why(vm.name, vm.status, _sentence(vm), _events(tx, vm.id), vm.console, _advice(vm))

    return await app.db.read(find)


def _sentence(vm: Vm) -> str:
    said = vm.detail or _SENTENCES.get(vm.status, "")
    return f"{said}; {vm.remark}" if vm.remark else said


def _advice(vm: Vm) -> str:
    return _ADVICE.get(vm.status, "ls shows more").format(name=vm.name)


def _events(tx: Tx, vm: str) -> tuple[tuple[float, str], ...]:
    mine = sa.select(events_table.c.at, events_table.c.kind, events_table.c.data).where(events_table.c.subject == vm)
    rows = tx.conn.execute(mine.order_by(events_table.c.seq.desc()).limit(MAX_EVENTS)).all()
    return tuple((at, _told(kind, json.loads(data))) for at, kind, data in reversed(rows))


def _told(kind: str, data: dict[str, object]) -> str:
    if kind != "vm.observed":
        plain = kind.replace("vm.", "").replace(".", " ").replace("_", " ")
        return f"{plain}: {data['why']}" if data.get("why") else plain
    detail = f": {data['detail']}" if data.get("detail") else ""
    return f"seen {data.get('phase')}{detail}"
