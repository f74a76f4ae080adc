"""Layers become a disk in a process of its own, behind walls: what strangers packed is read nowhere else."""
from __future__ import annotations

import subprocess
from pathlib import Path

import msgspec

from ussycode.base.errors import Failure
from ussycode.base.unreadable import UNREADABLE
from ussycode.runtime.images import ext4, kit, walled
from ussycode.runtime.images.confine import confine
from ussycode.runtime.images.layers import Blobs, Budget, read_layer
from ussycode.runtime.images.tree import BAD_LAYER, Tree, folder

UNPACK_SECONDS = 1800.0
NEEDED = {b"etc": 0o755, b"proc": 0o755, b"sys": 0o755, b"dev": 0o755, b"run": 0o755, b"tmp": 0o1777, b"root": 0o700,
          b"var": 0o755, b"var/log": 0o755}
"""Folders that a machine needs, made where an image has them not."""


class Job(msgspec.Struct, frozen=True):
    """What lies in the folder: layers 0, 1, ... with the digests of their unpacked bytes (perhaps unknown)."""

    diff_ids: tuple[str, ...]


class Result(msgspec.Struct, frozen=True):
    """`size` of disk.raw in bytes, or why there is none."""

    size: int = 0
    failure: str = ""


def start(work: Path, job: Job) -> subprocess.Popen[bytes]:
    """Begin to unpack the layers in `work` into work/disk.raw; `result` tells how it went once the process ended."""
    (work / "job").write_bytes(msgspec.json.encode(job))
    return walled.start("unpack", work)


def result(work: Path) -> int:
    """Size of the disk in bytes. Raises BAD_LAYER with the reason when there is no disk."""
    try:
        found = msgspec.json.decode((work / "result").read_bytes(), type=Result)
    except (OSError, *UNREADABLE):
        said = (work / "log").read_text(errors="replace")[-2000:]
        raise BAD_LAYER(why="unpacking it took more than is allowed").because(said) from None
    if found.failure:
        raise BAD_LAYER(why=found.failure)
    return found.size


def main(work: str) -> None:
    """The process: confine, unpack, say how it went."""
    place = Path(work)
    walled.begun()
    job = msgspec.json.decode((place / "job").read_bytes(), type=Job)
    busybox = kit.read()
    confine(place)
    try:
        answer = Result(size=unpack(place, job, busybox))
    except Failure as failure:
        answer = Result(failure=failure.words.get("why", failure.sentence))
    (place / "result").write_bytes(msgspec.json.encode(answer))


def unpack(work: Path, job: Job, busybox: bytes | None) -> int:
    """Make work/disk.raw of work/0, work/1, ...; its size in bytes. Raises BAD_LAYER or a host tool's failure."""
    blobs, budget, tree = Blobs(work / "blobs"), Budget(), Tree()
    blobs.folder.mkdir()
    for number, diff_id in enumerate(job.diff_ids):
        tree.apply(read_layer(work / str(number), blobs, budget, diff_id))
        (work / str(number)).unlink()
    complete(tree)
    if busybox is not None and not kit.has_shell(tree):
        kit.install(tree, blobs, busybox)
    return ext4.write(tree, blobs, work / "disk.raw")


def complete(tree: Tree) -> None:
    """Make what a machine cannot do without."""
    for path, mode in NEEDED.items():
        if tree.find(path) is None:
            tree.make(path, folder(mode))
