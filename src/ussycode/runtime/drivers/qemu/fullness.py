"""Disks that are full: the guest's own, of which its owner is warned, and the host's, on which VMs stand still."""
from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

from ussycode.runtime import disks
from ussycode.runtime.drivers.qemu.monitor import Monitor

WARN_AT, URGE_AT = 80, 95
"""Percent of the guest's root file system in use from which its owner is told, and told more plainly."""
GO_ON_MIB = 64
"""Free space on the host with which a VM that stood still goes on; less than what must be free to make another."""
LOOK = 1.0
"""Seconds between two looks for free space while a VM stands still."""
HALTED = "it stands still because the host's disk is full, and goes on by itself once there is room"


def warning(total: int, free: int) -> str:
    """What to tell the owner of a file system of `total` bytes with `free` left; empty below WARN_AT."""
    used = 100 - 100 * free // total if total > 0 and 0 <= free <= total else 0
    if used >= URGE_AT:
        return f"its disk is {used} % full: remove something, or make it larger with resize, before writing fails"
    return f"its disk is {used} % full" if used >= WARN_AT else ""


async def watch(monitor: Monitor, folder: Path, say: Callable[[str], None]) -> None:
    """Let a machine that QEMU halted on a full host go on once there is room; `say` what is the case. Never returns.

    QEMU halts a guest whose write finds no space and repeats the write later, so nothing is lost meanwhile.
    Raises MONITOR_FAILED.
    """
    while True:
        if await monitor.halted_by_disk():
            say(HALTED)
            while disks.free_mib(folder) < GO_ON_MIB:  # noqa: ASYNC110 - nothing announces free space
                await asyncio.sleep(LOOK)
            await monitor.go_on()
            say("")
        await monitor.disk_trouble()
