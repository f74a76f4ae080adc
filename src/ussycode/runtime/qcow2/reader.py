"""What the clusters of a disk hold, layer above layer; nothing a file says makes this read beyond the files given."""
from __future__ import annotations

import os
import sys
import zlib
from array import array
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from ussycode.runtime.qcow2.layout import (
    BAD_DISK,
    BITS,
    CLUSTER,
    COMPRESSED,
    COPIED,
    OFFSET,
    PER_TABLE,
    ZERO,
    Header,
    parse,
)


class Source(Protocol):
    """One file of a disk: where its clusters lie."""

    @property
    def handle(self) -> int:
        """The open file."""
        ...

    def table(self, number: int) -> array[int] | None:
        """PER_TABLE entries, 0 for a cluster that is not here; None when none of them is."""
        ...


@dataclass(frozen=True)
class Run:
    """Neighbouring clusters of a disk that lie side by side in one file, or hold nothing but zeros (`handle` -1)."""

    cluster: int
    count: int
    handle: int
    offset: int = 0


@dataclass
class Layer:
    """An open qcow2 file with clusters of our size. Close it after use."""

    handle: int
    header: Header
    _tables: array[int] = field(init=False)

    def __post_init__(self) -> None:
        self._tables = _numbers(self.handle, self.header.table_of_tables, self.header.tables)

    def table(self, number: int) -> array[int] | None:
        """Raises BAD_DISK for entries that we never write."""
        at = self._tables[number] & OFFSET if number < len(self._tables) else 0
        if not at:
            return None
        found = _numbers(self.handle, at, PER_TABLE)
        if any(entry & COMPRESSED for entry in found):
            raise BAD_DISK(why="a layer of it is compressed")
        return found

    def close(self) -> None:
        """Close the file."""
        os.close(self.handle)


