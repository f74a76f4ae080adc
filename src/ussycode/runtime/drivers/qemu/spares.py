"""Spares: copies of a template that have come up before anybody asks, so that `new` only has to say who they are."""
from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import structlog

from ussycode.base.clock import Clock
from ussycode.base.errors import Failure
from ussycode.runtime.driver import Spare, VmId, Want

LOOK_SECONDS = 0.25
"""Between two looks whether spares are missing, dead, or in the way."""
PEACE_SECONDS = 2.0
"""After one was taken, before the next is made: whoever took it goes first."""
CLAIM_SECONDS = 60.0
"""A spare that was claimed and not taken for so long is ended: its VM is gone, or became another machine."""
RETRY_SECONDS = 60.0
"""After a spare did not come up, until the next is tried."""
LEAST_FREE_MIB = 1024
"""Memory of the host that stays free for others; below that there are no spares."""
_MEMINFO = Path("/proc/meminfo")
_log = structlog.get_logger("ussycode.spares")


class Standing(Protocol):
    """A machine that may stand by."""

    @property
    def stands_by(self) -> bool:
        """It can be owned now."""
        ...


@dataclass(frozen=True)
class Stock:
    """What all spares of a node are; `most` of them at once, 0 for none. MiB, GiB."""

    image: str
    vcpus: int
    memory_mib: int
    disk_gib: int
    most: int


@dataclass
class Spares:
    """Keeps as many as there should be. `make` brings one up, or returns None when it cannot; `end` leaves no trace.

    `digest` is the build of an image now; `busy` says whether somebody's machine is starting.
    """

    stock: Stock
    clock: Clock
    make: Callable[[Stock], Awaitable[tuple[Spare, Standing, str] | None]]
    end: Callable[[VmId], Awaitable[None]]
    digest: Callable[[str], str | None]
    busy: Callable[[], bool]
    free_mib: Callable[[], int] = field(default_factory=lambda: free_mib)
    taken: int = 0
    """Spares that became VMs."""
    _ready: dict[Spare, tuple[Standing, str]] = field(default_factory=dict)
    _claimed: dict[Spare, float] = field(default_factory=dict)
    """Until when each is kept for the VM that claimed it."""
    _not_before: float = 0.0
    _task: asyncio.Task[None] | None = None

    def open(self) -> None:
        """Begin to make them."""
        if self.stock.most:
            self._task = asyncio.create_task(self._keep_up())

    async def close(self) -> None:
        """End them all."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self._task = None
        await asyncio.gather(*(self.end(one.vm) for one in [*self._ready, *self._claimed]), return_exceptions=True)
        self._ready.clear()
        self._claimed.clear()

    def claim(self, image: str, vcpus: int, memory_mib: int, disk_gib: int) -> Spare | None:
        """Keep a spare that fits for the VM that is about to be recorded with its id and number; None without one."""
        stock = self.stock
        if (image, vcpus, memory_mib) != (stock.image, stock.vcpus, stock.memory_mib) or disk_gib < stock.disk_gib:
            return None
        build = self.digest(image)
        found = next((one for one, (machine, of) in self._ready.items() if machine.stands_by and of == build), None)
        if found is not None:
            del self._ready[found]
            self._claimed[found] = self.clock.now() + CLAIM_SECONDS
            self._not_before = self.clock.now() + PEACE_SECONDS
        return found

    def give_back(self, spare: Spare) -> None:
        """The VM was not recorded after all; the spare is ended, since its id was seen by whoever asked."""
        if spare in self._claimed:
            self._claimed[spare] = 0.0

    def take(self, want: Want) -> bool:
        """Whether `want` has claimed the machine with its id: it is the VM's from now on."""
        claimed = self._claimed.pop(Spare(want.vm, want.number), None)
        self.taken += claimed is not None
        return claimed is not None

    @property
    def ready(self) -> list[Spare]:
        """Those that stand by, the oldest first."""
        return [*self._ready]

    async def _keep_up(self) -> None:
        """The outermost frame: what goes wrong with one spare must not be the end of all."""
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            try:
                await self._look()
            except Exception:
                _log.exception("spares are not looked after")
                self._not_before = self.clock.now() + RETRY_SECONDS

    async def _look(self) -> None:
        scarce = self.free_mib() < LEAST_FREE_MIB
        for one in [*self._useless(scarce)]:
            self._ready.pop(one, None)
            self._claimed.pop(one, None)
            await self.end(one.vm)
        lacking = len(self._ready) < self.stock.most and self.clock.now() >= self._not_before
        if lacking and not self.busy() and self.free_mib() >= LEAST_FREE_MIB + self.stock.memory_mib:
            await self._make()

    def _useless(self, scarce: bool) -> Iterator[Spare]:
        """Those that died, are of an image that was built anew, were never taken, or stand in the way."""
        build = self.digest(self.stock.image)
        yield from (one for one, (machine, of) in self._ready.items() if scarce or of != build or not machine.stands_by)
        yield from (one for one, until in self._claimed.items() if until <= self.clock.now())

    async def _make(self) -> None:
        try:
            made = await self.make(self.stock)
        except (Failure, OSError) as error:
            _log.warning("no spare could be made", error=str(error))
            self._not_before = self.clock.now() + RETRY_SECONDS
            return
        if made is not None:
            spare, machine, digest = made
            self._ready[spare] = machine, digest


def free_mib() -> int:
    """Memory of the host that could be had now, in MiB."""
    lines = dict(line.split(":", 1) for line in _MEMINFO.read_text().splitlines())
    return int(lines["MemAvailable"].split()[0]) >> 10
