"""Medians and tables, one way for every bench."""
from __future__ import annotations

import json
import math
import os
import statistics
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path


@dataclass
class Report:
    """Figures of one run: what, unit, and each round's value."""

    title: str
    rows: list[tuple[str, str, list[float]]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def add(self, what: str, unit: str, values: Sequence[float]) -> None:
        """One figure, measured several times."""
        self.rows.append((what, unit, list(values)))

    def median(self, what: str) -> float:
        """Median of a figure added before."""
        return statistics.median(next(values for name, _, values in self.rows if name == what))

    def text(self) -> str:
        """A table of median, 95th percentile, minimum and maximum, below what it was measured on."""
        lines = [f"## {self.title}", "", f"on {machine()}", ""]
        for what, unit, v in self.rows:
            late = sorted(v)[math.ceil(0.95 * len(v)) - 1]
            lines.append(f"{what:58} {statistics.median(v):10.2f} {unit:8} p95 {late:.2f} "
                         f"[{min(v):.2f} - {max(v):.2f}] n={len(v)}")
        return "\n".join([*lines, *self.notes, ""])

    def save(self, folder: Path) -> None:
        """Keep the raw values beside the table."""
        folder.mkdir(parents=True, exist_ok=True)
        name = self.title.lower().replace(" ", "-").replace("/", "-")
        rows = [{"what": w, "unit": u, "values": v} for w, u, v in self.rows]
        (folder / f"{name}.json").write_text(json.dumps({
            "title": self.title, "machine": machine(), "rows": rows, "notes": self.notes,
        }))


def machine() -> str:
    """What figures depend on besides the code: CPU, memory, kernel, QEMU."""
    def found(file: str, name: str) -> str:
        lines = Path(file).read_text().splitlines()
        return next((line.partition(":")[2].strip() for line in lines if line.startswith(name)), "unknown")

    memory = int(found("/proc/meminfo", "MemTotal").split()[0]) >> 20
    qemu = subprocess.run(["qemu-system-x86_64", "--version"], capture_output=True, text=True, timeout=20, check=False)
    said = qemu.stdout.partition("\n")[0] or "no QEMU"
    cpus = f"{os.cpu_count()} x {found('/proc/cpuinfo', 'model name')}"
    return f"{cpus}, {memory} GiB, Linux {os.uname().release}, {said}"
