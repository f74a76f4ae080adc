"""What every driver must do, said once; fakes and real machines both run it."""
from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Protocol

from ussycode.runtime.driver import Driver, Origin, OriginKind, Phase, Power, Seen, Want

SECRET = "5e" * 32


class Adoptable(Driver, Protocol):
    """A driver as the composition root holds it."""

    async def open(self) -> None: ...

    async def close(self) -> None: ...


def want(vm: str = "vm_checkdriveraaaaa", number: int = 2, **changes: object) -> Want:
    base = Want(
        vm=vm, name="demo", number=number, power=Power.RUNNING, boot=1, image="debian-min", vcpus=1,
        memory_mib=256, disk_gib=5, env=(("GREETING", "hello there"),),
        authorized_keys=("ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIHVzc3ljb2Rl demo",), secret=SECRET,
    )
    return replace(base, **changes)  # type: ignore[arg-type]


async def look(driver: Driver, vm: str) -> Seen:
    """What the driver sees of one VM; ABSENT when it knows none."""
    found = [one for one in await driver.seen() if one.vm == vm]
    assert len(found) <= 1, "a VM is seen at most once"
    return found[0] if found else Seen(vm, Phase.ABSENT)


async def until(driver: Driver, vm: str, *phases: Phase, seconds: float = 90.0) -> Seen:
    """Wait for one of the phases."""
    async with asyncio.timeout(seconds):
        while (seen := await look(driver, vm)).phase not in phases:
            assert seen.phase is not Phase.FAILED, f"{seen.detail}\n{seen.console}"
            await asyncio.sleep(0.02)
    return seen


async def check_driver(make: Callable[[], Awaitable[Adoptable]]) -> None:
    """Run the whole life of a VM twice over. `make` gives an opened driver without VMs."""
    driver = await make()
    try:
        await _unknown_vms_are_no_error(driver)
        await _a_life(driver)
        await _the_same_name_again(driver)
        await _copies_and_snapshots(driver)
    finally:
        await driver.close()


async def _unknown_vms_are_no_error(driver: Driver) -> None:
    await driver.stop("vm_nobodyaaaaaaaaaa")
    await driver.destroy("vm_nobodyaaaaaaaaaa")
    assert list(await driver.seen()) == []


async def _a_life(driver: Driver) -> None:
    first = want()
    await driver.prepare(first)
    await driver.prepare(first)
    assert (await look(driver, first.vm)).phase is Phase.PREPARED
    await driver.start(first)
    await driver.start(first)
    running = await until(driver, first.vm, Phase.RUNNING)
    assert (running.boot, running.login_user) == (1, "ussy")
    assert running.address
    await driver.update(replace(first, name="renamed"))
    await driver.update(replace(first, name="renamed"))
    await driver.stop(first.vm)
    await driver.stop(first.vm)
    stopped = await look(driver, first.vm)
    assert (stopped.phase, stopped.boot, stopped.address) == (Phase.STOPPED, 0, "")
    await driver.start(replace(first, boot=2))
    assert (await until(driver, first.vm, Phase.RUNNING)).boot == 2
    await driver.destroy(first.vm)
    await driver.destroy(first.vm)
    assert (await look(driver, first.vm)).phase is Phase.ABSENT


async def _the_same_name_again(driver: Driver) -> None:
    again = want(boot=7)
    await driver.prepare(again)
    assert (await look(driver, again.vm)).boot == 0, "nothing is left of the VM that was removed"
    await driver.stop(again.vm)
    assert (await look(driver, again.vm)).phase is Phase.STOPPED
    await driver.destroy(again.vm)


async def _copies_and_snapshots(driver: Driver) -> None:
    first = want(snapshots=("snap_one",))
    await driver.prepare(first)
    await driver.keep_snapshots(first)
    await driver.keep_snapshots(first)
    assert [one.id for one in (await look(driver, first.vm)).snapshots] == ["snap_one"]
    copy = want("vm_checkcopyaaaaaaa", 3, origin=Origin(OriginKind.VM, first.vm))
    await driver.prepare(copy)
    await driver.prepare(copy)
    seen = await look(driver, copy.vm)
    assert (seen.phase, seen.snapshots) == (Phase.PREPARED, ()), "snapshots are not copied"
    await driver.grow(replace(copy, disk_gib=6))
    assert (await look(driver, copy.vm)).disk_gib == 6
    back = replace(first, disk_turn=2, origin=Origin(OriginKind.SNAPSHOT, first.vm, "snap_one"))
    await driver.prepare(back)
    assert (await look(driver, first.vm)).disk_turn == 2
    await driver.keep_snapshots(replace(back, snapshots=(), dropped=("snap_one", "snap_never")))
    assert (await look(driver, first.vm)).snapshots == ()
    for one in (first, copy):
        await driver.destroy(one.vm)
