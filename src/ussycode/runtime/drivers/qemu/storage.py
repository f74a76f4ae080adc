"""Disks of QEMU's machines: a top that one VM writes, above sealed layers that clones and snapshots share."""
from __future__ import annotations

import asyncio
import secrets
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Protocol

import structlog
from msgspec.structs import replace

from ussycode.base.errors import ErrorCode, Kind
from ussycode.runtime import disks, reflinks
from ussycode.runtime.driver import Snapshot
from ussycode.runtime.drivers.qemu.saved import Kept, Saved
from ussycode.runtime.instance import Instance

MAX_CHAIN = 48
"""Layers below a disk. QEMU opens each of them, and a block that was never written is looked for in all."""
DRAFT = ".merged"
"""End of the name of a layer that is being written from others."""
_log = structlog.get_logger("ussycode.storage")

TOO_DEEP = ErrorCode(
    "disk.too_deep", Kind.CONFLICT, "the disk of this VM was copied or kept {limit} times since it was made",
    hint="make a new VM and copy the files over",
)


class Owners(Protocol):
    """Who may read and write a disk; root's part of it. Both raise a declared Failure."""

    async def disk_own(self, vm: str, number: int, disk: str) -> None:
        """Give a disk to the VM's uid."""
        ...

    async def disk_seal(self, vm: str, number: int, disk: str) -> None:
        """Take a disk from the VM for ever."""
        ...


class Live(Protocol):
    """The running machine that holds a disk open."""

    async def switch(self, top: Path) -> None:
        """Write to `top` from now on; raises DISK_FAILED."""
        ...

    async def stands_on(self) -> str:
        """The file that is written to now; raises DISK_FAILED."""
        ...

    def held(self) -> AbstractAsyncContextManager[None]:
        """While the block runs it stands still, and all it wrote is in its file. Raises a declared Failure."""
        ...


@dataclass(frozen=True)
class Ground:
    """What a disk can be made on: layers from the top down (none: the image alone) and its size in GiB."""

    chain: tuple[str, ...]
    gib: int


@dataclass
class Layers:
    """The files in DATA/layers. Control alone adds and removes them, so what it knows is what is there."""

    instance: Instance
    helper: Owners
    _pins: Counter[str] = field(default_factory=Counter)
    _sizes: dict[str, int] = field(default_factory=dict)
    making: set[str] = field(default_factory=set)
    """Disks that qemu-img is asked for now; a draft of any other was left by a control that died."""

    def path(self, name: str) -> Path:
        """Where a disk or layer lies."""
        return self.instance.layers / name

    @contextmanager
    def pinned(self, chain: Sequence[str]) -> Iterator[None]:
        """Keep layers that no record names yet."""
        self._pins.update(chain)
        try:
            yield
        finally:
            self._pins.subtract(chain)

    async def sweep(self, records: Iterable[Saved]) -> int:
        """Remove what neither `records` nor a pin names; how many files. `records` must be all there are."""
        there = [place.name for place in self.instance.layers.iterdir()]
        named = {name for record in records for name in names(record)} | self.pins
        doomed = [name for name in there if name.partition(".")[0] not in named or self._abandoned(name)]
        for name in doomed:
            self._sizes.pop(name, None)
            await asyncio.to_thread(self.path(name).unlink, missing_ok=True)
        if doomed:
            _log.info("layers removed", count=len(doomed))
        return len(doomed)

    def _abandoned(self, name: str) -> bool:
        disk, draft, _ = name.partition(".new")
        return bool(draft) and disk not in self.making

    @property
    def pins(self) -> frozenset[str]:
        """Layers that somebody works with."""
        return frozenset(name for name, count in self._pins.items() if count)

    def forget_drafts(self) -> None:
        """Remove layers that were being written when control died. Only while nobody writes one."""
        for place in self.instance.layers.glob(f"*{DRAFT}"):
            place.unlink(missing_ok=True)

    def changed(self, name: str) -> None:
        """A layer has another size now."""
        self._sizes.pop(name, None)

    @cached_property
    def reflinks(self) -> bool:
        """Whether a disk can be kept as a file of its own that shares its bytes."""
        return reflinks.possible(self.instance.layers)

    def size(self, name: str) -> int:
        """Bytes on the host that a sealed layer takes, shared ones not counted; 0 for one that is gone."""
        if self.reflinks:
            return reflinks.alone(self.path(name))
        if name not in self._sizes:
            self._sizes[name] = allocated(self.path(name))
        return self._sizes[name]

    def alone(self, chain: Sequence[str], users: Counter[str]) -> int:
        """Bytes of those layers of `chain` that nobody else uses."""
        return sum(self.size(name) for name in chain if users[name] == 1)


