"""A disk's files become a tar or an OCI archive, in a process of its own behind walls: a guest wrote all of it."""
from __future__ import annotations

import hashlib
import json
import os
import stat
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import msgspec

from ussycode.base.errors import Failure
from ussycode.runtime.images import walled
from ussycode.runtime.images.confine import confine
from ussycode.runtime.images.ext4_reader import BAD_FS, CHUNK, FileSystem, Inode
from ussycode.runtime.qcow2.layout import CLUSTER, parse
from ussycode.runtime.qcow2.reader import Layer, Raw, View, runs

LAYER = "application/vnd.oci.image.layer.v1.tar"
_MANIFEST, _CONFIG = "application/vnd.oci.image.manifest.v1+json", "application/vnd.oci.image.config.v1+json"
_INDEX = "application/vnd.oci.image.index.v1+json"
_BLOCK = 512
NOT_AT_REST = "the VM was not shut down in an orderly way; start it once, then try again"


class Job(msgspec.Struct, frozen=True):
    """Open files: sealed layers from the top down, and the image below them (-1: none). `size` of the disk in bytes."""

    layers: tuple[int, ...]
    image: int
    size: int
    config: str = ""
    """The image configuration of an OCI archive; empty for a plain tar of the files."""


class Head(msgspec.Struct, frozen=True):
    """The first line that is sent: how many bytes follow, or why none do."""

    size: int = 0
    failure: str = ""


class Sink(Protocol):
    """Where a tar is written."""

    def write(self, data: bytes, /) -> object:
        """Take bytes."""
        ...


class _Measured:
    """Counts what is written and keeps its digest."""

    def __init__(self) -> None:
        self.size, self.hasher = 0, hashlib.sha256()

    def write(self, data: bytes) -> None:
        """Take bytes."""
        self.size += len(data)
        self.hasher.update(data)


class _Content:
    """A file's bytes, holes included, as `tarfile` reads them."""

    def __init__(self, files: FileSystem, file: Inode) -> None:
        self._pieces, self._size = files.pieces(file), file.size
        self._next: tuple[int, bytes] | None = None
        self._at = 0

    def read(self, size: int) -> bytes:
        """Exactly the next `size` bytes, fewer at the end only."""
        made, wanted = bytearray(), min(size, self._size - self._at)
        while len(made) < wanted:
            made += self._some(wanted - len(made))
        return bytes(made)

    def _some(self, most: int) -> bytes:
        if self._next is None:
            self._next = next(self._pieces, (self._size, b""))
        start, data = self._next
        if self._at < start:
            piece = bytes(min(most, start - self._at, CHUNK))
        elif data[self._at - start:]:
            piece = data[self._at - start:self._at - start + most]
        else:
            self._next = None
            return b""
        self._at += len(piece)
        return piece


def write_tar(files: FileSystem, out: Sink) -> None:
    """All files as one tar, the same bytes every time. Raises BAD_FS."""
    first: dict[int, str] = {}
    with tarfile.open(fileobj=out, mode="w|", bufsize=CHUNK, format=tarfile.PAX_FORMAT) as tar:  # type: ignore[call-overload]
        for path, file in files.files():
            info = _member(files, path, file, first)
            if info is not None:
                tar.addfile(info, _Content(files, file) if info.isreg() else None)
            tar.members = []  # it would keep every member for ever


_KINDS = {stat.S_IFREG: tarfile.REGTYPE, stat.S_IFDIR: tarfile.DIRTYPE, stat.S_IFLNK: tarfile.SYMTYPE,
          stat.S_IFCHR: tarfile.CHRTYPE, stat.S_IFBLK: tarfile.BLKTYPE, stat.S_IFIFO: tarfile.FIFOTYPE}


