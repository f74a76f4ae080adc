"""Folders that appear whole or not at all, and one builder at a time."""
from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

SCRATCH = ".building-"


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold an exclusive lock on the file `path` across processes; waits for whoever holds it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


@contextlib.contextmanager
def staging(parent: Path) -> Iterator[Path]:
    """An empty scratch folder inside `parent`, so that a rename publishes; gone afterwards.

    To be called with a lock held that belongs to `parent`: what a killed builder left there is removed first.
    """
    parent.mkdir(parents=True, exist_ok=True)
    for left in parent.glob(f"{SCRATCH}*"):
        shutil.rmtree(left, ignore_errors=True)
    folder = Path(tempfile.mkdtemp(prefix=SCRATCH, dir=parent))
    folder.chmod(0o755)  # apt's own user and the VMs' users must be able to pass
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def publish(built: Path, final: Path) -> None:
    """Rename the folder `built` to `final`; when someone published `final` before, theirs stays."""
    flush(built)
    final.parent.mkdir(parents=True, exist_ok=True)
    if not final.exists():
        built.rename(final)
        flush(final.parent)


def flush(folder: Path) -> None:
    """Ask the disk to keep the entries of `folder` over a power cut."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_atomically(path: Path, text: str, mode: int = 0o644) -> None:
    """Replace `path` by `text` in one rename."""
    with tempfile.NamedTemporaryFile("w", dir=path.parent, prefix=".new-", delete=False) as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    Path(file.name).chmod(mode)
    Path(file.name).replace(path)
