"""Limits on QEMU itself: cgroup v2 where the host has it, v1 controllers where not, a stated reason otherwise."""
from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import nullcontext, suppress
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path("/sys/fs/cgroup")
_V1 = ("memory", "pids", "cpu", "cpuacct", "blkio")
_V2 = ("memory", "pids", "cpu")
_V2_WISHED = ("io",)
"""Controllers without which a host is served all the same."""
_NEEDED = ("memory", "pids")
"""Controllers whose limits must be in force, or the VM does not start."""
PERIOD_US = 100_000
"""Length of the kernel's CPU accounting period in microseconds."""
SPARE_CPUS = 1
"""CPUs beyond its virtual ones that a VM's process may use, for its disk and network threads."""
IO_BYTES = 500 << 20
IO_OPERATIONS = 20_000
"""What one VM may read, and as much again write, per second: a ceiling; below it the host's scheduler shares."""


@dataclass(frozen=True)
class Limits:
    """`memory` in bytes, `threads` of the process, `shares` relative to 100 for an ordinary process.

    `disk` is the device (`major:minor`) under the VM's disk; empty when the file system has none of its own.
    """

    memory: int
    threads: int
    shares: int
    vcpus: int = 1
    disk: str = ""


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

    def sweep(self) -> int:
        """Remove groups of VMs without a process, as a crash of the host's or ours leaves them; how many.

        Every hierarchy of the host is looked at: runc makes groups in more of them than limits are set in.
        """
        folders = (*self.root.glob(f"*/{self.name}/vm-*"), *self.root.glob(f"{self.name}/vm-*"))
        return sum(_removed(folder) for folder in folders)

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
            yield self.root / self.name / f"vm-{number}", _V2 + _V2_WISHED
        if self.version == 1:
            yield from ((self.root / c / self.name / f"vm-{number}", (c,)) for c in _V1 if (self.root / c).is_dir())


def _removed(folder: Path) -> bool:
    """A group and what is below it, unless a process is in any of them."""
    below = [Path(place) for place, _, _ in os.walk(folder, topdown=False)]
    try:
        if any((place / "cgroup.procs").read_text().strip() for place in below):
            return False
        for place in below:
            place.rmdir()
    except OSError:
        return False  # a process came in meanwhile, or it went by itself
    return True


def detect(name: str, root: Path = ROOT) -> Cgroups:
    """What this host offers for the instance `name`; never fails, degrades with a reason."""
    if (root / "cgroup.controllers").exists():
        return _unified(name, root)
    present = [c for c in _V1 if (root / c / "cgroup.procs").exists()]
    if "memory" not in present or not os.access(root / "memory", os.W_OK):
        return Cgroups(0, name, "no memory controller: a VM's process is limited by nothing but its size", root)
    missing = [c for c in _V1 if c not in present]
    lacks = [f"without {', '.join(missing)}"] if missing else []
    if "blkio" in present:
        lacks.append("does not bound writes that the host's memory takes first")
    return Cgroups(1, name, "; ".join(f"cgroup v1 {what}" for what in lacks), root)


def _unified(name: str, root: Path) -> Cgroups:
    try:
        _delegate(root)
        (root / name).mkdir(exist_ok=True)
        _delegate(root / name)
    except OSError as error:
        return Cgroups(0, name, f"cgroup v2 cannot be used here ({error.strerror}): VM processes are not limited", root)
    offered = (root / "cgroup.controllers").read_text().split()
    missing = [wished for wished in _V2_WISHED if wished not in offered]
    return Cgroups(2, name, f"cgroup v2 without {', '.join(missing)}" if missing else "", root)


def _delegate(folder: Path) -> None:
    enabled = (folder / "cgroup.subtree_control").read_text().split()
    offered = (folder / "cgroup.controllers").read_text().split()
    for controller in (*_V2, *(wished for wished in _V2_WISHED if wished in offered)):
        if controller not in enabled:
            (folder / "cgroup.subtree_control").write_text(f"+{controller}")


def _limit(folder: Path, controllers: tuple[str, ...], limits: Limits, version: int) -> None:
    written = _V2_FILES if version == 2 else _V1_FILES
    for controller in controllers:
        for name, value in written.get(controller, ()):
            needed = controller in _NEEDED
            if (needed or (folder / name).exists()) and (text := value(limits)):
                # Some devices cannot be limited (ENODEV); such a host is served all the same.
                with nullcontext() if needed else suppress(OSError):
                    (folder / name).write_text(text)


def disk_under(path: Path, devices: Path = Path("/sys/dev/block")) -> str:
    """The whole disk (`major:minor`) on which a folder lies; empty for file systems without one, as btrfs or tmpfs."""
    device = path.stat().st_dev
    entry = devices / f"{os.major(device)}:{os.minor(device)}"
    if not entry.exists():
        return ""
    whole = entry.resolve().parent if (entry / "partition").exists() else entry
    return (whole / "dev").read_text().strip()


_Written = Mapping[str, tuple[tuple[str, Callable[[Limits], str]], ...]]
def _quota(limits: Limits) -> int:
    return (limits.vcpus + SPARE_CPUS) * PERIOD_US


def _on_disk(most: int) -> Callable[[Limits], str]:
    return lambda limits: f"{limits.disk} {most}" if limits.disk else ""


_V2_FILES: _Written = {
    "memory": (("memory.max", lambda limits: str(limits.memory)),),
    "pids": (("pids.max", lambda limits: str(limits.threads)),),
    "cpu": (
        ("cpu.weight", lambda limits: str(limits.shares)),
        ("cpu.max", lambda limits: f"{_quota(limits)} {PERIOD_US}"),
    ),
    "io": (
        ("io.max", lambda limits: limits.disk and (
            f"{limits.disk} rbps={IO_BYTES} wbps={IO_BYTES} riops={IO_OPERATIONS} wiops={IO_OPERATIONS}")),
    ),
}
_V1_FILES: _Written = {
    "memory": (("memory.limit_in_bytes", lambda limits: str(limits.memory)),),
    "pids": (("pids.max", lambda limits: str(limits.threads)),),
    "cpu": (
        ("cpu.shares", lambda limits: str(limits.shares * 1024 // 100)),
        ("cpu.cfs_period_us", lambda limits: str(PERIOD_US)),
        ("cpu.cfs_quota_us", lambda limits: str(_quota(limits))),
    ),
    "blkio": tuple(
        (f"blkio.throttle.{way}_{what}_device", _on_disk(most))
        for way in ("read", "write") for what, most in (("bps", IO_BYTES), ("iops", IO_OPERATIONS))
    ),
}


def _number(path: Path) -> int:
    """First number in a counter file; -1 when there is none."""
    try:
        return next((int(word) for word in path.read_text().split() if word.isdigit()), -1)
    except OSError:
        return -1