def _member(files: FileSystem, path: bytes, file: Inode, first: dict[int, str]) -> tarfile.TarInfo | None:
    """One entry; None for a socket, which means nothing elsewhere. A second name of a file is a link to its first."""
    kind = _KINDS.get(stat.S_IFMT(file.mode))
    if kind is None:
        return None
    name = path.decode("utf-8", "surrogateescape")
    info = tarfile.TarInfo(name or ".")
    info.type, info.mode, info.mtime = kind, file.mode & 0o7777, file.mtime
    info.uid, info.gid = file.uid, file.gid
    info.pax_headers = {
        f"SCHILY.xattr.{key}": value.decode("utf-8", "surrogateescape") for key, value in sorted(file.xattrs.items())
    }
    if kind == tarfile.DIRTYPE:
        return info
    if file.links > 1 and file.number in first:
        info.type, info.linkname, info.pax_headers = tarfile.LNKTYPE, first[file.number], {}
        return info
    first.setdefault(file.number, name)
    if kind == tarfile.REGTYPE:
        info.size = file.size
    elif kind == tarfile.SYMTYPE:
        info.linkname = files.target(file).decode("utf-8", "surrogateescape")
    elif kind in (tarfile.CHRTYPE, tarfile.BLKTYPE):
        info.devmajor, info.devminor = file.device
    return info


def archive(config: dict[str, object], size: int, digest: str) -> tuple[list[tuple[str, bytes]], str]:
    """The small members of an OCI archive around a layer of `size` bytes, and the name of the layer's own."""
    config = {**config, "architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": [digest]}}
    settings = json.dumps(config, sort_keys=True).encode()
    manifest = json.dumps({
        "schemaVersion": 2, "mediaType": _MANIFEST, "config": _described(_CONFIG, settings),
        "layers": [{"mediaType": LAYER, "digest": digest, "size": size}],
    }).encode()
    index = json.dumps({"schemaVersion": 2, "mediaType": _INDEX, "manifests": [
        _described(_MANIFEST, manifest) | {"platform": {"architecture": "amd64", "os": "linux"}},
    ]}).encode()
    return [
        ("oci-layout", b'{"imageLayoutVersion": "1.0.0"}'), ("index.json", index),
        (_blob(settings), settings), (_blob(manifest), manifest),
    ], f"blobs/sha256/{digest.removeprefix('sha256:')}"


def _described(kind: str, data: bytes) -> dict[str, object]:
    return {"mediaType": kind, "digest": f"sha256:{hashlib.sha256(data).hexdigest()}", "size": len(data)}


def _blob(data: bytes) -> str:
    return f"blobs/sha256/{hashlib.sha256(data).hexdigest()}"


def main(work: str) -> None:
    """The process: confine, look at all of it once for sizes and digests, then send."""
    walled.begun()
    job = msgspec.json.decode((Path(work) / "job").read_bytes(), type=Job)
    confine(Path(work))
    out = sys.stdout.buffer
    try:
        size, send = drawn(job)
    except Failure as failure:
        out.write(msgspec.json.encode(Head(failure=failure.words.get("why", failure.sentence))) + b"\n")
        out.flush()
        return
    out.write(msgspec.json.encode(Head(size=size)) + b"\n")
    send(out)
    out.flush()


def drawn(job: Job) -> tuple[int, Callable[[Sink], None]]:
    """The size of what is asked for, and what sends it. Raises BAD_FS, BAD_DISK."""
    sources = [Layer(handle, parse(os.pread(handle, CLUSTER, 0))) for handle in job.layers]
    below = [] if job.image < 0 else [Raw(job.image)]
    files = FileSystem(View(list(runs([*sources, *below], job.size))))
    if files.dirty:
        raise BAD_FS(why=NOT_AT_REST)
    layer = _Measured()
    write_tar(files, layer)
    if not job.config:
        return layer.size, lambda out: write_tar(files, out)
    small, name = archive(json.loads(job.config), layer.size, f"sha256:{layer.hasher.hexdigest()}")

    def send(out: Sink) -> None:
        for path, data in small:
            out.write(_header(path, len(data)) + data + _padding(len(data)))
        out.write(_header(name, layer.size))
        write_tar(files, out)
        out.write(_padding(layer.size) + bytes(2 * _BLOCK))

    sizes = (*(len(data) for _, data in small), layer.size)
    return sum(_BLOCK + one + len(_padding(one)) for one in sizes) + 2 * _BLOCK, send


def _header(path: str, size: int) -> bytes:
    info = tarfile.TarInfo(path)
    info.size = size
    return info.tobuf(tarfile.GNU_FORMAT)


def _padding(size: int) -> bytes:
    return bytes(-size % _BLOCK)
