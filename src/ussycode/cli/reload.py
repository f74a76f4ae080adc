"""`ussycode reload`: new edge processes take over from the old ones, and nobody who is connected notices."""
from __future__ import annotations

import argparse
import os
import signal
import time

from ussycode.base.errors import ErrorCode, Kind
from ussycode.cli import state
from ussycode.config import Config

RELOAD_SECONDS = 60.0
"""Longest wait for each of the edges to be replaced."""
NOT_UP = ErrorCode("reload.not_up", Kind.CONFLICT, "ussycode does not run on {data}", hint="ussycode up")
NOT_DONE = ErrorCode("reload.failed", Kind.FAILED, "{why}", hint="the log: {log}")


def reload(config: Config, _asked: argparse.Namespace) -> int:
    """Replace every edge; returns when the new ones serve. Raises NOT_UP or NOT_DONE, and then the old ones do."""
    before = state.read(config.data_dir)
    if before is None or not state.alive(before.supervisor) or before.phase != "ready":
        raise NOT_UP(data=config.data_dir)
    os.kill(before.supervisor.pid, signal.SIGUSR1)  # not SIGHUP, which a closed terminal sends as well
    log = config.data_dir / "log" / "edge0.log"
    deadline = time.monotonic() + RELOAD_SECONDS * config.edge_processes
    while (now := state.read(config.data_dir)) is None or now.reloads == before.reloads:
        if time.monotonic() > deadline or not state.alive(before.supervisor):
            raise NOT_DONE(why="the edges were not replaced in time", log=log)
        time.sleep(0.05)
    if now.reload_error:
        raise NOT_DONE(why=now.reload_error, log=log)
    leaving = sum(1 for c in now.children if c.role.startswith("edge-retired") and state.alive(c))
    print(f"edges replaced: {config.edge_processes}")
    if leaving:
        print(f"old ones with open connections: {leaving}; they go when those end, within {config.edge_retire} s")
    return 0
