"""What must be known of a container after a crash of everything: one file in its folder, replaced in one rename."""
from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import msgspec

from ussycode.base.unreadable import UNREADABLE
from ussycode.runtime.driver import Phase, Want
from ussycode.runtime.guest.identity import Service
from ussycode.runtime.publish import write_atomically

_FILE = "container.json"


class Saved(msgspec.Struct, frozen=True):
    """The last wish that was acted upon, what it was made from, and how far it came."""

    want: Want
    folder: str
    """Folder of the image below DATA/images, with `digest` inside."""
    digest: str
    init: str
    login_user: str
    default_port: int
    phase: Phase
    service: Service = Service()
    """What the image runs; nothing for one with an init of its own."""
    boot: int = 0
    """The boot that `phase` is about; 0 when the platform, not the guest, ended the last one."""
    disk_turn: int = 0
    anew: bool = False
    """The guest was not told yet that the disk is its own: it may hold the machine id and keys of another."""
    detail: str = ""
    console: str = ""


def load(folder: Path) -> Saved | None:
    """The state in a VM's folder; None when it is no container's or cannot be read."""
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
