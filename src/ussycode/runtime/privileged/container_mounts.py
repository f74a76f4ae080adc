"""Mounts of a container: its layers with uids moved into its own range, seen by nobody but itself."""
from __future__ import annotations

import ctypes
import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from ussycode.runtime.privileged.container_bundle import UIDS

_OPEN_TREE, _MOVE_MOUNT, _MOUNT_SETATTR = 428, 429, 442
_OPEN_TREE_CLONE, _CLOEXEC, _EMPTY_PATH, _FROM_EMPTY = 1, 0o2000000, 0x1000, 4
_ATTR_IDMAP, _AT_FDCWD = 0x00100000, -100
_CLONE_NEWNS, _CLONE_NEWUSER, _MS_REC_PRIVATE = 0x00020000, 0x10000000, 0x4000 | 0x40000
_MS_NODEV = 4
_CAPABILITY_VERSION_3 = 0x20080522
_CAP_SYS_RESOURCE, _SUPERBLOCK = 24, 1024
_MOUNT_SECONDS = 20.0
_libc = ctypes.CDLL(None, use_errno=True)


class _MountAttr(ctypes.Structure):
    _fields_ = [(name, ctypes.c_uint64) for name in ("attr_set", "attr_clr", "propagation", "userns_fd")]


class _CapHeader(ctypes.Structure):
    _fields_ = [("version", ctypes.c_uint32), ("pid", ctypes.c_int)]


class _CapData(ctypes.Structure):
    _fields_ = [(name, ctypes.c_uint32) for name in ("effective", "permitted", "inheritable")]


@dataclass(frozen=True)
class Layers:
    """A container's file system: the image below, its own disk above, joined at `root`; both mounted in `place`.

    `uids` is the first uid on the host of the container's 65536.
    """

    image: Path
    disk: Path
    place: Path
    root: Path
    uids: int


@contextmanager
def user_namespace(first: int) -> Iterator[int]:
    """A descriptor of a user namespace that maps 0..65535 to the host's uids from `first`. Root only."""
    ready, told = os.pipe()
    child = os.fork()
    if child == 0:
        _be_namespace(told)
    os.close(told)
    try:
        done = os.read(ready, 1)
        if done != b"+":
            raise OSError("this kernel allows no user namespaces")
        for kind in ("uid", "gid"):
            Path(f"/proc/{child}/{kind}_map").write_text(f"0 {first} {UIDS}")
        held = os.open(f"/proc/{child}/ns/user", os.O_RDONLY | os.O_CLOEXEC)
    finally:
        os.close(ready)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    try:
        yield held
    finally:
        os.close(held)


def _be_namespace(told: int) -> None:
    """The child that holds the namespace until it is killed."""
    os.write(told, b"+" if _libc.unshare(_CLONE_NEWUSER) == 0 else b"-")
    os.close(told)
    while True:
        signal.pause()


def enter(layers: Layers, namespace: int) -> None:
    """Go to a mount namespace of one's own and mount `layers` there; to be called in a child before it executes.

    All mounts, and the loop devices under them, end with the last process in that namespace.
    """
    _check(_libc.unshare(_CLONE_NEWNS), "unshare")
    _check(_libc.mount(None, b"/", None, _MS_REC_PRIVATE, None), "private mounts")
    lower, upper = layers.place / "image", layers.place / "disk"
    _tool("mount", "-t", "ext4", "-o", "loop,ro,nodev", layers.image, lower)
    fill(layers.disk)
    _tool("mount", "-t", "ext4", "-o", "loop,nodev,discard,noatime", layers.disk, upper)
    for name in ("files", "work"):
        (upper / name).mkdir(mode=0o755, exist_ok=True)
    for folder in (lower, upper):
        _shift(folder, namespace)
    os.chdir(layers.place)  # the container can read these words: they say nothing of the host
    words = "lowerdir=image,upperdir=disk/files,workdir=disk/work"
    with _as_owner(layers.uids):
        _check(_libc.mount(b"overlay", bytes(layers.root), b"overlay", _MS_NODEV, words.encode()), "overlay")


