"""What must be known of a VM after a crash of everything: one file per VM, replaced in one rename."""
from __future__ import annotations

import enum
import shutil
from collections.abc import Iterator
from pathlib import Path

import msgspec

from ussycode.base.unreadable import UNREADABLE
from ussycode.runtime.driver import Phase, Want
from ussycode.runtime.guest.identity import Service
from ussycode.runtime.publish import write_atomically

_FILE = "vm.json"


class Source(enum.StrEnum):
    """Where a starting machine's memory comes from."""

    BOOT = "boot"
    MEMORY = "memory"
    TEMPLATE = "template"
    KERNEL = "kernel"


class Kept(msgspec.Struct, frozen=True):
    """A snapshot: what a disk stood on then. `created` in Unix seconds, `gib` the size of the disk."""

    id: str
    created: float
    chain: tuple[str, ...]
    gib: int


class Saved(msgspec.Struct, frozen=True):
    """The last wish that was acted upon, what it was made from, and how far it came."""

    want: Want
    digest: str
    init: str
    login_user: str
    default_port: int
    phase: Phase
    service: Service = Service()
    """What the image runs; nothing for one with an init of its own."""
    boot: int = 0
    """The boot that `phase` is about; 0 when the platform, not the guest, ended the last one."""
    disk_turn: int = 1
    """Turn of the disk; kept apart from the wish, which may be ahead of it."""
    disk_gib: int = 0
    """Size the disk was made or grown to; 0 in a record that does not say, where it is the wish's."""
    detail: str = ""
    console: str = ""
    source: Source = Source.BOOT
    """What the present start goes on from. BOOT again the moment before a paused guest runs on, once a copied kernel
    has been told what to boot, and once a copy of a whole system has an identity of its own."""
    cold: bool = False
    """The last resume had no memory to go on from."""
    top: str = ""
    """Name of the disk that the VM writes; empty in a record from before disks had names."""
    chain: tuple[str, ...] = ()
    """Sealed layers below it, the nearest first; below the last is the image."""
    fresh: bool = False
    """Nothing was written to the top since it was made."""
    anew: bool = False
    """The guest was not told yet that the disk is this VM's: it may hold the machine id and keys of another."""
    pending: str = ""
    """Top-to-be of a freeze under way."""
    draft: str = ""
    """Top-to-be of a disk that is being made anew."""
    snapshots: tuple[Kept, ...] = ()
    template: str = ""
    """The template that the disk was made on, and that the first start may go on from."""
    spare: bool = False
    """A machine without an owner; it does not outlive the process of control that made it."""


def load(folder: Path) -> Saved | None:
    """The state in a VM's folder; None when there is none or it cannot be read."""
    try:
        return msgspec.json.decode((folder / _FILE).read_bytes(), type=Saved)
    except (OSError, *UNREADABLE):
        return None


def save(folder: Path, saved: Saved) -> None:
    """Write the state; readable by control alone, because it holds the boot's secret."""
    write_atomically(folder / _FILE, msgspec.json.encode(saved).decode(), 0o600)


def every(folder: Path) -> Iterator[Saved]:
    """The readable states below DATA/vms; one bad folder hides none of the others."""
    for place in sorted(folder.iterdir()):
        saved = load(place)
        if saved is not None and saved.want.vm == place.name:
            yield saved


def forget(folder: Path) -> None:
    """Remove a VM's folder with everything in it. Idempotent, also after a removal that was cut off."""
    if folder.exists():
        shutil.rmtree(folder)
