"""Writes a disk as one file whose every byte is known beforehand: first the tables, then the data in order."""
from __future__ import annotations

import os
import sys
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from ussycode.runtime.qcow2.layout import BITS, CLUSTER, COPIED, PER_TABLE, ZERO, Header, build
from ussycode.runtime.qcow2.reader import Run

PER_COUNTS = CLUSTER // 2
"""Clusters whose uses one block of 16 bit numbers counts."""
CHUNK = 1 << 20
"""Bytes that are read at once."""
COPY = 16 << 20
"""Bytes that the kernel is asked to copy at once."""


@dataclass(frozen=True)
class Drawn:
    """A file that is not written yet. `tables` is its beginning; the data of `runs` follows in order."""

    tables: bytes
    runs: tuple[Run, ...]
    size: int

    def stream(self) -> Iterator[bytes]:
        """All of it, in pieces of at most CHUNK bytes."""
        for at in range(0, len(self.tables), CHUNK):
            yield self.tables[at:at + CHUNK]
        for run in self.runs:
            end = run.count << BITS
            for at in range(0, end, CHUNK):
                length = min(CHUNK, end - at)
                yield os.pread(run.handle, length, run.offset + at).ljust(length, b"\0")

    def write(self, handle: int) -> None:
        """All of it into an empty file, without moving bytes where the file system can share them. Raises OSError."""
        os.ftruncate(handle, self.size)
        os.pwrite(handle, self.tables, 0)
        place = len(self.tables)
        for run in self.runs:
            _copy(run, handle, place)
            place += run.count << BITS
        os.fsync(handle)


def draw(runs: Sequence[Run], size: int, backing: str = "", form: str = "", note: bytes = b"") -> Drawn:
    """The file for a disk of `size` bytes that holds `runs` above `backing` (of the format `form`), if any."""
    kept = [run for run in runs if run.handle >= 0 or backing]
    data = sum(run.count for run in kept if run.handle >= 0)
    blocks = sorted({at // PER_TABLE for run in kept for at in (run.cluster, run.cluster + run.count - 1)})
    tables = -(-size // (CLUSTER * PER_TABLE))
    first = -(-tables * 8 // CLUSTER)
    counts, lists = _counts(1 + first + len(blocks) + data)
    first_at = (1 + lists + counts) << BITS
    header = build(Header(size, BITS, tables, first_at, backing, note), CLUSTER, lists, form)
    total = 1 + lists + counts + first + len(blocks) + data
    second_at = first_at + (first << BITS)
    head = b"".join((
        header, _packed([(1 + lists + n) << BITS for n in range(counts)], lists), _uses(total, counts),
        _first(blocks, second_at, first), _second(kept, blocks, second_at + (len(blocks) << BITS)),
    ))
    return Drawn(head, tuple(run for run in kept if run.handle >= 0), total << BITS)


def _counts(others: int) -> tuple[int, int]:
    """How many blocks count the uses of all clusters, their own included, and how many clusters list the blocks."""
    counts, lists = 1, 1
    while True:
        total = others + counts + lists
        wanted = -(-total // PER_COUNTS)
        more = -(-wanted * 8 // CLUSTER)
        if (wanted, more) == (counts, lists):
            return counts, lists
        counts, lists = wanted, more


def _uses(total: int, counts: int) -> bytes:
    return (b"\0\1" * total).ljust(counts << BITS, b"\0")


def _first(blocks: Sequence[int], second_at: int, clusters: int) -> bytes:
    made = array("Q", bytes(clusters << BITS))
    for place, block in enumerate(blocks):
        made[block] = (second_at + (place << BITS)) | COPIED
    return _big(made)


def _second(runs: Sequence[Run], blocks: Sequence[int], data_at: int) -> bytes:
    made = array("Q", bytes(len(blocks) << BITS))
    place = {block: at * PER_TABLE for at, block in enumerate(blocks)}
    for run in runs:
        for cluster in range(run.cluster, run.cluster + run.count):
            entry = ZERO if run.handle < 0 else data_at | COPIED
            made[place[cluster // PER_TABLE] + cluster % PER_TABLE] = entry
            data_at += 0 if run.handle < 0 else CLUSTER
    return _big(made)


def _packed(numbers: Sequence[int], clusters: int) -> bytes:
    return _big(array("Q", numbers)).ljust(clusters << BITS, b"\0")


def _big(numbers: array[int]) -> bytes:
    if sys.byteorder == "little":
        numbers.byteswap()
    return numbers.tobytes()


def _copy(run: Run, handle: int, place: int) -> None:
    at, end = 0, run.count << BITS
    while at < end:
        moved = os.copy_file_range(run.handle, handle, min(COPY, end - at), run.offset + at, place + at)
        if not moved:
            return  # the file ends in the middle of its last cluster; the rest is zeros
        at += moved
