"""Files of one VM touched as root: folders are walked by descriptor and no link is ever followed."""
from __future__ import annotations

import os
import shutil
import socket
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ussycode.runtime.instance import Instance

CONSOLE = "console.log"
QMP_SOCKET = "qmp.sock"
AGENT_SOCKET = "agent.sock"


def own_disk(instance: Instance, number: int, disk: str) -> None:
    """Give a disk to the VM's uid, mode 0600. Raises PermissionError when it is not a plain file of ours."""
    uid = instance.uid(number)
    with _opened_disk(instance, disk, {instance.control_uid, uid}) as fd:
        os.fchown(fd, uid, uid)
        os.fchmod(fd, 0o600)


def seal_disk(instance: Instance, number: int, disk: str) -> None:
    """Take a disk from the VM's uid and let everybody read it. Raises PermissionError as `own_disk` does."""
    with _opened_disk(instance, disk, {instance.control_uid, instance.uid(number)}) as fd:
        os.fchown(fd, instance.control_uid, instance.control_uid)
        os.fchmod(fd, 0o444)


def require_disk(instance: Instance, number: int, disk: str) -> None:
    """Raise PermissionError unless the disk is a plain file that belongs to the VM's uid."""
    with _opened_disk(instance, disk, {instance.uid(number)}):
        return


def open_console(instance: Instance, vm: str) -> int:
    """The console log opened for appending; it belongs to control, which reads and shortens it."""
    flags = os.O_WRONLY | os.O_APPEND | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    with _folder(instance, instance.vm_data(vm)) as folder:
        try:
            fd = os.open(CONSOLE, flags | os.O_CREAT | os.O_EXCL, 0o600, dir_fd=folder)
            os.fchown(fd, instance.control_uid, instance.control_uid)
        except FileExistsError:
            fd = os.open(CONSOLE, flags, dir_fd=folder)
    try:
        _require_plain(fd, {instance.control_uid}, CONSOLE)
    except PermissionError:
        os.close(fd)
        raise
    return fd


def listen(instance: Instance, vm: str, name: str) -> socket.socket:
    """A fresh listening unix socket in the VM's root-owned run folder that only control may connect to."""
    path = instance.vm_run(vm) / name
    path.unlink(missing_ok=True)
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listening.bind(str(path))
    path.chmod(0o600)
    os.chown(path, instance.control_uid, instance.control_uid)
    listening.listen(1)
    return listening


def make_run(instance: Instance, vm: str) -> Path:
    """The VM's run folder, made when missing."""
    folder = instance.vm_run(vm)
    folder.mkdir(mode=0o711, exist_ok=True)
    folder.chmod(0o711)
    return folder


def remove_run(instance: Instance, vm: str) -> None:
    """Remove the VM's run folder; no error when it is gone."""
    if instance.vm_run(vm).exists():
        shutil.rmtree(instance.vm_run(vm))


@contextmanager
def _opened_disk(instance: Instance, disk: str, owners: set[int]) -> Iterator[int]:
    with _folder(instance, instance.layers) as folder:
        fd = os.open(disk, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=folder)
        try:
            _require_plain(fd, owners, disk)
            yield fd
        finally:
            os.close(fd)


@contextmanager
def _folder(instance: Instance, path: Path) -> Iterator[int]:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        if os.fstat(fd).st_uid != instance.control_uid:
            raise PermissionError(f"the folder {path.name} does not belong to control")
        yield fd
    finally:
        os.close(fd)


def _require_plain(fd: int, owners: set[int], name: str) -> None:
    """A second name of the file may lie anywhere, so a file with two is not one of ours."""
    seen = os.fstat(fd)
    if not stat.S_ISREG(seen.st_mode) or seen.st_nlink != 1 or seen.st_uid not in owners:
        raise PermissionError(f"{name} is not a plain file of this VM")