@dataclass
class Raw:
    """An open raw disk, below every layer."""

    handle: int
    _extents: list[tuple[int, int]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._extents = list(extents(self.handle, os.fstat(self.handle).st_size))

    def table(self, number: int) -> array[int] | None:
        """Entries for what is not a hole."""
        first = number * PER_TABLE
        made = array("Q", bytes(CLUSTER))
        for start, end in self._extents:
            low, high = max(start >> BITS, first), min(-(-end >> BITS), first + PER_TABLE)
            for cluster in range(low, high):
                made[cluster - first] = cluster << BITS | COPIED
        return made if any(made) else None

    def close(self) -> None:
        """Close the file."""
        os.close(self.handle)


def open_layer(path: Path) -> Layer:
    """A qcow2 file of ours. Raises BAD_DISK, OSError."""
    handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        header = parse(os.pread(handle, CLUSTER, 0))
        if header.bits != BITS:
            raise BAD_DISK(why="a layer of it has clusters of another size")
        return Layer(handle, header)
    except BaseException:
        os.close(handle)
        raise


def open_raw(path: Path) -> Raw:
    """A raw disk. Raises OSError."""
    return Raw(os.open(path, os.O_RDONLY | os.O_CLOEXEC))


def runs(sources: Sequence[Source], size: int) -> Iterator[Run]:
    """What a disk of `size` bytes holds, its `sources` from the top down, in order; what is nowhere is left out."""
    clusters = -(-size >> BITS)
    for number in range(-(-clusters // PER_TABLE)):
        here = [(source.handle, table) for source in sources if (table := source.table(number)) is not None]
        yield from _joined(here, number * PER_TABLE, min(PER_TABLE, clusters - number * PER_TABLE))


class View:
    """A disk of `runs`, in order, read anywhere; what is nowhere is zeros."""

    def __init__(self, runs: Sequence[Run]) -> None:
        self._runs, self._starts = runs, [run.cluster for run in runs]

    def read(self, at: int, length: int) -> bytes:
        """`length` bytes at `at`."""
        made = bytearray()
        while length:
            data = self._some(at, length)
            made += data
            at, length = at + len(data), length - len(data)
        return bytes(made)

    def _some(self, at: int, length: int) -> bytes:
        place = bisect_right(self._starts, at >> BITS)
        run = self._runs[place - 1] if place else None
        inside = 0 if run is None else (run.cluster + run.count << BITS) - at
        if run is None or inside <= 0:
            here = self._starts[place] << BITS if place < len(self._starts) else at + length
            return bytes(min(length, here - at))
        length = min(length, inside)
        if run.handle < 0:
            return bytes(length)
        return os.pread(run.handle, length, run.offset + at - (run.cluster << BITS)).ljust(length, b"\0")


def _joined(here: Sequence[tuple[int, array[int]]], first: int, count: int) -> Iterator[Run]:
    start, length, handle, offset = 0, 0, -2, 0
    for cluster in range(count):
        found, at = _uppermost(here, cluster)
        if length and found == handle and (found == -1 or at == offset + (length << BITS)):
            length += 1
            continue
        if length:
            yield Run(first + start, length, handle, offset)
        start, length, handle, offset = cluster, int(found != -2), found, at
    if length:
        yield Run(first + start, length, handle, offset)


def _uppermost(here: Sequence[tuple[int, array[int]]], cluster: int) -> tuple[int, int]:
    """Handle and offset of a cluster; -1 for zeros, -2 for one that is nowhere."""
    for handle, table in here:
        entry = table[cluster]
        if entry:
            return (-1, 0) if entry & ZERO else (handle, entry & OFFSET)
    return -2, 0


def _numbers(handle: int, at: int, count: int) -> array[int]:
    data = os.pread(handle, count * 8, at) if at <= OFFSET else b""
    if len(data) != count * 8:
        raise BAD_DISK(why="it is cut short")
    found = array("Q", data)
    if sys.byteorder == "little":
        found.byteswap()
    return found


def extents(handle: int, size: int) -> Iterator[tuple[int, int]]:
    """The stretches (start, end) of an open file that hold data."""
    at = 0
    while at < size:
        try:
            start = os.lseek(handle, at, os.SEEK_DATA)
        except OSError:
            return  # ENXIO: only a hole is left
        at = os.lseek(handle, start, os.SEEK_HOLE)
        yield start, at


@dataclass(frozen=True)
class Foreign:
    """A qcow2 file from elsewhere: clusters of any size, compressed perhaps."""

    handle: int
    header: Header

    def pieces(self) -> Iterator[tuple[int, bytes]]:
        """(offset, bytes) of everything that is not zero, in order. Raises BAD_DISK."""
        bits = self.header.bits
        per = 1 << bits - 3
        for number, entry in enumerate(_numbers(self.handle, self.header.table_of_tables, self.header.tables)):
            if not entry & OFFSET:
                continue
            for cluster, found in enumerate(_numbers(self.handle, entry & OFFSET, per)):
                at = number * per + cluster << bits
                if found and at < self.header.size and (data := self._cluster(found)):
                    yield at, data[:self.header.size - at]

    def _cluster(self, entry: int) -> bytes:
        bits = self.header.bits
        if entry & COMPRESSED:
            return self._unpacked(entry, bits)
        if entry & ZERO:
            return b""
        return os.pread(self.handle, 1 << bits, entry & OFFSET).ljust(1 << bits, b"\0")

    def _unpacked(self, entry: int, bits: int) -> bytes:
        split = 62 - (bits - 8)
        at, sectors = entry & (1 << split) - 1, (entry & COMPRESSED - 1) >> split
        packed = os.pread(self.handle, (sectors + 1) * 512 - at % 512, at)
        try:
            return zlib.decompressobj(-12).decompress(packed, 1 << bits).ljust(1 << bits, b"\0")
        except zlib.error as error:
            raise BAD_DISK(why="a compressed part of it is broken").because(error) from None