@contextmanager
def _as_owner(uid: int) -> Iterator[None]:
    """Act on files as `uid`, with every right of root: overlayfs works with the credentials of who mounted it.

    Root itself has no place among the shifted uids, so it could not even make the overlay's work folder.
    """
    _libc.setfsgid(uid)
    _libc.setfsuid(uid)  # which gives up the rights over files
    header, data = _CapHeader(_CAPABILITY_VERSION_3, 0), (_CapData * 2)()
    _check(_libc.capget(ctypes.byref(header), data), "capget")
    for part in data:
        part.effective = part.permitted
    _check(_libc.capset(ctypes.byref(header), data), "capset")
    try:
        yield
    finally:
        _libc.setfsuid(0)
        _libc.setfsgid(0)


def fill(disk: Path, seconds: float = _MOUNT_SECONDS) -> None:
    """Grow the file system of a disk that became larger and is not mounted; all of it is checked before that."""
    with disk.open("rb") as file:
        block = os.pread(file.fileno(), _SUPERBLOCK, _SUPERBLOCK)
    low, high = (int.from_bytes(block[at : at + 4], "little") for at in (0x04, 0x150))
    size = (high << 32 | low) << 10 << int.from_bytes(block[0x18:0x1C], "little")
    if disk.stat().st_size > size:
        subprocess.run(["e2fsck", "-f", "-p", disk], capture_output=True, timeout=seconds, check=False)
        _tool("resize2fs", disk, seconds=seconds)


def grow_mounted(disk: Path, place: Path) -> bool:
    """Grow the file system of a running container to the size of its disk.

    Its mount is visible to the container alone, so the same file system is mounted once more, for a moment and
    for the growing program only. False on a host whose root may not do that (it lacks CAP_SYS_RESOURCE, in a
    container itself): the file system then grows at the next start.
    """
    for loop in loops(disk):
        _tool("losetup", "--set-capacity", loop)
        if not _capable(_CAP_SYS_RESOURCE):
            return False
        _tool("unshare", "--mount", "--propagation", "private", "sh", "-ec",
              'mount -t ext4 "$0" "$1"; exec resize2fs "$0"', loop, place)
    return True


def _capable(capability: int) -> bool:
    header, data = _CapHeader(_CAPABILITY_VERSION_3, 0), (_CapData * 2)()
    _check(_libc.capget(ctypes.byref(header), data), "capget")
    return bool(data[0].effective >> capability & 1)


def loops(disk: Path) -> list[str]:
    """Loop devices over a file."""
    return _tool("losetup", "--noheadings", "--output", "NAME", "--associated", disk).split()


def _tool(*words: str | Path, seconds: float = _MOUNT_SECONDS) -> str:
    done = subprocess.run([*map(str, words)], capture_output=True, text=True, timeout=seconds, check=False)
    if done.returncode:
        raise OSError(done.stderr.strip() or f"{words[0]} ended with {done.returncode}")
    return done.stdout


def _shift(folder: Path, namespace: int) -> None:
    """Replace the mount at `folder` by one whose files belong to the namespace's uids."""
    tree = _check(_call(_OPEN_TREE, _AT_FDCWD, bytes(folder), _OPEN_TREE_CLONE | _CLOEXEC), "open_tree")
    try:
        attr = _MountAttr(_ATTR_IDMAP, 0, 0, namespace)
        size = ctypes.c_size_t(ctypes.sizeof(attr))
        _check(_call(_MOUNT_SETATTR, tree, b"", _EMPTY_PATH, ctypes.byref(attr), size), "idmapped mount")
        _check(_call(_MOVE_MOUNT, tree, b"", _AT_FDCWD, bytes(folder), _FROM_EMPTY), "move_mount")
    finally:
        os.close(tree)


def _call(number: int, *arguments: object) -> int:
    return int(_libc.syscall(ctypes.c_long(number), *arguments))


def _check(result: int, what: str) -> int:
    if result < 0:
        error = ctypes.get_errno()
        raise OSError(error, f"{what}: {os.strerror(error)}")
    return result
