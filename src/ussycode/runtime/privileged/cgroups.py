"""Limits on QEMU itself: cgroup v2 where the host has it, v1 controllers where not, a stated reason otherwise."""
from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path("/sys/fs/cgroup")
_V1 = ("memory", "pids", "cpu", "cpuacct")
_V2 = ("memory", "pids", "cpu")


@dataclass(frozen=True)
class Limits:
    """`memory` in bytes, `threads` of the process, `shares` relative to 100 for an ordinary process."""

    memory: int
    threads: int
    shares: int


@dataclass(frozen=True)
class Cgroups:
    """The cgroup tree of one instance. `version` is 2, 1 or 0; `why` says what cannot be enforced."""

    version: int
    name: str
    why: str = ""
    root: Path = field(default=ROOT)

    def enter(self, number: int, limits: Limits) -> list[int]:
        """Make the VM's groups; the open `cgroup.procs` files into which its process writes `0`."""
        joins = []
        for folder, controllers in self._folders(number):
            folder.mkdir(parents=True, exist_ok=True)
            _limit(folder, controllers, limits, self.version)
            joins.append(os.open(folder / "cgroup.procs", os.O_WRONLY | os.O_CLOEXEC))
        return joins

    def leave(self, number: int) -> None:
        """Remove the VM's groups; a group that still holds a process stays."""
        for folder, _ in self._folders(number):
            with suppress(OSError):
                folder.rmdir()

    def clear(self) -> None:
        """Remove the instance's own folders when they are empty."""
        for folder in {folder.parent for folder, _ in self._folders(0)}:
            with suppress(OSError):
                folder.rmdir()

    def used(self, number: int) -> tuple[int, int, int]:
        """Bytes, CPU nanoseconds and threads of the VM's process; -1 for what is not counted."""
        found = {name: folder for folder, names in self._folders(number) for name in names}
        if self.version == 2:
            folder = found["memory"]
            cpu = _number(folder / "cpu.stat")
            return _number(folder / "memory.current"), cpu * 1000 if cpu >= 0 else -1, _number(folder / "pids.current")
        none = Path("/nonexistent")
        return (
            _number(found.get("memory", none) / "memory.usage_in_bytes"),
            _number(found.get("cpuacct", none) / "cpuacct.usage"),
            _number(found.get("pids", none) / "pids.current"),
        )

    def _folders(self, number: int) -> Iterator[tuple[Path, tuple[str, ...]]]:
        if self.version == 2:
            yield self.root / self.name / f"vm-{number}", _V2
        if self.version == 1:
            yield from ((self.root / c / self.name / f"vm-{number}", (c,)) for c in _V1 if (self.root / c).is_dir())


def detect(name: str, root: Path = ROOT) -> Cgroups:
    """What this host offers for the instance `name`; never fails, degrades with a reason."""
    if (root / "cgroup.controllers").exists():
        return _unified(name, root)
    present = [c for c in _V1 if (root / c / "cgroup.procs").exists()]
    if "memory" not in present or not os.access(root / "memory", os.W_OK):
        return Cgroups(0, name, "no memory controller: a VM's process is limited by nothing but its size", root)
    missing = [c for c in _V1 if c not in present]
    return Cgroups(1, name, f"cgroup v1 without {', '.join(missing)}" if missing else "", root)


def _unified(name: str, root: Path) -> Cgroups:
    try:
        _delegate(root)
        (root / name).mkdir(exist_ok=True)
        _delegate(root / name)
    except OSError as error:
        return Cgroups(0, name, f"cgroup v2 cannot be used here ({error.strerror}): VM processes are not limited", root)
    return Cgroups(2, name, "", root)


def _delegate(folder: Path) -> None:
    enabled = (folder / "cgroup.subtree_control").read_text().split()
    for controller in _V2:
        if controller not in enabled:
            (folder / "cgroup.subtree_control").write_text(f"+{controller}")


def _limit(folder: Path, controllers: tuple[str, ...], limits: Limits, version: int) -> None:
    written = _V2_FILES if version == 2 else _V1_FILES
    for controller in controllers:
        if controller in written:
            name, value = written[controller]
            (folder / name).write_text(str(value(limits)))


_Written = Mapping[str, tuple[str, Callable[[Limits], int]]]
_V2_FILES: _Written = {
    "memory": ("memory.max", lambda limits: limits.memory),
    "pids": ("pids.max", lambda limits: limits.threads),
    "cpu": ("cpu.weight", lambda limits: limits.shares),
}
_V1_FILES: _Written = {
    "memory": ("memory.limit_in_bytes", lambda limits: limits.memory),
    "pids": ("pids.max", lambda limits: limits.threads),
    "cpu": ("cpu.shares", lambda limits: limits.shares * 1024 // 100),
}


def _number(path: Path) -> int:
    """First number in a counter file; -1 when there is none."""
    try:
        return next((int(word) for word in path.read_text().split() if word.isdigit()), -1)
    except OSError:
        return -1
