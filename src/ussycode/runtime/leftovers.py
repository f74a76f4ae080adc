"""What VMs that are not there left on the host: found and told with the command that removes it, never removed."""
from __future__ import annotations

from collections.abc import Collection, Iterator
from pathlib import Path

from ussycode.runtime.instance import (
    CONTAINER_UID_FIRST,
    CONTAINER_UIDS_PER_SLOT,
    LAST_TEMPLATE,
    UIDS_PER_SLOT,
    Instance,
)
from ussycode.runtime.net import taps, wall
from ussycode.runtime.privileged import processes
from ussycode.runtime.publish import SCRATCH

MOST_TOLD = 20
"""Sentences of one kind; the rest is counted."""


def numbers(instance: Instance) -> set[int]:
    """Numbers of the VMs whose process runs."""
    records = (processes.read(folder) for folder in _folders(instance.run / "vm"))
    return {one.number for one in records if one is not None and processes.alive(one)}


def of_host(instance: Instance, alive: Collection[int]) -> tuple[str, ...]:
    """Interfaces, rules and processes of VMs other than those with the numbers `alive`. Root only."""
    expected = {instance.tap(number) for number in alive}
    return (
        *_told(f"the interface {name} belongs to no running VM: ip link del dev {name}"
               for name in taps.leftover(instance) if name not in expected),
        *_told(f"the nftables table netdev {wall.name(instance, number)} belongs to no running VM: "
               f"nft delete table netdev {wall.name(instance, number)}"
               for number in taps.walls(instance) if number not in alive),
        *_told(f"the process {pid} runs as VM number {number}, and no such VM runs: kill {pid}"
               for pid, number in _processes(instance) if number not in alive),
    )


def of_data(instance: Instance, known: Collection[str], needed: Collection[str]) -> tuple[str, ...]:
    """Folders of VMs that are not in `known`, disks that are not among `needed`, and builds that were cut off.

    Both are names below DATA/vms and DATA/layers.
    """
    folders = (*_folders(instance.data / "vms"), *_folders(instance.data / "containers" / "vms"))
    return (
        *_told(f"{place} belongs to no VM of the database: look into it, then rm -r {place}"
               for place in folders if place.name not in known),
        *_told(f"{place} is a disk that no VM and no snapshot stands on: the next start removes it"
               for place in _entries(instance.layers) if place.name.partition(".")[0] not in needed),
        *_told(f"{place} was left by a build that was cut off: rm -r {place}"
               for place in _entries(instance.data / "images") if place.name.startswith(SCRATCH)),
    )


def _processes(instance: Instance) -> Iterator[tuple[int, int]]:
    """Pid and VM number of every process that runs under a VM's uid."""
    for place in Path("/proc").glob("[0-9]*"):
        try:
            number = _number(instance, place.stat().st_uid)
        except FileNotFoundError:
            continue
        if number and processes.start_time(int(place.name)) is not None:
            yield int(place.name), number


def _number(instance: Instance, uid: int) -> int:
    """The VM a uid belongs to; 0 for none of this instance's."""
    number = uid - instance.uid_base
    if 1 < number <= LAST_TEMPLATE:
        return number
    boxed = uid - CONTAINER_UID_FIRST - instance.slot * CONTAINER_UIDS_PER_SLOT
    return boxed // UIDS_PER_SLOT if 0 <= boxed < CONTAINER_UIDS_PER_SLOT else 0


def _folders(parent: Path) -> list[Path]:
    return [place for place in _entries(parent) if place.is_dir()]


def _entries(parent: Path) -> list[Path]:
    return sorted(parent.iterdir()) if parent.is_dir() else []


def _told(sentences: Iterator[str]) -> Iterator[str]:
    for count, sentence in enumerate(sentences):
        if count == MOST_TOLD:
            yield f"and {1 + sum(1 for _ in sentences)} more of this kind"
            return
        yield sentence
