"""Machines that stand by: the rules, without machines."""
from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

import pytest

from tests.contract.check_driver import want
from ussycode.base.clock import ManualClock
from ussycode.runtime.driver import Spare
from ussycode.runtime.drivers.qemu.driver import NO_SPARE
from ussycode.runtime.drivers.qemu.spares import (
    CLAIM_SECONDS,
    LEAST_FREE_MIB,
    PEACE_SECONDS,
    RETRY_SECONDS,
    Spares,
    Stock,
    free_mib,
)

STOCK = Stock("usual", 1, 512, 5, 2)
FITS = ("usual", 1, 512, 5)


@dataclass
class Standing:
    """A machine that can die."""

    stands_by: bool = True


@dataclass
class Host:
    """What the spares ask of everything else."""

    clock: ManualClock = field(default_factory=ManualClock)
    made: dict[Spare, Standing] = field(default_factory=dict)
    ended: list[str] = field(default_factory=list)
    build: str = "one"
    starting: bool = False
    free: int = 1 << 20
    breaks: bool = False

    async def make(self, stock: Stock) -> tuple[Spare, Standing, str] | None:
        """The next one."""
        if self.breaks:
            raise NO_SPARE()
        spare = Spare(f"vm_{len(self.made)}", 16000 - len(self.made))
        self.made[spare] = Standing()
        return spare, self.made[spare], self.build

    async def end(self, vm: str) -> None:
        """Remember it."""
        self.ended.append(vm)

    def spares(self) -> Spares:
        """Spares of this host, with nobody who looks after them."""
        return Spares(
            STOCK, self.clock, self.make, self.end, lambda image: self.build, lambda: self.starting, lambda: self.free,
        )


async def looked(spares: Spares, times: int = 1) -> None:
    """So many looks after them."""
    for _ in range(times):
        await spares._look()


async def test_there_are_as_many_as_there_should_be_and_no_more() -> None:
    host = Host()
    spares = host.spares()
    await looked(spares, 5)
    assert spares.ready == list(host.made) and len(host.made) == 2 and host.ended == []


@pytest.mark.parametrize(
    "asked", [("other", 1, 512, 5), ("usual", 2, 512, 5), ("usual", 1, 1024, 5), ("usual", 1, 512, 4)],
)
async def test_only_what_is_like_it_can_have_one(asked: tuple[str, int, int, int]) -> None:
    spares = Host().spares()
    await looked(spares)
    assert spares.claim(*asked) is None
    assert spares.claim("usual", 1, 512, 9) is not None, "a disk can grow"


async def test_one_is_claimed_once_and_taken_by_the_vm_with_its_id_and_number() -> None:
    host = Host()
    spares = host.spares()
    await looked(spares)
    (one,) = spares.ready
    assert spares.claim(*FITS) == one and spares.claim(*FITS) is None
    assert not spares.take(want(vm="vm_other", number=one.number)) and not spares.take(want(vm=one.vm, number=3))
    assert spares.take(want(vm=one.vm, number=one.number)) and not spares.take(want(vm=one.vm, number=one.number))
    host.clock.advance(CLAIM_SECONDS + 1)
    await looked(spares)
    assert host.ended == [] and spares.taken == 1, "it is somebody's"


async def test_whoever_took_one_goes_first() -> None:
    host = Host()
    spares = host.spares()
    await looked(spares, 2)
    spares.claim(*FITS)
    await looked(spares)
    assert len(host.made) == 2
    host.clock.advance(PEACE_SECONDS)
    host.starting = True
    await looked(spares)
    assert len(host.made) == 2, "somebody's machine is starting"
    host.starting = False
    await looked(spares)
    assert len(host.made) == 3


async def test_what_was_claimed_for_nothing_is_ended() -> None:
    host = Host()
    spares = host.spares()
    await looked(spares, 2)
    back, late = spares.claim(*FITS), spares.claim(*FITS)
    assert back is not None and late is not None
    spares.give_back(back)
    await looked(spares)
    assert host.ended == [back.vm]
    host.clock.advance(CLAIM_SECONDS)
    await looked(spares)
    assert host.ended == [back.vm, late.vm] and not spares.take(want(vm=late.vm, number=late.number))


async def test_a_dead_one_and_one_of_an_older_image_are_neither_given_nor_kept() -> None:
    host = Host()
    spares = host.spares()
    await looked(spares, 2)
    first, second = spares.ready
    host.made[first].stands_by = False
    assert spares.claim(*FITS) == second
    host.clock.advance(PEACE_SECONDS)
    await looked(spares, 2)
    assert host.ended == [first.vm]
    host.build = "two"
    assert spares.claim(*FITS) is None, "the image was built anew"
    await looked(spares, 3)
    assert all(host.made[one].stands_by for one in spares.ready) and spares.claim(*FITS) is not None


async def test_a_host_without_memory_has_none() -> None:
    host = Host()
    spares = host.spares()
    await looked(spares, 2)
    host.free = LEAST_FREE_MIB - 1
    await looked(spares)
    assert spares.ready == [] and host.ended == [one.vm for one in host.made]
    host.free = LEAST_FREE_MIB + STOCK.memory_mib - 1
    await looked(spares)
    assert spares.ready == [], "it would be ended again at once"
    assert free_mib() > 0


async def test_after_one_that_does_not_come_up_there_is_a_while_without() -> None:
    host = Host(breaks=True)
    spares = host.spares()
    await looked(spares)
    host.breaks = False
    await looked(spares)
    assert spares.ready == []
    host.clock.advance(RETRY_SECONDS)
    await looked(spares)
    assert len(spares.ready) == 1


async def test_all_end_when_it_is_closed() -> None:
    host = Host()
    spares = host.spares()
    spares.open()
    async with asyncio.timeout(10):
        while len(spares.ready) < 2:
            await asyncio.sleep(0.02)
    claimed = spares.claim(*FITS)
    await spares.close()
    assert claimed is not None and sorted(host.ended) == sorted(one.vm for one in host.made) and spares.ready == []
