"""Write an initrd: a `newc` cpio archive, the same bytes for the same contents."""
from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

MODULE_ORDER = (
    "virtio_ring", "virtio", "virtio_mmio", "virtio_blk", "failover", "net_failover", "virtio_net",
    "virtio_console", "virtio-rng",
)
"""Kernel modules the guest program loads, in this order, when they are present."""
FOLDERS = ("dev", "mod", "proc", "root", "sys")
CONSOLE = (5, 1)
"""Device number of /dev/console; without it PID 1 starts with no standard output."""


@dataclass(frozen=True)
class Entry:
    """One name in the archive."""

    name: str
    mode: int
    data: bytes = b""
    device: tuple[int, int] = (0, 0)


def make_initrd(init: Path, modules: Mapping[str, bytes], out: Path) -> Path:
    """Write an initrd with `init` as /init and each module as /mod/NAME.ko; replaces `out` at once.

    `modules` maps a name without `.ko` to the uncompressed object. Returns `out`.
    """
    entries = [Entry(name, stat.S_IFDIR | 0o755) for name in FOLDERS]
    entries.append(Entry("dev/console", stat.S_IFCHR | 0o600, device=CONSOLE))
    entries.append(Entry("init", stat.S_IFREG | 0o755, init.read_bytes()))
    entries += [Entry(f"mod/{name}.ko", stat.S_IFREG | 0o644, modules[name]) for name in sorted(modules)]
    part = out.with_name(f"{out.name}.{os.getpid()}.part")
    part.write_bytes(cpio(entries))
    part.replace(out)
    return out


def cpio(entries: list[Entry]) -> bytes:
    """A newc archive: numbered inodes, owner root, no times."""
    records = [_record(number, entry) for number, entry in enumerate(entries, 1)]
    return b"".join((*records, _record(0, Entry("TRAILER!!!", 0))))


def _record(inode: int, entry: Entry) -> bytes:
    name = entry.name.encode() + b"\0"
    links = 2 if stat.S_ISDIR(entry.mode) else 1
    fields = (inode, entry.mode, 0, 0, links, 0, len(entry.data), 0, 0, *entry.device, len(name), 0)
    head = b"070701" + b"".join(b"%08x" % number for number in fields)
    return _padded(head + name) + _padded(entry.data)


def _padded(data: bytes) -> bytes:
    return data + b"\0" * (-len(data) % 4)
