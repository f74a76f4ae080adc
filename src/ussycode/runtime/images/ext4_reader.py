"""An ext4 file system read without mounting it: a guest may have written every byte, so nothing of it is believed."""
from __future__ import annotations

import stat
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Protocol

from ussycode.base.errors import ErrorCode, Kind

MAGIC, SUPER_AT, SUPER_SIZE = 0xEF53, 1024, 1024
ROOT_INODE = 2
MAX_DEPTH = 5
"""Levels of an extent tree: what ext4 itself allows."""
MAX_EXTENTS = 1 << 20
MAX_FOLDER = 64 << 20
"""Bytes of one folder's list of names."""
MAX_FILES = 2_000_000
"""Names in the whole file system."""
MAX_PATH_DEPTH = 200
CHUNK = 1 << 20
_FILETYPE, _RECOVER, _EXTENTS, _64BIT, _FLEX, _SEED, _LARGEDIR = 0x2, 0x4, 0x40, 0x80, 0x200, 0x2000, 0x4000
_KNOWN = _FILETYPE | _RECOVER | _EXTENTS | _64BIT | _FLEX | _SEED | _LARGEDIR
_USES_EXTENTS = 0x80000
_INLINE_LINK = 60
"""Bytes of a symlink's target that fit into the inode."""
_EXTENT_MAGIC, _XATTR_MAGIC = 0xF30A, 0xEA020000
_UNWRITTEN = 1 << 15
"""Blocks of an extent from which on it is promised and not written yet; it reads as zeros."""
_PREFIXES = {1: "user.", 6: "security."}
_XATTR = struct.Struct("<BBHIII")

BAD_FS = ErrorCode("disk.bad_file_system", Kind.FAILED, "the disk's file system cannot be read: {why}")


class Space(Protocol):
    """Bytes of a disk. What lies beyond its end, or was never written, is zeros."""

    def read(self, at: int, length: int) -> bytes:
        """`length` bytes at `at`."""
        ...


@dataclass(frozen=True)
class Inode:
    """A file: `mode` with its type, owner, times in Unix seconds; `block` is where its bytes are found from."""

    number: int
    mode: int
    uid: int
    gid: int
    size: int
    mtime: int
    links: int
    flags: int
    block: bytes
    xattrs: dict[str, bytes]

    @property
    def device(self) -> tuple[int, int]:
        """Major and minor number of a device file."""
        old, new = struct.unpack_from("<II", self.block)
        if old:
            return old >> 8 & 0xFF, old & 0xFF
        return new >> 8 & 0xFFF, new & 0xFF | new >> 12 & 0xFFF00