@dataclass
class Disk:
    """The disk of one VM. Every verb may be cut off anywhere and is then completed or undone by `settle`."""

    layers: Layers
    record: Callable[[], Saved]
    keep: Callable[[Saved], None]

    @property
    def path(self) -> Path:
        """The file that the VM writes."""
        return self.layers.path(self.record().top)

    async def make(self, base: Path) -> None:
        """Make the top of a new VM, on its layers or on the image's disk `base`. Keeps one that exists.

        Raises NO_ROOM, DISK_FAILED or the helper's refusal.
        """
        saved = self.record()
        await self._overlay(saved.top, saved.chain, base, saved.disk_gib or saved.want.disk_gib)

    async def remake(self, ground: Ground, base: Path, turn: int) -> None:
        """Put a disk made from `ground` in the place of the present one, as turn `turn`. Only while nothing runs."""
        await self.settle(None)
        draft, size = new_name(), max(ground.gib, self.record().want.disk_gib)
        self.keep(replace(self.record(), draft=draft))
        await self._overlay(draft, ground.chain, base, size)
        self.keep(replace(
            self.record(), top=draft, draft="", chain=ground.chain, fresh=True, disk_turn=turn, disk_gib=size,
            template="",
        ))

    async def ready(self) -> None:
        """Before QEMU starts: nothing half done, the top the VM's own, and counted as written to."""
        await self.settle(None)
        await self._own(self.record().top)
        self.keep(replace(self.record(), fresh=False))

    async def freeze(self, live: Live | None, gib: int = 0) -> Ground:
        """Make all that was written so far a sealed layer; the VM goes on above it, `gib` large if that is more.

        Where files share bytes the layer is a copy of the top, and the VM goes on writing the top itself.

        Raises NO_ROOM, TOO_DEEP, DISK_FAILED or the helper's refusal; the disk is then as it was.
        """
        await self.settle(live)
        saved = self.record()
        now = saved.disk_gib or saved.want.disk_gib
        if saved.fresh and gib <= now:
            return Ground(saved.chain, now)
        if len(saved.chain) >= MAX_CHAIN:
            raise TOO_DEEP(limit=MAX_CHAIN)
        if self.layers.reflinks and gib <= now:
            return await self._copied(live, now)
        pending, size = new_name(), max(gib, now)
        self.keep(replace(saved, pending=pending))
        await self._overlay(pending, (saved.top, *saved.chain), None, size)
        if live is not None:
            await live.switch(self.layers.path(pending))
        await self._go_on(size, fresh=live is None)
        return Ground(self.record().chain, size)

    async def _copied(self, live: Live | None, size: int) -> Ground:
        """The same by a copy that shares bytes: no chain grows. It is the caller's to write down who needs it."""
        saved, copy = self.record(), new_name()
        disks.require_room(self.layers.instance.layers)
        self.keep(replace(saved, draft=copy))
        # Ours to read for a moment; a machine that runs holds it open already and goes on writing.
        await self.layers.helper.disk_seal(saved.want.vm, saved.want.number, saved.top)
        try:
            async with live.held() if live is not None else nullcontext():
                await asyncio.to_thread(reflinks.clone, self.path, self.layers.path(copy))
        except OSError as error:
            raise disks.DISK_FAILED(why="it could not be copied").because(error) from error
        finally:
            await self._own(saved.top)
        self.layers.instance.give_to_control(self.layers.path(copy))
        self.keep(replace(self.record(), draft=""))
        return Ground((copy, *saved.chain), size)

    async def settle(self, live: Live | None) -> None:
        """Complete a freeze that was cut off, or undo it when the running machine had not taken part yet."""
        self._name_old_disk(live)
        saved = self.record()
        if not saved.pending and not saved.draft:
            return
        if saved.draft and self.path.exists():
            await self._own(saved.top)  # a copy of it that was cut off may have left it with us
        pending = self.layers.path(saved.pending)
        begun = bool(saved.pending) and pending.exists()
        if begun and live is not None:
            begun = saved.pending in await live.stands_on()
        if begun:
            await self._own(saved.pending)
            await self._go_on(saved.disk_gib or saved.want.disk_gib, fresh=False)
        self.keep(replace(self.record(), pending="", draft=""))

    async def _go_on(self, size: int, *, fresh: bool) -> None:
        """The pending file is the top from now on, what was the top a layer."""
        want = self.record().want
        await self.layers.helper.disk_seal(want.vm, want.number, self.record().top)
        saved = self.record()
        self.keep(replace(
            saved, top=saved.pending, chain=(saved.top, *saved.chain), pending="", fresh=fresh, disk_gib=size,
        ))

    async def _overlay(self, name: str, chain: Sequence[str], base: Path | None, gib: int) -> None:
        below, place = self.layers.path(chain[0]) if chain else base, self.layers.path(name)
        if below is None or not below.exists():
            raise disks.ORIGIN_GONE(what="a layer of the disk" if chain else "the image")
        if not place.exists():
            self.layers.making.add(name)
            try:
                disks.make_overlay(below, place, gib, "qcow2" if chain else "raw")
            finally:
                self.layers.making.discard(name)
            self.layers.instance.give_to_control(place)
        await self._own(name)

    async def _own(self, name: str) -> None:
        want = self.record().want
        await self.layers.helper.disk_own(want.vm, want.number, name)

    def _name_old_disk(self, live: Live | None) -> None:
        """A disk from before disks had names moves to its place, unless a machine holds it open under the old one."""
        saved = self.record()
        if not saved.top and live is not None:
            raise disks.DISK_FAILED(why="it was made by an older version; restart the VM once")
        if not saved.top:
            self.keep(replace(saved, top=new_name()))
        old = self.layers.instance.vm_data(saved.want.vm) / "disk.qcow2"
        if old.exists() and not self.path.exists():
            old.rename(self.path)


def new_name() -> str:
    """A name that nobody guesses: knowing it is the permission to read a sealed layer."""
    return secrets.token_hex(16)


def names(saved: Saved) -> Iterator[str]:
    """Every file that a record needs."""
    yield from filter(None, (saved.top, saved.pending, saved.draft))
    yield from saved.chain
    for kept in saved.snapshots:
        yield from kept.chain


def users(records: Iterable[Saved]) -> Counter[str]:
    """How many disks and snapshots stand on each layer."""
    chains = (chain for saved in records for chain in (saved.chain, *(kept.chain for kept in saved.snapshots)))
    return Counter(name for chain in chains for name in chain)


def shown(kept: Sequence[Kept], layers: Layers, used: Counter[str]) -> tuple[Snapshot, ...]:
    """Snapshots as the node reports them."""
    return tuple(Snapshot(one.id, one.created, layers.alone(one.chain, used)) for one in kept)


def allocated(path: Path) -> int:
    """Bytes that a file takes on the host; 0 when it is gone."""
    try:
        return path.stat().st_blocks * 512
    except FileNotFoundError:
        return 0
