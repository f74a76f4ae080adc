"""Disks of containers: root's own files, made, copied and grown without ever reading what a guest wrote into them."""
from __future__ import annotations

import fcntl
import os
import re
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ussycode.runtime.images.disk import BLOCK, FEATURES, GROWTH_LIMIT, JOURNAL_MIB, extents
from ussycode.runtime.instance import Instance

DISK, BASE = "disk.img", "base"
_SNAPSHOT = re.compile(r"snapshot-([a-z0-9_-]{1,60})\.img")
_TOOL_SECONDS = 60.0
_FICLONE = 0x40049409
_CHUNK = 8 << 20
SPARE = 512 << 20
"""Bytes that stay free on the host when a disk is copied."""


@dataclass(frozen=True)
class Base:
    """The image a container stands on: folder and digest of a published image."""

    folder: str
    digest: str


def make(instance: Instance, vm: str, gib: int, base: Base, source: Path | None) -> None:
    """The disk of a container and the note of its image, made when missing: empty, or a copy of `source`."""
    folder = instance.container(vm)
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if not (folder / DISK).exists():
        draft = folder / f"draft-{os.getpid()}"
        if source is None:
            _format(draft, gib << 30)
        else:
            copy(source, draft)
            _enlarge(draft, gib << 30)
        (folder / BASE).write_text(f"{base.folder} {base.digest}")
        draft.replace(folder / DISK)


def base_of(instance: Instance, vm: str) -> Base:
    """The image noted with the disk. Raises FileNotFoundError when there is no disk."""
    folder, digest = (instance.container(vm) / BASE).read_text().split()
    return Base(folder, digest)


def copy(source: Path, target: Path) -> None:
    """A copy that shares what the file system can share, and has the holes of its source.

    Raises OSError, and leaves nothing then: also when it would leave the host with less than SPARE.
    """
    try:
        with source.open("rb") as old, target.open("wb") as new:
            os.fchmod(new.fileno(), 0o600)
            seen = os.fstat(old.fileno())
            try:
                fcntl.ioctl(new.fileno(), _FICLONE, old.fileno())
            except OSError:
                _require_room(target.parent, seen.st_blocks * 512)
                _copy_extents(old.fileno(), new.fileno(), seen.st_size)
            os.ftruncate(new.fileno(), seen.st_size)
    except BaseException:
        target.unlink(missing_ok=True)
        raise


def _require_room(folder: Path, size: int) -> None:
    """A full host would break the file systems of containers that run."""
    if (free := shutil.disk_usage(folder).free) < size + SPARE:
        raise OSError(f"the host's disk is too full: a copy takes {size >> 20} MiB, {free >> 20} MiB are free and "
                      f"{SPARE >> 20} MiB must stay so")


def _copy_extents(old: int, new: int, size: int) -> None:
    for start, end in extents(old, size):
        at = start
        while at < end:
            done = os.copy_file_range(old, new, min(_CHUNK, end - at), at, at)
            if not done:
                raise OSError("the source became shorter while it was copied")
            at += done


def _format(disk: Path, size: int) -> None:
    with disk.open("wb") as file:
        os.fchmod(file.fileno(), 0o600)
        file.truncate(size)
    extended = f"resize={GROWTH_LIMIT // BLOCK},lazy_itable_init=0,lazy_journal_init=0,root_owner=0:0"
    _tool(["mkfs.ext4", "-q", "-F", "-m", "0", "-b", str(BLOCK), "-I", "256", "-i", "16384", "-O", FEATURES,
           "-J", f"size={JOURNAL_MIB}", "-E", extended, str(disk)])


def _enlarge(disk: Path, size: int) -> None:
    """Grow a file that is not mounted; its file system grows when it is mounted next. Never shrinks it."""
    if disk.stat().st_size < size:
        os.truncate(disk, size)


def enlarge(instance: Instance, vm: str, gib: int) -> Path:
    """Make the disk's file `gib` GiB large, never smaller; the file."""
    disk = instance.container(vm) / DISK
    _enlarge(disk, gib << 30)
    return disk


def snapshot(instance: Instance, vm: str, name: str) -> Path:
    """Where a snapshot is kept."""
    return instance.container(vm) / f"snapshot-{name}.img"


def snapshots(instance: Instance, vm: str) -> dict[str, os.stat_result]:
    """Snapshots that are there, by id."""
    folder = instance.container(vm)
    if not folder.exists():
        return {}
    found = ((_SNAPSHOT.fullmatch(path.name), path) for path in sorted(folder.iterdir()))
    return {match[1]: path.stat() for match, path in found if match}


def forget(instance: Instance, vm: str) -> None:
    """Remove a container's folder. Idempotent."""
    if instance.container(vm).exists():
        shutil.rmtree(instance.container(vm))


def _tool(argv: Sequence[str]) -> None:
    subprocess.run(argv, capture_output=True, text=True, timeout=_TOOL_SECONDS, check=True)