@dataclass
class FileSystem:
    """One file system. Every method raises BAD_FS for what cannot be."""

    space: Space
    _super: bytes = field(init=False)
    block_size: int = field(init=False)
    dirty: bool = field(init=False)
    """Its journal holds changes that are not made yet: it was not unmounted, nor held still."""

    def __post_init__(self) -> None:
        self._super = self.space.read(SUPER_AT, SUPER_SIZE)
        if self._at("<H", 56) != MAGIC:
            raise BAD_FS(why="there is no ext4 on it")
        features, log = self._at("<I", 96), self._at("<I", 24)
        if features & ~_KNOWN or not features & _EXTENTS or log > 6:
            raise BAD_FS(why="it is not ext4, or has features that are not known here")
        self.dirty = bool(features & _RECOVER)
        self.block_size = 1024 << log
        self._per_group, self._inode_size = self._at("<I", 40), self._at("<H", 88)
        self._descriptor = self._at("<H", 254) if features & _64BIT else 32
        if not self._per_group or not 128 <= self._inode_size <= self.block_size or not 32 <= self._descriptor <= 1024:
            raise BAD_FS(why="its first block is damaged")

    @property
    def size(self) -> int:
        """Bytes of the disk that it needs."""
        return (self._at("<I", 4) | self._at("<I", 336) << 32) * self.block_size

    def inode(self, number: int) -> Inode:
        """A file by its number."""
        if not 0 < number <= self._at("<I", 0):
            raise BAD_FS(why="a name leads to no file")
        group, place = divmod(number - 1, self._per_group)
        first = (self._at("<I", 20) + 1) * self.block_size
        found = self.space.read(first + group * self._descriptor, self._descriptor)
        table = _number(found, "<I", 8) | (_number(found, "<I", 40) << 32 if self._descriptor >= 64 else 0)
        raw = self.space.read(table * self.block_size + place * self._inode_size, self._inode_size)
        size = _number(raw, "<I", 4) | _number(raw, "<I", 108) << 32
        return Inode(
            number, _number(raw, "<H", 0), _number(raw, "<H", 2) | _number(raw, "<H", 120) << 16,
            _number(raw, "<H", 24) | _number(raw, "<H", 122) << 16, size, _number(raw, "<I", 16),
            _number(raw, "<H", 26), _number(raw, "<I", 32), raw[40:100], self._xattrs(raw),
        )

    def names(self, folder: Inode) -> Iterator[tuple[bytes, int]]:
        """What a folder holds: names and numbers of files, without itself and the one above."""
        if folder.size > MAX_FOLDER:
            raise BAD_FS(why="a folder is too large")
        for data in self.blocks(folder):
            at = 0
            while at + 8 <= len(data):
                number, length, size = struct.unpack_from("<IHB", data, at)
                if length < 8 or at + length > len(data) or size > length - 8:
                    raise BAD_FS(why="a folder is damaged")
                name = data[at + 8:at + 8 + size]
                if number and name not in (b".", b".."):
                    if not name or b"/" in name or b"\0" in name:
                        raise BAD_FS(why="a file has an impossible name")
                    yield name, number
                at += length

    def blocks(self, folder: Inode) -> Iterator[bytes]:
        """A folder's blocks one by one."""
        for _, data in self.pieces(folder):
            yield from (data[here:here + self.block_size] for here in range(0, len(data), self.block_size))

    def pieces(self, file: Inode) -> Iterator[tuple[int, bytes]]:
        """(offset, bytes) of what is written of a file, in order and inside its size; what is left out is zeros."""
        if not file.flags & _USES_EXTENTS:
            raise BAD_FS(why="a file is kept in an older way than ext4's")
        done = 0
        for first, count, start in self._extents(file.block, MAX_DEPTH, [MAX_EXTENTS]):
            at, end = first * self.block_size, min((first + count) * self.block_size, file.size)
            if at < done:
                raise BAD_FS(why="parts of a file overlap")
            while at < end:
                length = min(CHUNK, end - at)
                yield at, self.space.read(start * self.block_size + at - first * self.block_size, length)
                at += length
            done = max(done, end)

    def target(self, link: Inode) -> bytes:
        """Where a symlink leads."""
        if link.size > self.block_size:
            raise BAD_FS(why="a symbolic link is too long")
        if link.size < _INLINE_LINK and not link.flags & _USES_EXTENTS:
            return link.block[:link.size]
        return b"".join(data for _, data in self.pieces(link))

    def files(self) -> Iterator[tuple[bytes, Inode]]:
        """Every path with its file, each folder before what is in it; the root is the empty path."""
        todo, seen, left = [(b"", ROOT_INODE, 0)], {ROOT_INODE}, MAX_FILES
        while todo:
            path, number, depth = todo.pop()
            file = self.inode(number)
            yield path, file
            if not stat.S_ISDIR(file.mode):
                continue
            found = sorted(self.names(file), reverse=True)
            left -= len(found)
            if left < 0 or depth > MAX_PATH_DEPTH:
                raise BAD_FS(why="it holds too many files, or too deep")
            for name, child in found:
                if child in seen and stat.S_ISDIR(self.inode(child).mode):
                    raise BAD_FS(why="a folder is in two places")
                seen.add(child)
                todo.append((path + b"/" * bool(path) + name, child, depth + 1))

    def find(self, path: bytes) -> Inode | None:
        """The file at a path of plain names; symlinks are not followed."""
        here = self.inode(ROOT_INODE)
        for name in path.split(b"/"):
            inside = dict(self.names(here)) if stat.S_ISDIR(here.mode) else {}
            if name not in inside:
                return None
            here = self.inode(inside[name])
        return here

    def _extents(self, node: bytes, depth: int, left: list[int]) -> Iterator[tuple[int, int, int]]:
        """(first block of the file, count, first block of the disk) of the written ones below a node, in order."""
        magic, entries, _, level = struct.unpack_from("<HHHH", node)
        if magic != _EXTENT_MAGIC or level > depth or 12 + 12 * entries > len(node):
            raise BAD_FS(why="where a file lies is damaged")
        left[0] -= entries + 1
        if left[0] < 0:
            raise BAD_FS(why="a file is in too many parts")
        for place in range(12, 12 + 12 * entries, 12):
            if level:
                _, low, high = struct.unpack_from("<IIH", node, place)
                below = self.space.read((low | high << 32) * self.block_size, self.block_size)
                yield from self._extents(below, level - 1, left)
                continue
            first, count, high, low = struct.unpack_from("<IHHI", node, place)
            if count <= _UNWRITTEN:
                yield first, count, low | high << 32

    def _xattrs(self, raw: bytes) -> dict[str, bytes]:
        """The attributes that an image may have: those of users, and capabilities of programs."""
        found: dict[str, bytes] = {}
        if self._inode_size > 132:
            begin = 128 + _number(raw, "<H", 128)
            if begin + 4 < len(raw) and _number(raw, "<I", begin) == _XATTR_MAGIC:
                found |= _attributes(raw[begin + 4:], raw[begin + 4:])
        outside = _number(raw, "<I", 104) | _number(raw, "<H", 118) << 32
        if outside:
            block = self.space.read(outside * self.block_size, self.block_size)
            if _number(block, "<I", 0) == _XATTR_MAGIC:
                found |= _attributes(block[32:], block)
        return found

    def _at(self, form: str, at: int) -> int:
        return _number(self._super, form, at)


def _number(data: bytes, form: str, at: int) -> int:
    try:
        found: int = struct.unpack_from(form, data, at)[0]
    except struct.error:
        raise BAD_FS(why="it is cut short") from None
    return found


def _attributes(entries: bytes, values: bytes) -> dict[str, bytes]:
    found, at = {}, 0
    while at + _XATTR.size <= len(entries) and entries[at:at + 4] != bytes(4):
        length, kind, offset, elsewhere, size, _ = _XATTR.unpack_from(entries, at)
        name = entries[at + _XATTR.size:at + _XATTR.size + length]
        spelled = _PREFIXES.get(kind, "") + name.decode(errors="replace")
        if (kind == 1 or spelled == "security.capability") and not elsewhere and offset + size <= len(values):
            found[spelled] = values[offset:offset + size]
        at += _XATTR.size + -(-length // 4) * 4
    return found
