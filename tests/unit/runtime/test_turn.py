"""Who boots takes a place, and whose boot stalls does not keep it."""
from __future__ import annotations

import asyncio

from ussycode.runtime.drivers.qemu.turn import Turn


async def test_a_boot_that_stalls_gives_its_place_to_the_next() -> None:
    places = asyncio.Semaphore(1)
    async with Turn(places, waits=True, seconds=0.01) as stalled:
        async with asyncio.timeout(5), Turn(places, waits=True, seconds=3600) as second:
            stalled.over()
            assert places.locked(), "it has no place any more to give back"
            second.over()
        assert not places.locked()
    assert not places.locked() and places._value == 1


async def test_who_was_running_already_needs_none() -> None:
    places = asyncio.Semaphore(0)
    async with asyncio.timeout(5), Turn(places, waits=False):
        assert places.locked()
    assert places.locked()
