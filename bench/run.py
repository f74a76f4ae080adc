"""Measures everything in one go and prints medians with their spread. `make bench`, or with names of parts."""
from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from bench import kept_bench, new_bench, vm_bench  # noqa: E402
from bench.report import Report  # noqa: E402

RESULTS = ROOT / "bench" / "results"


def vms() -> None:
    """Lifecycle and bytes through a VM."""
    report = Report("VMs")
    vm_bench.run(report)
    report.save(RESULTS)
    print(report.text())


def new() -> None:
    """`new` as a copy and as a boot, and what many VMs weigh."""
    report = Report("new")
    new_bench.run(report)
    report.save(RESULTS)
    print(report.text())


def kept() -> None:
    """Copies, snapshots, pauses, wakes, warm commands and files."""
    report = Report("Kept VMs")
    kept_bench.run(report)
    report.save(RESULTS)
    print(report.text())


def edge() -> None:
    """Requests through the edge against nginx and Caddy."""
    subprocess.run([sys.executable, ROOT / "bench/edge/bench_edge.py"], check=True, timeout=900)


def execs() -> None:
    """`/exec` latency and throughput."""
    subprocess.run([sys.executable, ROOT / "bench/exec_bench.py"], check=True, timeout=300)


def lobby() -> None:
    """The lobby over SSH."""
    subprocess.run([sys.executable, ROOT / "bench/lobby_bench.py"], check=True, timeout=300)


PARTS = {"vms": vms, "new": new, "kept": kept, "edge": edge, "exec": execs, "lobby": lobby}

if __name__ == "__main__":
    for name in sys.argv[1:] or PARTS:
        PARTS[name]()
