"""Images as root may mount them: files that nobody but root could have written, or a checked copy of them."""
from __future__ import annotations

import os
import stat
import subprocess
from contextlib import ExitStack
from pathlib import Path

from ussycode.base.clock import SystemClock
from ussycode.runtime.instance import UIDS_PER_SLOT, Instance
from ussycode.runtime.privileged.container_disks import BASE, Base, copy

UNUSED_SECONDS = 1800.0
"""How long a copy of an image stays without a container; longer than making one may take."""
_CHECK_SECONDS = 120.0
_UNTRUSTED = "the disk of this image is damaged"


def base_disk(instance: Instance, base: Base) -> Path:
    """The raw disk of an image, fit to be mounted by root. Raises FileNotFoundError, PermissionError.

    Whoever can write a file system's bytes can attack the kernel that mounts them. What root built is mounted
    as it lies; anything else is copied out of its owner's reach once and checked there, by a user without rights.
    """
    images = (instance.data / "images").resolve()
    chain = [images, images / base.folder, images / base.folder / base.digest]
    disk = chain[-1] / "disk.raw"
    if all(_only_root_writes(path) for path in (*chain, disk)):
        return disk
    return _sealed(instance, images, base)


def _only_root_writes(path: Path) -> bool:
    seen = path.lstat()
    return seen.st_uid == 0 and not stat.S_ISLNK(seen.st_mode) and not seen.st_mode & 0o022


def _sealed(instance: Instance, images: Path, base: Base) -> Path:
    folder = instance.data / "containers" / "images"
    folder.mkdir(mode=0o711, parents=True, exist_ok=True)
    kept, draft = folder / f"{base.digest}.raw", folder / f"draft-{os.getpid()}"
    if kept.exists():
        os.utime(kept)  # who asks for it may not have noted yet that a container stands on it
        return kept
    _drop_drafts(folder)
    with ExitStack() as held:
        copy(_opened(images, (base.folder, base.digest, "disk.raw"), held), draft)
    try:
        _check(instance, draft)
        draft.replace(kept)
    finally:
        draft.unlink(missing_ok=True)
    return kept


def sweep(instance: Instance) -> None:
    """Remove copies on which no container stands any more, once they were not asked for in UNUSED_SECONDS."""
    folder = instance.data / "containers" / "images"
    notes = (instance.data / "containers" / "vms").glob(f"*/{BASE}")
    needed = {note.read_text().split()[-1] for note in notes}
    now = SystemClock().now()
    for kept in folder.glob("*.raw"):
        if kept.stem not in needed and now - kept.stat().st_mtime > UNUSED_SECONDS:
            kept.unlink()


def _drop_drafts(folder: Path) -> None:
    """Remove what processes that were killed left half copied."""
    for left in folder.glob("draft-*"):
        if not Path("/proc", left.name.partition("-")[2]).exists():
            left.unlink(missing_ok=True)


def _opened(root: Path, names: tuple[str, ...], held: ExitStack) -> Path:
    """The file below `root`, opened step by step without following links; a path to the open descriptor."""
    at = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    held.callback(os.close, at)
    for name in names:
        at = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=at)
        held.callback(os.close, at)
    if not stat.S_ISREG(os.fstat(at).st_mode):
        raise PermissionError(f"{names[-1]} is not a plain file")
    return Path(f"/proc/self/fd/{at}")


def _check(instance: Instance, disk: Path) -> None:
    nobody = instance.uid_base + UIDS_PER_SLOT - 1
    with disk.open("rb") as file:
        os.fchown(file.fileno(), 0, nobody)
        os.fchmod(file.fileno(), 0o440)  # the checker may read it, and no bug of its may write
        done = subprocess.run(
            ["e2fsck", "-f", "-n", f"/proc/self/fd/{file.fileno()}"], pass_fds=(file.fileno(),), capture_output=True,
            text=True, timeout=_CHECK_SECONDS, check=False, stdin=subprocess.DEVNULL,
            user=nobody, group=nobody, extra_groups=[],
        )
    if done.returncode:
        raise PermissionError(f"{_UNTRUSTED}: {(done.stdout + done.stderr).strip()[-200:]}")
