"""Read one layer: a tar, plain or packed by gzip or zstd; bytes of files go to numbered blobs, names to memory."""
from __future__ import annotations

import gzip
import hashlib
import io
import os
import stat
import subprocess
import tarfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from ussycode.runtime import host_tool
from ussycode.runtime.images.tree import BAD_LAYER, Entry, Node, printable

MAX_ENTRIES = 500_000
"""Files, folders and links in all layers of an image."""
MAX_UNPACKED = 20 << 30
"""Bytes of all layers once unpacked: what ends a bomb of zeros."""
MAX_XATTRS, MAX_XATTR_BYTES = 32, 2048
"""Extended attributes of one file: what fits into its inode's block."""
MAX_LINK = 4000
"""Bytes of a symlink's target."""
MAX_DEVICE = 0xFFF
CHUNK = 1 << 20
HOLE = 4096
_ZSTD_WINDOW = "--memory=128MB"
_GZIP, _ZSTD = b"\x1f\x8b", b"\x28\xb5\x2f\xfd"
_KINDS = {
    tarfile.REGTYPE: stat.S_IFREG, tarfile.AREGTYPE: stat.S_IFREG, tarfile.CONTTYPE: stat.S_IFREG,
    tarfile.GNUTYPE_SPARSE: stat.S_IFREG, tarfile.DIRTYPE: stat.S_IFDIR, tarfile.SYMTYPE: stat.S_IFLNK,
    tarfile.CHRTYPE: stat.S_IFCHR, tarfile.BLKTYPE: stat.S_IFBLK, tarfile.FIFOTYPE: stat.S_IFIFO,
}
_XATTR = "SCHILY.xattr."


class Budget:
    """What the layers of one image may still take, all together."""

    def __init__(self, entries: int = MAX_ENTRIES, unpacked: int = MAX_UNPACKED) -> None:
        self._entries, self._bytes = entries, unpacked

    def entry(self) -> None:
        """Count one member."""
        self._entries -= 1
        if self._entries < 0:
            raise BAD_LAYER(why="it holds too many files")

    def unpacked(self, size: int) -> None:
        """Count unpacked bytes."""
        self._bytes -= size
        if self._bytes < 0:
            raise BAD_LAYER(why="it unpacks to more than an image may hold")


class _Counted:
    """A stream that counts against the budget and keeps the digest of what went through."""

    def __init__(self, source: IO[bytes], budget: Budget) -> None:
        self._source, self._budget = source, budget
        self.hasher = hashlib.sha256()

    def read(self, size: int = CHUNK) -> bytes:
        """The next bytes."""
        data = self._source.read(min(size, CHUNK))
        self._budget.unpacked(len(data))
        self.hasher.update(data)
        return data


class Blobs:
    """Bytes of regular files, one numbered file each: the only thing of a layer that touches the host's disk."""

    def __init__(self, folder: Path) -> None:
        self.folder, self._next = folder, 0

    def path(self, blob: int) -> Path:
        """Where a blob lies."""
        return self.folder / str(blob)

    def keep(self, data: IO[bytes] | None, size: int) -> int:
        """Write down `size` bytes with their holes; the blob's number."""
        self._next += 1
        with self.path(self._next).open("xb") as file:
            left = size
            while left and data is not None:
                chunk = data.read(min(left, CHUNK))
                if not chunk:
                    raise BAD_LAYER(why="it ends too early")
                _write_sparsely(file, chunk)
                left -= len(chunk)
            file.truncate(size)
        return self._next

    def keep_bytes(self, data: bytes) -> int:
        """Write down a few bytes; the blob's number."""
        return self.keep(io.BytesIO(data), len(data))


def _write_sparsely(file: IO[bytes], chunk: bytes) -> None:
    if chunk.count(0) == len(chunk):
        file.seek(len(chunk), os.SEEK_CUR)
        return
    for at in range(0, len(chunk), HOLE):
        part = chunk[at : at + HOLE]
        file.seek(len(part), os.SEEK_CUR) if part.count(0) == len(part) else file.write(part)


