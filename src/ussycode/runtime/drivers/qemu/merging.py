"""Layers that only ever appear together become one, so that chains stay short. Crash-safe at every step.

The uppermost of them keeps its name and gets the content of all: whatever stands on it, running machines included,
needs no change. Until the records say so too, the layers below it are merely read for nothing.
"""
from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from msgspec.structs import replace

from ussycode.runtime import disks
from ussycode.runtime.drivers.qemu.saved import Saved
from ussycode.runtime.drivers.qemu.storage import DRAFT, Layers, users
from ussycode.runtime.qcow2.layout import BAD_DISK
from ussycode.runtime.qcow2.reader import open_layer, runs
from ussycode.runtime.qcow2.writer import draw

MERGE_AT = 8
"""Layers from which a chain is shortened; a shorter one costs a guest less than copying its layers costs the host."""


@dataclass(frozen=True)
class Merge:
    """Layers from the top down that become one under the name of the first; `below` is the next, empty for none."""

    layers: tuple[str, ...]
    below: str

    @property
    def gone(self) -> frozenset[str]:
        """What nobody needs afterwards."""
        return frozenset(self.layers[1:])


def following(records: Sequence[Saved], kept: Collection[str], at: int = MERGE_AT) -> Merge | None:
    """The merge that shortens a chain of more than `at` layers most; layers of `kept` are left as they are."""
    used = users(records)
    found = (merge for chain in _chains(records) if len(chain) > at for merge in _stretches(chain, used, kept))
    return max(found, key=lambda merge: len(merge.layers), default=None)


def _chains(records: Iterable[Saved]) -> Iterator[tuple[str, ...]]:
    for saved in records:
        yield saved.chain
        yield from (one.chain for one in saved.snapshots)


def _stretches(chain: Sequence[str], used: dict[str, int], kept: Collection[str]) -> Iterator[Merge]:
    """A layer that is used as often as the one on it is used by the same: every use of it is through that one."""
    first = 0
    for place in range(1, len(chain) + 1):
        goes_on = place < len(chain) and used[chain[place]] == used[chain[first]]
        if goes_on and not {chain[place], chain[first]} & set(kept):
            continue
        if place - first > 1:
            yield Merge(tuple(chain[first:place]), chain[place] if place < len(chain) else "")
        first = place


def write(layers: Layers, merge: Merge, image: Path) -> Path:
    """Write the merged layer beside the others; nothing refers to it yet. Raises NO_ROOM, BAD_DISK or OSError.

    `image` is what is below the lowest layer of all, if anything is.
    """
    paths = [layers.path(name) for name in merge.layers]
    disks.require_room(layers.instance.layers, sum(path.stat().st_blocks * 512 for path in paths) >> 20)
    draft = layers.path(merge.layers[0] + DRAFT)
    with ExitStack() as held:
        sources = [open_layer(path) for path in paths]
        for source in sources:
            held.callback(source.close)
        size, backing, form = sources[0].header.size, *_below(layers, merge, sources[-1].header.backing, image)
        # A larger disk on a smaller one reads zeros beyond its end, so a smaller layer below hides nothing.
        drawn = draw(list(runs(sources, size)), size, backing, form, sources[-1].header.note)
        with draft.open("wb") as file:
            drawn.write(file.fileno())
    draft.chmod(0o444)
    layers.instance.give_to_control(draft)
    return draft


def _below(layers: Layers, merge: Merge, said: str, image: Path) -> tuple[str, str]:
    """File and format below; what the lowest layer says of it is believed only where it can be no other."""
    if merge.below:
        return str(layers.path(merge.below)), "qcow2"
    if said not in ("", str(image)):
        raise BAD_DISK(why="it stands on something else than its image")
    return said, "raw" if said else ""


def publish(layers: Layers, merge: Merge, draft: Path) -> None:
    """Let the merged layer take the place of its uppermost part. Raises OSError."""
    draft.replace(layers.path(merge.layers[0]))
    folder = os.open(layers.instance.layers, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def without(saved: Saved, gone: frozenset[str]) -> Saved:
    """A record that no longer names merged layers."""
    kept = tuple(replace(one, chain=_left(one.chain, gone)) for one in saved.snapshots)
    return replace(saved, chain=_left(saved.chain, gone), snapshots=kept)


def _left(chain: Sequence[str], gone: frozenset[str]) -> tuple[str, ...]:
    return tuple(name for name in chain if name not in gone)


def agreed(records: Sequence[Saved]) -> list[Saved]:
    """The records after a merge of which some tell and others do not yet: what is below a layer is the same for all."""
    shortest: dict[str, tuple[str, ...]] = {}
    for chain in _chains(records):
        for place, name in enumerate(chain):
            if name not in shortest or len(chain) - place - 1 < len(shortest[name]):
                shortest[name] = chain[place + 1:]
    return [
        replace(saved, chain=_followed(saved.chain, shortest), snapshots=tuple(
            replace(one, chain=_followed(one.chain, shortest)) for one in saved.snapshots
        )) for saved in records
    ]


def _followed(chain: tuple[str, ...], shortest: dict[str, tuple[str, ...]]) -> tuple[str, ...]:
    made = list(chain[:1])
    while made and shortest[made[-1]]:
        made.append(shortest[made[-1]][0])
    return tuple(made)
