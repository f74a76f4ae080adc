"""What commands about a VM's life answer; names follow the wire contract."""
from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Literal, cast

from ussycode.base.clock import rfc3339
from ussycode.base.errors import printable
from ussycode.cmdline.render import Style, table
from ussycode.runtime.driver import Sample
from ussycode.vms.documents import (
    CopyDocument,
    FieldDocument,
    PointDocument,
    Range,
    ResizeDocument,
    StatDocument,
    StateDocument,
    Status,
)
from ussycode.vms.model import Vm
from ussycode.vms.policy import Size
from ussycode.vms.views import VmPlace

GIB = float(1 << 30)


@dataclass(frozen=True)
class StateView:
    """A VM in its new state. `cold` says that a resume had to boot; None where that is no question."""

    vm_name: str
    status: Status
    cold: bool | None = None

    def text(self, style: Style) -> str:
        """One line."""
        booted = "; its memory was lost, so it booted" if self.cold else ""
        return f"{self.vm_name} is {self.status}{booted}"

    def document(self) -> StateDocument:
        """The document of `start`, `stop`, `pause` and `resume`."""
        made: StateDocument = {"vm_name": self.vm_name, "status": self.status}
        if self.cold is not None:
            made["cold_booted"] = "true" if self.cold else "false"
        return made


@dataclass(frozen=True)
class FieldView:
    """A VM with one thing that was changed."""

    vm_name: str
    field: Literal["comment", "tags", "egress_policy", "wake", "snapshot_daily"]
    value: str | bool | list[str]

    def text(self, style: Style) -> str:
        """One line."""
        shown = ", ".join(self.value) if isinstance(self.value, list) else printable(str(self.value))
        return f"{self.vm_name} {self.field.replace('_', ' ')}: {shown or '-'}"

    def document(self) -> FieldDocument:
        """The document of `comment`, `tag`, `egress` and `wake`."""
        return cast(FieldDocument, {"vm_name": self.vm_name, self.field: self.value})


@dataclass(frozen=True)
class CopyView:
    """A copy that answers. `elapsed` in seconds."""

    vm: Vm
    source: str
    place: VmPlace
    left: tuple[str, ...]
    elapsed: float

    def text(self, style: Style) -> str:
        """Where it is reached, and what it does not have."""
        head = f"{style.paint(self.vm.name, 'green')} is a copy of {self.source}"
        where = f"  shell  {self.place.ssh_command}\n  web    {self.place.https_url}"
        return f"{head}\n{where}\nnot copied: {', '.join(self.left)}"

    def document(self) -> CopyDocument:
        """The document of `cp`."""
        made: CopyDocument = {
            "name": self.vm.name, "state": "starting", "source": self.source, "ssh": self.place.ssh_dest,
            "ssh_host": self.place.ssh_dest.partition("@")[2], "ssh_user": self.vm.name,
            "https_url": self.place.https_url, "tags": list(self.vm.tags), "created_at": rfc3339(self.vm.created_at),
            "egress_policy": self.vm.egress, "elapsed": round(self.elapsed, 3), "not_copied": list(self.left),
        }
        if self.vm.comment:
            made["comment"] = self.vm.comment
        return made


@dataclass(frozen=True)
class ResizeView:
    """Sizes before and after."""

    vm_name: str
    old: Size
    new: Size

    def text(self, style: Style) -> str:
        """One line for each size that changed."""
        lines = []
        if self.old.disk_gib != self.new.disk_gib:
            lines.append(f"{self.vm_name} has a disk of {self.new.disk_gib} GiB")
        if self.old.memory_mib != self.new.memory_mib:
            lines.append(f"{self.vm_name} gets {self.new.memory_mib} MiB of memory with its next start")
        if self.old.vcpus != self.new.vcpus:
            lines.append(f"{self.vm_name} gets {self.new.vcpus} CPUs with its next start")
        return "\n".join(lines) or f"{self.vm_name} stays as it is"

    def document(self) -> ResizeDocument:
        """The document of `resize`; each group only when it changed."""
        made: ResizeDocument = {"vm_name": self.vm_name}
        if self.old.memory_mib != self.new.memory_mib:
            made["old_memory"], made["new_memory"] = self.old.memory_mib << 20, self.new.memory_mib << 20
        if self.old.vcpus != self.new.vcpus:
            made["old_cpus"], made["new_cpus"] = self.old.vcpus, self.new.vcpus
        if self.old.disk_gib != self.new.disk_gib:
            made["disk_old_bytes"], made["disk_new_bytes"] = self.old.disk_gib << 30, self.new.disk_gib << 30
        return made


@dataclass(frozen=True)
class StatView:
    """Samples of a VM over a range."""

    vm: Vm
    range: Range
    points: tuple[tuple[float, Sample], ...]

    def text(self, style: Style) -> str:
        """The last hours as a table, newest last."""
        if not self.points:
            return f"{self.vm.name} is {self.vm.status}; nothing was measured in the last {self.range}"
        rows = [[p["timestamp"], p["cpu_cores"], _mib(p["mem_used_bytes"]), p["fs_used_gb"], p["network_rx_mbps"],
                 p["network_tx_mbps"]] for p in self._points()[-20:]]
        head = ["TIME", "CPUS", "MEMORY MIB", "DISK GB", "RX MBIT/S", "TX MBIT/S"]
        return table(head, [[str(c) for c in row] for row in rows], style)

    def document(self) -> StatDocument:
        """The document of `stat`."""
        points = self._points()
        return {"name": self.vm.name, "status": self.vm.status, "range": self.range, "points": points or None}

    def _points(self) -> list[PointDocument]:
        if len(self.points) == 1:
            return [self._point(self.points[0], self.points[0])]
        return [self._point(before, now) for before, now in pairwise(self.points)]

    def _point(self, before: tuple[float, Sample], now: tuple[float, Sample]) -> PointDocument:
        (then, old), (at, new) = before, now
        fs_used = (new.fs_total - new.fs_free) / GIB if new.fs_total > 0 else 0.0
        return {
            "timestamp": rfc3339(at), "vm_name": self.vm.name, "cpu_nominal": self.vm.vcpus,
            "cpu_cores": _rate(old.cpu_seconds, new.cpu_seconds, at - then),
            "mem_used_bytes": max(0, new.memory_used), "mem_total_bytes": max(0, new.memory_total),
            "disk_size_gb": float(self.vm.disk_gib), "disk_used_gb": round(max(0, new.disk_allocated) / GIB, 3),
            "disk_logical_used_gb": round(fs_used, 3), "fs_used_gb": round(fs_used, 3),
            "fs_total_gb": round(max(0, new.fs_total) / GIB, 3), "fs_free_gb": round(max(0, new.fs_free) / GIB, 3),
            "fs_available_gb": round(max(0, new.fs_free) / GIB, 3),
            "network_tx_mbps": _rate(old.net_tx * 8e-6, new.net_tx * 8e-6, at - then),
            "network_rx_mbps": _rate(old.net_rx * 8e-6, new.net_rx * 8e-6, at - then),
            "io_read_mbps": _rate(old.io_read * 8e-6, new.io_read * 8e-6, at - then),
            "io_write_mbps": _rate(old.io_write * 8e-6, new.io_write * 8e-6, at - then),
        }


def _rate(before: float, now: float, seconds: float) -> float:
    """Growth a second; 0 where a counter began anew."""
    return round(max(0.0, now - before) / seconds, 4) if seconds > 0 else 0.0


def _mib(value: object) -> str:
    return str(int(str(value)) >> 20)
