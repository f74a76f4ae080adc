"""What is running: a file the supervisor keeps, so that `down`, `status` and the next `up` know."""
from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import msgspec

from ussycode.base.errors import ErrorCode, Kind
from ussycode.base.unreadable import UNREADABLE

ALREADY_UP = ErrorCode(
    "up.already", Kind.CONFLICT, "ussycode already runs on {data} (pid {pid})", hint="ussycode status, or ussycode down"
)


class Child(msgspec.Struct, frozen=True):
    """One process. `started` is its start time in clock ticks since boot: with the pid it names it for good."""

    role: str
    pid: int
    started: int


class State(msgspec.Struct, frozen=True):
    """The platform on one data folder. `phase` is starting, ready or stopping."""

    phase: str
    supervisor: Child
    children: list[Child]
    domain: str
    ports: dict[str, int]
    reloads: int = 0
    """How often the edges were asked to be replaced, done or failed."""
    reload_error: str = ""
    """Why the last one failed."""


def path(data: Path) -> Path:
    """Where the state of the platform on `data` is kept."""
    return data / "run" / "state.json"


def read(data: Path) -> State | None:
    """The last state; None when there never was one."""
    try:
        return msgspec.json.decode(path(data).read_bytes(), type=State)
    except (OSError, *UNREADABLE):
        return None


def write(data: Path, state: State) -> None:
    """Replace the state file."""
    target = path(data)
    target.parent.mkdir(mode=0o755, exist_ok=True)
    fresh = target.with_suffix(".new")
    fresh.write_bytes(msgspec.json.encode(state))
    fresh.replace(target)


def child(role: str, pid: int) -> Child:
    """A running process by pid."""
    return Child(role, pid, start_time(pid) or 0)


def start_time(pid: int) -> int | None:
    """Start time of a process in clock ticks since boot; None when it is gone or a zombie."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] == "Z" else int(fields[19])


def alive(process: Child) -> bool:
    """Whether exactly this process still runs."""
    return start_time(process.pid) == process.started


def end(process: Child, seconds: float) -> None:
    """Ask a process to end, insist after `seconds`; returns when it is gone."""
    for number, patience in ((signal.SIGTERM, seconds), (signal.SIGKILL, 5.0)):
        if not alive(process):
            return
        os.kill(process.pid, number)
        deadline = time.monotonic() + patience
        while alive(process) and time.monotonic() < deadline:
            time.sleep(0.02)


def end_orphans(data: Path) -> None:
    """End what an earlier supervisor left behind, edges last so that URLs answer as long as possible."""
    state = read(data)
    if state is None:
        return
    if alive(state.supervisor):
        raise ALREADY_UP(data=data, pid=state.supervisor.pid)
    for process in sorted(state.children, key=lambda c: c.role.startswith(("edge", "front"))):
        end(process, 5)
