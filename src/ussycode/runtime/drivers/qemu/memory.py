"""Memory of a paused VM: QEMU's own stream in one file, believed only when it is whole and fits this host."""
from __future__ import annotations

import asyncio
import os
import zlib
from contextlib import suppress
from pathlib import Path

import msgspec

from ussycode.base.errors import ErrorCode, Kind
from ussycode.base.unreadable import UNREADABLE
from ussycode.runtime import disks
from ussycode.runtime.drivers.qemu.monitor import Monitor
from ussycode.runtime.publish import flush, write_atomically

FILE = "memory"
_DRAFT, _ABOUT = "memory.new", "memory.json"
_BLOCK = 1 << 20
_MIB = 1 << 20
PAUSE_FAILED = ErrorCode(
    "vm.pause_failed", Kind.FAILED, "the memory of the VM could not be written to disk; it goes on running: {why}",
    hint="stop it instead: its disk stays, its processes end",
)


class About(msgspec.Struct, frozen=True):
    """What a memory file is: bytes, checksum, and on which kind of machine alone it can go on."""

    size: int
    crc: int
    fits: str


async def write(folder: Path, monitor: Monitor, memory_mib: int, fits: str) -> None:
    """Put the memory of a machine into `folder`, and leave the machine halted.

    Raises NO_ROOM before anything is halted, PAUSE_FAILED later; the machine may have to be told to go on.
    """
    drop(folder)
    disks.require_room(folder, memory_mib)
    await stream(folder / _DRAFT, monitor)
    about = await asyncio.to_thread(_settled, folder / _DRAFT, fits)
    write_atomically(folder / _ABOUT, msgspec.json.encode(about).decode(), 0o600)
    (folder / _DRAFT).replace(folder / FILE)
    flush(folder)


async def stream(draft: Path, monitor: Monitor, *, shared: bool = False) -> None:
    """Halt the machine and write all of its memory and devices to `draft`. Raises PAUSE_FAILED.

    `shared` leaves memory out that lies in a file of its own.
    """
    fd = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        await monitor.halt()
        if not await monitor.save(fd, shared=shared):
            raise PAUSE_FAILED(why="QEMU could not write it")
    finally:
        os.close(fd)


def is_sound(folder: Path, fits: str) -> bool:
    """Whether there is a whole memory file that a machine of the kind `fits` can go on from. Reads all of it."""
    try:
        about = msgspec.json.decode((folder / _ABOUT).read_bytes(), type=About)
        return about.fits == fits and (about.size, about.crc) == _measured(folder / FILE)
    except (OSError, *UNREADABLE):
        return False


def exists(folder: Path) -> bool:
    """Whether a machine was written down here, and has not gone on from it."""
    return (folder / FILE).exists()


def drop(folder: Path) -> None:
    """Remove the memory, whole or not. What it was taken from goes on, or is gone. Idempotent."""
    for name in (FILE, _DRAFT, _ABOUT):
        with suppress(FileNotFoundError):
            (folder / name).unlink()


def give_up(folder: Path) -> None:
    """Remove the memory for good before its machine goes on: it must never be gone on from twice."""
    drop(folder)
    flush(folder)


def _settled(file: Path, fits: str) -> About:
    with file.open("rb") as opened:
        os.fsync(opened.fileno())
    size, crc = _measured(file)
    return About(size, crc, fits)


def _measured(file: Path) -> tuple[int, int]:
    size = crc = 0
    with file.open("rb", buffering=0) as opened:
        while block := opened.read(_BLOCK):
            size, crc = size + len(block), zlib.crc32(block, crc)
    return size, crc
