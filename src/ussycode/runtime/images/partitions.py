"""Where a root file system lies on a disk: all of it, or one partition of a table that a stranger wrote."""
from __future__ import annotations

import os
import struct
from collections.abc import Iterator

from ussycode.runtime.qcow2.layout import BAD_DISK

SECTOR = 512
_EXT4_AT, _EXT4 = 1024 + 56, b"\x53\xef"
_MBR_AT, _MBR_ENTRY, _SIGNED_AT = 446, struct.Struct("<8xII"), 510
_GPT, _GPT_HEADER = b"EFI PART", struct.Struct("<8x64xQII")
MAX_PARTITIONS = 128
_ENTRY_SIZE = 128
"""Bytes of an entry of a GPT, as every tool writes it."""


def whole_or_part(handle: int, size: int) -> tuple[int, int]:
    """(start, length) in bytes of the ext4 on a disk of `size` bytes: the largest, where there are several.

    Raises BAD_DISK.
    """
    if _has_ext4(handle, 0):
        return 0, size
    if os.pread(handle, 2, _SIGNED_AT) != b"\x55\xaa":
        raise BAD_DISK(why="there is neither ext4 nor a partition table on it")
    parts = [part for part in _partitions(handle) if part[0] > 0 and part[1] > 0 and sum(part) <= size]
    found = [part for part in parts if _has_ext4(handle, part[0])]
    if not found:
        raise BAD_DISK(why="none of its partitions holds ext4")
    return max(found, key=lambda part: part[1])


def _has_ext4(handle: int, start: int) -> bool:
    return os.pread(handle, 2, start + _EXT4_AT) == _EXT4


def _partitions(handle: int) -> Iterator[tuple[int, int]]:
    header = os.pread(handle, SECTOR, SECTOR)
    if header[:8] == _GPT:
        at, count, entry = _GPT_HEADER.unpack_from(header)
        if entry != _ENTRY_SIZE or at > 1 << 40:
            raise BAD_DISK(why="its partition table is of an unknown kind")
        table = os.pread(handle, min(count, MAX_PARTITIONS) * entry, at * SECTOR)
        for place in range(0, len(table) - entry + 1, entry):
            first, last = struct.unpack_from("<QQ", table, place + 32)
            yield first * SECTOR, (last - first + 1) * SECTOR
        return
    table = os.pread(handle, 64, _MBR_AT)
    for place in range(0, len(table) - 15, 16):
        first, count = _MBR_ENTRY.unpack_from(table, place)
        yield first * SECTOR, count * SECTOR
