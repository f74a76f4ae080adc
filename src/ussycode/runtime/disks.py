"""Disks of VMs: thin qcow2 overlays on an image's read-only raw disk."""
from __future__ import annotations

import shutil
from pathlib import Path

from ussycode.base.errors import ErrorCode, Kind
from ussycode.runtime.qcow2.writer import draw

SPARE_MIB = 512
"""Free space that must be left on the host's disk before another VM may be made."""

NO_ROOM = ErrorCode(
    "disk.no_room", Kind.UNAVAILABLE, "the host's disk is full: {free} MiB are free and {spare} MiB must stay free",
    hint="the operator has to free space; removing VMs you no longer need helps",
)
NO_SUCH_ORIGIN = ErrorCode(
    "disk.no_such_origin", Kind.UNAVAILABLE, "VMs of this node cannot take their disk from {what}",
)
ORIGIN_GONE = ErrorCode("disk.origin_gone", Kind.NOT_FOUND, "what this disk was to be made from is gone: {what}")
DISK_FAILED = ErrorCode("disk.failed", Kind.FAILED, "the VM's disk could not be made: {why}")


def make_overlay(base: Path, disk: Path, gib: int, form: str = "raw") -> None:
    """Make the disk of a VM: `gib` GiB, its first content that of `base`. Keeps a disk that exists.

    Not a byte of the base is read: one of the format `qcow2` was written by a guest.

    Raises NO_ROOM or DISK_FAILED, and then leaves nothing behind.
    """
    if disk.exists():
        return
    require_room(disk.parent)
    draft = disk.with_suffix(".new")
    draft.unlink(missing_ok=True)
    try:
        if not base.exists():
            raise DISK_FAILED(why="what it is to stand on is gone")
        # An empty file of some tables: to start a program for it would take longer than all the rest of a copy.
        draft.write_bytes(draw([], gib << 30, str(base), form).tables)
        draft.chmod(0o600)
        draft.replace(disk)
    except OSError as error:
        raise DISK_FAILED(why=error.strerror or "it cannot be written") from error
    finally:
        draft.unlink(missing_ok=True)


def require_room(folder: Path, more_mib: int = 0) -> None:
    """Raise NO_ROOM when the file system of `folder` is nearly full, or would be with `more_mib` more."""
    free = free_mib(folder)
    if free < SPARE_MIB + more_mib:
        raise NO_ROOM(free=free, spare=SPARE_MIB)


def free_mib(folder: Path) -> int:
    """What is free on the file system of `folder`."""
    return shutil.disk_usage(folder).free >> 20
