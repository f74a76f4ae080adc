"""What somebody uploads becomes a disk, in a process of its own behind walls: a disk image, an OCI archive or a tar."""
from __future__ import annotations

import os
import re
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec

from ussycode.base.errors import ErrorCode, Failure, Kind
from ussycode.base.unreadable import UNREADABLE
from ussycode.runtime.images import kit, unpack, walled
from ussycode.runtime.images.confine import confine
from ussycode.runtime.images.ext4_reader import FileSystem
from ussycode.runtime.images.layers import Budget, opened
from ussycode.runtime.images.manifest import BAD_IMAGE, MAX_MANIFEST, Manifest, read_config, read_manifest
from ussycode.runtime.images.partitions import whole_or_part
from ussycode.runtime.qcow2.layout import BAD_DISK, CLUSTER, MAGIC, MAX_NOTE, parse
from ussycode.runtime.qcow2.reader import Foreign, extents

UPLOAD, WHOLE = "upload", "whole.raw"
_USTAR_AT, _USTAR = 257, b"ustar"
_PACKED = (b"\x1f\x8b", b"\x28\xb5")
"""How gzip and zstd begin: only tars are taken packed."""
_BLOB = re.compile(r"(?:\./)?blobs/sha256/([0-9a-f]{64})")
_INITS = (b"sbin/init", b"usr/sbin/init", b"usr/lib/systemd/systemd")
_NAME = "that was uploaded"
_MISSING = BAD_IMAGE(name=_NAME, why="a part of it is missing")
_COPY = 16 << 20

NO_DISK = ErrorCode(
    "import.not_a_disk", Kind.USAGE, "this is no disk that a VM can be made of: {why}",
    hint="qcow2, a raw disk, an OCI archive or a tar of a root file system is taken; export writes the first three",
)


class Job(msgspec.Struct, frozen=True):
    """The folder holds `upload`; `limit` is how many bytes the disk may have."""

    limit: int


class Taken(msgspec.Struct, frozen=True):
    """disk.raw is there, `size` bytes; or `failure` says why not.

    `config` is the image configuration that came with it, if any; `foreign`: its file system was written elsewhere;
    `boots`: an init of its own is in it.
    """

    size: int = 0
    config: str = ""
    foreign: bool = False
    boots: bool = False
    failure: str = ""


def main(work: str) -> None:
    """The process: confine, look what it is, make the disk, say how it went."""
    place = Path(work)
    walled.begun()
    job = msgspec.json.decode((place / "job").read_bytes(), type=Job)
    busybox = kit.read()
    confine(place)
    try:
        answer = take(place, job, busybox)
    except Failure as failure:
        answer = Taken(failure=failure.words.get("why", failure.sentence))
    (place / "result").write_bytes(msgspec.json.encode(answer))


def result(work: Path) -> Taken:
    """How it went. Raises NO_DISK."""
    try:
        found = msgspec.json.decode((work / "result").read_bytes(), type=Taken)
    except (OSError, *UNREADABLE):
        said = (work / "log").read_text(errors="replace")[-2000:]
        raise NO_DISK(why="reading it took more than is allowed").because(said) from None
    if found.failure:
        raise NO_DISK(why=found.failure)
    return found


def take(work: Path, job: Job, busybox: bytes | None) -> Taken:
    """Make work/disk.raw of work/upload. Raises a Failure whose `why` says what is wrong with it."""
    upload = work / UPLOAD
    with upload.open("rb") as file:
        head = file.read(CLUSTER)
    if head[:4] == MAGIC:
        return _disk(work, job, lambda: _flat(upload, work / WHOLE, job.limit))
    if head[:2] in _PACKED or head[_USTAR_AT:_USTAR_AT + len(_USTAR)] == _USTAR:
        return _files(work, busybox)
    return _disk(work, job, lambda: _renamed(upload, work / WHOLE))


def _renamed(upload: Path, whole: Path) -> str:
    upload.rename(whole)
    return ""


def _flat(upload: Path, whole: Path, limit: int) -> str:
    """The content of a qcow2 file as a sparse raw one; what was noted in it when it was exported."""
    with upload.open("rb") as source, whole.open("xb") as target:
        header = parse(os.pread(source.fileno(), CLUSTER, 0))
        if header.backing:
            raise BAD_DISK(why="it stands on another file, which did not come with it")
        if header.size > limit:
            raise BAD_DISK(why=f"its size is {header.size >> 30} GiB, and you may have {limit >> 30}")
        target.truncate(header.size)
        for at, data in Foreign(source.fileno(), header).pieces():
            if data.count(0) != len(data):
                os.pwrite(target.fileno(), data, at)
    upload.unlink()
    return header.note.decode(errors="replace") if len(header.note) < MAX_NOTE else ""


