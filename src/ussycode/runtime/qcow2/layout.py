"""The numbers of the format, and the header as it lies in a file."""
from __future__ import annotations

import struct
from dataclasses import dataclass

from ussycode.base.errors import ErrorCode, Kind

MAGIC = b"QFI\xfb"
BITS = 16
CLUSTER = 1 << BITS
"""Bytes that are kept or shared as one; what every disk of ours uses."""
PER_TABLE = CLUSTER // 8
"""Clusters that one table of the second level tells of: 512 MiB."""
COPIED, COMPRESSED, ZERO = 1 << 63, 1 << 62, 1
OFFSET = 0x00FF_FFFF_FFFF_FE00
MAX_SIZE = 1 << 40
"""Bytes a disk may have; no VM has a larger one."""
DIRTY = 1
"""The one thing a reader may not know of a file and read it all the same: its counts of uses may be stale."""
_HEADER = struct.Struct(">4sIQIIQIIQQIIQQQQII")
_EXTENSION = struct.Struct(">II")
FORMAT, OURS = 0xE2792ACA, 0x75737379
"""Kinds of extensions: the format of the file below, and what we note of a disk; others do not look at ours."""
MAX_NOTE = 16 << 10
MAX_BACKING = 1023

BAD_DISK = ErrorCode(
    "disk.unreadable", Kind.USAGE, "this is not a disk that can be read: {why}",
    hint="qcow2 without a backing file or encryption is taken, as export and qemu-img convert -O qcow2 write it",
)


@dataclass(frozen=True)
class Header:
    """What a reader needs of a header. `size` in bytes; `note` is our extension, `backing` the file below."""

    size: int
    bits: int
    tables: int
    """How many tables of the second level there may be."""
    table_of_tables: int
    """Where the first level lies."""
    backing: str = ""
    note: bytes = b""


def parse(head: bytes) -> Header:
    """The header of a file that begins with `head`, at least one cluster of it or all. Raises BAD_DISK."""
    if len(head) < _HEADER.size or head[:4] != MAGIC:
        raise BAD_DISK(why="it is no qcow2 file")
    (_, version, backing_at, backing_len, bits, size, crypt, tables, first, _, _, _, _, incompatible, _, _, _,
     length) = _HEADER.unpack_from(head)
    if version not in (2, 3) or not 9 <= bits <= 21:
        raise BAD_DISK(why=f"qcow2 version {version} with clusters of 2^{bits} bytes")
    if crypt or (version == 3 and incompatible & ~DIRTY):
        raise BAD_DISK(why="it is encrypted, broken, or uses features that are not known here")
    if not 0 < size <= MAX_SIZE or not _tables(size, bits) <= tables <= _tables(MAX_SIZE, bits):
        raise BAD_DISK(why=f"its size cannot be {size} bytes")
    if backing_at and (backing_len > MAX_BACKING or backing_at + backing_len > len(head)):
        raise BAD_DISK(why="the name of the file below it is not in its header")
    backing = head[backing_at:backing_at + backing_len].decode(errors="replace") if backing_at else ""
    note = _note(head, length if version == 3 else 72, backing_at or len(head))
    return Header(size, bits, _tables(size, bits), first, backing, note)


def _tables(size: int, bits: int) -> int:
    return -(-size // (1 << bits + bits - 3))


def _note(head: bytes, at: int, end: int) -> bytes:
    while at + _EXTENSION.size <= end:
        kind, length = _EXTENSION.unpack_from(head, at)
        if kind == 0 or at + 8 + length > end:
            return b""
        if kind == OURS:
            return head[at + 8:at + 8 + min(length, MAX_NOTE)]
        at += 8 + -(-length // 8) * 8
    return b""


def build(header: Header, counts_at: int, counts: int, form: str = "") -> bytes:
    """The first cluster of a file. `form` is the format of the file below, when there is one."""
    extensions = [(FORMAT, form.encode())] * bool(header.backing) + [(OURS, header.note)] * bool(header.note)
    body = b"".join(
        _EXTENSION.pack(kind, len(data)) + data + bytes(-len(data) % 8) for kind, data in extensions
    ) + bytes(8)
    name = header.backing.encode()
    at = _HEADER.size + len(body) if name else 0
    fixed = _HEADER.pack(
        MAGIC, 3, at, len(name), header.bits, header.size, 0, header.tables, header.table_of_tables, counts_at, counts,
        0, 0, 0, 0, 0, 4, _HEADER.size,
    )
    return (fixed + body + name).ljust(CLUSTER, b"\0")
