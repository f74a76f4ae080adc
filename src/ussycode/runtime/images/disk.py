"""A folder with a root file system becomes a raw, sparse ext4 disk."""
from __future__ import annotations

import hashlib
import os
from pathlib import Path

from ussycode.runtime import host_tool

FEATURES = ",".join((
    "none", "has_journal", "ext_attr", "resize_inode", "dir_index", "filetype", "extent", "64bit", "flex_bg",
    "sparse_super", "large_file", "huge_file", "dir_nlink", "extra_isize", "metadata_csum",
))
"""Spelled out, so that every host makes the same file system and the guest's kernel knows all of it."""

BLOCK = 4096
GROWTH_LIMIT = 1 << 40
"""Bytes up to which a running guest can grow the file system: room for its group descriptors is set aside."""

JOURNAL_MIB = 32
INODE_RATIO = 16384
"""Bytes of disk for each inode."""
MKFS_SECONDS = 600.0
CHUNK = 1 << 20


def make(tree: Path, disk: Path, size: int) -> None:
    """Write `disk`, `size` bytes long, holding a copy of `tree` with owners, modes and attributes."""
    _mkfs(disk, size, ["-d", str(tree)])


def format_empty(disk: Path, size: int, inodes: int) -> None:
    """Write `disk`, `size` bytes long, with nothing in it but room for at least `inodes` files."""
    _mkfs(disk, size, ["-N", str(max(inodes, size // INODE_RATIO))])


def _mkfs(disk: Path, size: int, more: list[str]) -> None:
    """Inode tables and journal are finished here (as holes), so no guest spends its first minutes on them."""
    with disk.open("wb") as file:
        file.truncate(size)
    extended = f"resize={GROWTH_LIMIT // BLOCK},lazy_itable_init=0,lazy_journal_init=0,root_owner=0:0"
    host_tool.run(
        ["mkfs.ext4", "-q", "-F", "-L", "root", "-m", "1", "-b", str(BLOCK), "-I", "256", "-i", str(INODE_RATIO),
         "-O", FEATURES, "-J", f"size={JOURNAL_MIB}", "-E", extended, *more, str(disk)],
        timeout=MKFS_SECONDS,
    )
    disk.chmod(0o644)  # read by every VM's own user, written by none
    with disk.open("rb") as file:
        os.fsync(file.fileno())


def digest(disk: Path) -> str:
    """SHA-256, in hex, over offsets and bytes of what is not a hole: an identity, no checksum of the file."""
    hasher = hashlib.sha256()
    with disk.open("rb") as file:
        for start, end in extents(file.fileno(), disk.stat().st_size):
            hasher.update(f"{start}-{end}:".encode())
            for at in range(start, end, CHUNK):
                hasher.update(os.pread(file.fileno(), min(CHUNK, end - at), at))
    return hasher.hexdigest()


def extents(handle: int, size: int) -> list[tuple[int, int]]:
    """The stretches (start, end) of an open file that hold data."""
    found: list[tuple[int, int]] = []
    at = 0
    while at < size:
        try:
            start = os.lseek(handle, at, os.SEEK_DATA)
        except OSError:
            return found  # ENXIO: only a hole is left
        at = os.lseek(handle, start, os.SEEK_HOLE)
        found.append((start, at))
    return found
