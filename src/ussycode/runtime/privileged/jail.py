"""What QEMU can see of the host: system libraries, devices it needs, the disks; no network, nobody's processes."""
from __future__ import annotations

import ctypes
import os
import stat
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

_CLONE_NEWNS, _CLONE_NEWNET, _CLONE_NEWIPC, _CLONE_NEWUTS = 0x20000, 0x40000000, 0x08000000, 0x04000000
_NAMESPACES = {"mnt": _CLONE_NEWNS, "net": _CLONE_NEWNET, "ipc": _CLONE_NEWIPC, "uts": _CLONE_NEWUTS}
_PR_SET_PDEATHSIG = 1
_RDONLY, _NOSUID, _NODEV, _NOEXEC, _REMOUNT, _BIND, _REC, _SLAVE = 1, 2, 4, 8, 32, 4096, 16384, 1 << 19
_SYSTEM = ("/usr", "/lib", "/lib64", "/lib32", "/bin", "/sbin")
_FILES = ("/etc/ld.so.cache",)
_DEVICES = ("/dev/null", "/dev/zero", "/dev/random", "/dev/urandom", "/dev/kvm")
_HIDDEN = ("control", "edge", "ca", "log")
"""Folders of the data folder that no machine needs, whatever their modes are."""
_libc = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True)
class Jail:
    """Namespaces that are kept alive by these descriptors and by every process in them."""

    root: Path
    namespaces: tuple[int, ...]

    def enter(self) -> None:
        """Put the calling process into it; only between fork and exec, as root."""
        for namespace in self.namespaces:
            _checked(_libc.setns(namespace, 0), "setns")
        os.chroot(self.root)
        os.chdir("/")


def build(root: Path, data: Path, shown: Iterable[Path]) -> Jail:
    """A jail at the empty folder `root` that shows the folder `data` and those of `shown`. Root only.

    Its mounts live in a namespace of their own: the host never sees them, and they end with the last process
    inside. Raises OSError when the kernel refuses.
    """
    root.mkdir(mode=0o755, exist_ok=True)
    ready, told = os.pipe()
    child = os.fork()
    if child == 0:
        _be_the_first(root, data, shown, told)
    os.close(told)
    try:
        why = os.read(ready, 1024)
        if why != b"ready":
            raise OSError(f"the jail of machines cannot be built: {why.decode(errors='replace')}")
        return Jail(root, tuple(os.open(f"/proc/{child}/ns/{n}", os.O_RDONLY | os.O_CLOEXEC) for n in _NAMESPACES))
    finally:
        os.close(ready)
        os.kill(child, 9)
        os.waitpid(child, 0)


def _be_the_first(root: Path, data: Path, shown: Iterable[Path], told: int) -> None:
    """The process that makes the namespaces, and waits there until its parent holds them."""
    try:
        _checked(_libc.prctl(_PR_SET_PDEATHSIG, 9, 0, 0, 0), "prctl")
        for flag in _NAMESPACES.values():
            _checked(_libc.unshare(flag), "unshare")
        _mount("none", Path("/"), "", _REC | _SLAVE)
        _furnish(root, data, shown)
        os.write(told, b"ready")
    except OSError as error:
        os.write(told, str(error).encode()[:1024])
    while True:
        os.read(os.pipe()[0], 1)


def _furnish(root: Path, data: Path, shown: Iterable[Path]) -> None:
    _mount("tmpfs", root, "tmpfs", _NOSUID | _NOEXEC, "size=1m,mode=755")
    for name in _SYSTEM:
        _system(Path(name), root)
    for name in (*_FILES, *_DEVICES):
        if Path(name).exists():
            _file(Path(name), root)
    (root / "proc").mkdir()
    _mount("proc", root / "proc", "proc", _NOSUID | _NODEV | _NOEXEC, "subset=pid,hidepid=2")
    for folder in dict.fromkeys((data, *(path.resolve() for path in shown))):
        _show(folder, root)
    for name in _HIDDEN:
        if (data / name).is_dir():
            _mount("tmpfs", _below(root, data / name), "tmpfs", _RDONLY | _NOSUID | _NODEV | _NOEXEC, "size=0")
    _mount("none", root, "", _REMOUNT | _RDONLY | _NOSUID | _NOEXEC)


def _system(path: Path, root: Path) -> None:
    if path.is_symlink():
        _below(root, path).symlink_to(path.readlink())
    elif path.is_dir():
        _show(path, root, _RDONLY | _NOSUID | _NODEV)


def _file(path: Path, root: Path) -> None:
    place = _below(root, path)
    place.parent.mkdir(parents=True, exist_ok=True)
    place.touch()
    _mount(str(path), place, "", _BIND)
    device = stat.S_ISCHR(path.stat().st_mode)
    _mount("none", place, "", _BIND | _REMOUNT | _NOSUID | _NOEXEC | (0 if device else _RDONLY | _NODEV))


def _show(path: Path, root: Path, flags: int = _NOSUID | _NODEV | _NOEXEC) -> None:
    place = _below(root, path)
    place.mkdir(parents=True, exist_ok=True)
    _mount(str(path), place, "", _BIND | _REC)
    _mount("none", place, "", _BIND | _REMOUNT | flags)


def _below(root: Path, path: Path) -> Path:
    return root / path.relative_to("/")


def _mount(source: str, place: Path, kind: str, flags: int, options: str = "") -> None:
    done = _libc.mount(
        source.encode(), os.fsencode(place), kind.encode() or None, ctypes.c_ulong(flags), options.encode() or None,
    )
    _checked(done, f"mount {place}")


def _checked(done: int, what: str) -> None:
    if done != 0:
        raise OSError(ctypes.get_errno(), f"{what}: {os.strerror(ctypes.get_errno())}")


def close(jail: Jail) -> None:
    """Let go of it; it lives on while a process is inside."""
    for namespace in jail.namespaces:
        os.close(namespace)
    with suppress(OSError):
        jail.root.rmdir()