def _disk(work: Path, job: Job, make: Callable[[], str]) -> Taken:
    config, whole, disk = make(), work / WHOLE, work / "disk.raw"
    size = whole.stat().st_size
    if size > job.limit:
        raise BAD_DISK(why=f"its size is {size >> 30} GiB, and you may have {job.limit >> 30}")
    with whole.open("rb") as file:
        start, length = whole_or_part(file.fileno(), size)
        if (start, length) != (0, size):
            _cut(file.fileno(), disk, start, length)
    if disk.exists():
        whole.unlink()
    else:
        whole.rename(disk)
    disk.chmod(0o644)
    return Taken(length, config, foreign=True, boots=_boots(disk))


def _boots(disk: Path) -> bool:
    """Whether an init of its own is in it."""
    with disk.open("rb") as file:
        files = FileSystem(_Plain(file.fileno()))
        if files.size > disk.stat().st_size:
            raise NO_DISK(why="it is cut short")
        return any(files.find(path) is not None for path in _INITS)


def _cut(source: int, disk: Path, start: int, length: int) -> None:
    """One partition as a disk of its own."""
    with disk.open("xb") as target:
        target.truncate(length)
        for begin, end in extents(source, start + length):
            at = max(begin, start)
            while at < end:
                moved = os.copy_file_range(source, target.fileno(), min(_COPY, end - at), at, at - start)
                if not moved:
                    break
                at += moved


class _Plain:
    """A raw disk."""

    def __init__(self, handle: int) -> None:
        self._handle = handle

    def read(self, at: int, length: int) -> bytes:
        """Bytes anywhere; zeros beyond the end."""
        return os.pread(self._handle, length, at).ljust(length, b"\0")


def _files(work: Path, busybox: bytes | None) -> Taken:
    """A tar: of an image's parts, or of the files themselves."""
    members = _parts(work)
    if members is None:
        (work / UPLOAD).rename(work / "0")
        size = unpack.unpack(work, unpack.Job(("",)), busybox)
        return Taken(size, boots=_boots(work / "disk.raw"))
    manifest = _manifest(work, members)
    config = _blob(work, manifest.config.digest)
    runs = read_config(_NAME, config)
    if len(runs.diff_ids) != len(manifest.layers):
        raise BAD_IMAGE(name=_NAME, why="its configuration speaks of other layers than its manifest")
    (work / UPLOAD).unlink()
    for number, layer in enumerate(manifest.layers):
        try:
            os.link(_path(work, layer.digest), work / str(number))
        except FileNotFoundError:
            raise _MISSING from None
    size = unpack.unpack(work, unpack.Job(runs.diff_ids), busybox)
    return Taken(size, config.decode(errors="replace"))


def _parts(work: Path) -> bytes | None:
    """Put the blobs of an OCI archive into files of their own; its index, or None when it is another tar."""
    budget, index, oci, name = Budget(), b"", False, ""
    with opened(work / UPLOAD) as source:
        try:
            with tarfile.open(fileobj=source, mode="r|", errorlevel=1) as tar:
                for member in _regular(tar, budget):
                    name = member.name.removeprefix("./")
                    oci |= name == "oci-layout"
                    if name == "manifest.json" and not index:
                        raise NO_DISK(why="it is an archive of docker save; skopeo copy makes an oci-archive of it")
                    if name == "index.json" and member.size <= MAX_MANIFEST:
                        index = _content(tar, member)
                    elif found := _BLOB.fullmatch(member.name):
                        _keep(tar, member, _path(work, f"sha256:{found[1]}"), budget)
                    elif not oci and not index and name not in ("", ".") and not name.startswith("blobs"):
                        return None
        except (tarfile.TarError, EOFError, OSError, ValueError, RecursionError) as wrong:
            raise NO_DISK(why=f"the archive is damaged ({type(wrong).__name__})") from None
    if not name:
        raise NO_DISK(why="there is nothing in it; a packed disk is not unpacked here")
    return index or None


def _regular(tar: tarfile.TarFile, budget: Budget) -> Iterator[tarfile.TarInfo]:
    for member in tar:
        budget.entry()
        tar.members = []  # type: ignore[attr-defined]  # it would keep every member for ever
        if member.isreg() or not member.name.removeprefix("./").startswith("blobs"):
            yield member


def _content(tar: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    held = tar.extractfile(member)
    return held.read() if held is not None else b""


def _keep(tar: tarfile.TarFile, member: tarfile.TarInfo, place: Path, budget: Budget) -> None:
    held = tar.extractfile(member)
    with place.open("wb") as out:
        while held is not None and (data := held.read(_COPY)):
            budget.unpacked(len(data))
            out.write(data)


def _manifest(work: Path, index: bytes) -> Manifest:
    found: Manifest | str = read_manifest(_NAME, "", index)
    for _ in range(3):  # an index may lead to another one
        if isinstance(found, Manifest):
            return found
        found = read_manifest(_NAME, found, _blob(work, found))
    raise BAD_IMAGE(name=_NAME, why="its index leads nowhere")


def _path(work: Path, digest: str) -> Path:
    return work / f"blob-{digest.removeprefix('sha256:')}"


def _blob(work: Path, digest: str) -> bytes:
    try:
        with _path(work, digest).open("rb") as file:
            return file.read(MAX_MANIFEST)
    except FileNotFoundError:
        raise _MISSING from None