def read_layer(path: Path, blobs: Blobs, budget: Budget, diff_id: str = "") -> list[Entry]:
    """Members of a layer in order. Raises BAD_LAYER, also when the unpacked bytes have not the digest `diff_id`."""
    found: list[Entry] = []
    with opened(path) as source:
        counted = _Counted(source, budget)
        try:
            with tarfile.open(fileobj=counted, mode="r|", errorlevel=1) as tar:  # type: ignore[call-overload]
                for member in tar:
                    budget.entry()
                    tar.members = []  # it would keep every member for ever
                    found += _entries(tar, member, blobs)
            while counted.read():
                pass
        except (tarfile.TarError, EOFError, zlib.error, OSError, ValueError, RecursionError) as wrong:
            raise BAD_LAYER(why=f"it is damaged ({type(wrong).__name__})").because(str(wrong)) from None
    if diff_id and f"sha256:{counted.hasher.hexdigest()}" != diff_id:
        raise BAD_LAYER(why="what it unpacks to is not what the image says")
    return found


@contextmanager
def opened(path: Path) -> Iterator[IO[bytes]]:
    """The bytes of a file, unpacked when it is packed by gzip or zstd."""
    with path.open("rb", buffering=0) as file:
        magic = file.read(4)
        file.seek(0)
        if magic[:2] == _GZIP:
            with gzip.GzipFile(fileobj=file) as stream:
                yield stream  # type: ignore[misc]
        elif magic == _ZSTD:
            with _zstd(file) as piped:
                yield piped
        else:
            yield file


@contextmanager
def _zstd(file: IO[bytes]) -> Iterator[IO[bytes]]:
    tool = [str(host_tool.find("zstd")), "-dcq", _ZSTD_WINDOW]
    with subprocess.Popen(tool, stdin=file, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        assert process.stdout is not None
        try:
            yield process.stdout
            if not process.stdout.read(1) and process.wait():  # a reader that wants no more leaves the rest
                raise BAD_LAYER(why="it is damaged (zstd)")
        finally:
            process.kill()


def _entries(tar: tarfile.TarFile, member: tarfile.TarInfo, blobs: Blobs) -> Iterator[Entry]:
    path = _bytes(member.name)
    if member.islnk():
        yield Entry(path, None, _bytes(member.linkname))
        return
    kind = _KINDS.get(member.type)
    if kind is None:
        return
    node = Node(
        kind | member.mode & 0o7777, _id(member.uid), _id(member.gid), max(0, min(int(member.mtime), 0x7FFFFFFF)),
        xattrs=_xattrs(member),
    )
    if kind == stat.S_IFREG:
        node.blob, node.size = blobs.keep(tar.extractfile(member), member.size), member.size
    elif kind == stat.S_IFLNK:
        node.target = _target(member.linkname)
    elif kind in (stat.S_IFCHR, stat.S_IFBLK):
        node.device = _device(member)
    yield Entry(path, node)


def _bytes(name: str) -> bytes:
    return name.encode("utf-8", "surrogateescape")


def _id(number: int) -> int:
    if not 0 <= number < 1 << 32:
        raise BAD_LAYER(why="a file has an impossible owner")
    return number


def _target(link: str) -> bytes:
    target = _bytes(link)
    if not 0 < len(target) <= MAX_LINK or not printable(target):
        raise BAD_LAYER(why="a symbolic link leads to an impossible name")
    return target


def _device(member: tarfile.TarInfo) -> tuple[int, int]:
    if not 0 <= member.devmajor <= MAX_DEVICE or not 0 <= member.devminor <= MAX_DEVICE:
        raise BAD_LAYER(why="a device has an impossible number")
    return member.devmajor, member.devminor


def _xattrs(member: tarfile.TarInfo) -> dict[str, bytes]:
    """File capabilities and users' own attributes; others would mean something to the host's or guest's kernel."""
    kept = {
        key[len(_XATTR) :]: _bytes(value) for key, value in member.pax_headers.items() if key.startswith(_XATTR)
    }
    kept = {k: v for k, v in kept.items() if k == "security.capability" or k.startswith("user.")}
    if len(kept) > MAX_XATTRS or any(len(v) > MAX_XATTR_BYTES or not k.isprintable() for k, v in kept.items()):
        raise BAD_LAYER(why="a file has impossible attributes")
    return kept
