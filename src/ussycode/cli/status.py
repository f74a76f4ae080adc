"""`ussycode status`: what runs, where it listens, how the VMs are."""
from __future__ import annotations

import argparse
import json
from collections import Counter
from dataclasses import asdict, dataclass

from ussycode.base.clock import SystemClock
from ussycode.base.db import Database
from ussycode.cli import state
from ussycode.config import Config
from ussycode.runtime.drivers.qemu import template
from ussycode.vms import store


def status(config: Config, asked: argparse.Namespace) -> int:
    """Print the state; exit status 0 when the platform is ready, 1 when it is not."""
    found = look(config)
    if asked.json:
        print(json.dumps(asdict(found)))
        return 0 if found.state == "ready" else 1
    print(f"ussycode is {found.state}" + (f" (pid {found.pid})" if found.pid else ""))
    for name, port in found.ports.items():
        print(f"  {name:8} port {port}")
    for name, count in found.vms.items():
        print(f"  VMs {name}: {count}")
    for one in found.templates:
        print(f"  template of {one}")
    return 0 if found.state == "ready" else 1


@dataclass(frozen=True)
class Status:
    """What runs. `state` is down, starting, ready or stopping; `pid` is the supervisor's; `vms` counts by status.

    `templates` says of what there are templates, in words.
    """

    state: str
    pid: int | None
    domain: str
    ports: dict[str, int]
    processes: dict[str, int]
    vms: dict[str, int]
    templates: list[str]


def look(config: Config) -> Status:
    """The state of the platform on the configured data folder."""
    now = state.read(config.data_dir)
    if now is None or not state.alive(now.supervisor):
        return Status("down", None, config.domain, {}, {}, _vms(config), [])
    alive = {c.role: c.pid for c in now.children if state.alive(c)}
    return Status(now.phase, now.supervisor.pid, now.domain, now.ports, alive, _vms(config), _templates(config))


def _templates(config: Config) -> list[str]:
    return [f"{one.of.image or 'a kernel'} with {one.of.memory_mib} MiB, taking {one.size >> 20} MiB"
            for one in template.every(config.data_dir)]


def _vms(config: Config) -> dict[str, int]:
    file = config.data_dir / "control" / "ussycode.db"
    try:
        present = file.exists()
    except PermissionError:
        return {}
    if not present:
        return {}
    db = Database(file, SystemClock())
    try:
        return dict(Counter(vm.status for vm in db.read_now(store.everything)))
    finally:
        db.close()
