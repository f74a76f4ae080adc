"""The reconciler over fakes: what reaches the control plane, and what one bad VM may not do."""
from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from ussycode.access.facts import Role
from ussycode.agent.loop import AT_ONCE, FIRST_BACKOFF, Reconciler
from ussycode.base.clock import ManualClock
from ussycode.runtime.driver import Phase, Power, Seen, Want
from ussycode.runtime.drivers.fake import DiskFullDriver, FakeDriver, NeverDriver, SlowDriver, StuckDriver
from ussycode.vms.policy import LIMITS

A = Want(
    vm="vm_aaaaaaaaaaaaaaaa", name="demo", number=2, power=Power.RUNNING, boot=1, image="debian-min", vcpus=1,
    memory_mib=512, disk_gib=5, env=(), authorized_keys=("ssh-ed25519 AAAA a",), secret="ab" * 32,
)
B = replace(A, vm="vm_bbbbbbbbbbbbbbbb", name="other", number=3)


@dataclass
class Control:
    """The control plane: wishes by VM, and everything that was reported, newest last."""

    driver: FakeDriver
    wants: dict[str, Want]
    reports: list[Sequence[Seen]] = field(default_factory=list)
    clock: ManualClock = field(default_factory=ManualClock)

    def __post_init__(self) -> None:
        self.loop = Reconciler(self.driver, self.fetch, self.report, self.clock)

    async def fetch(self) -> Sequence[Want]:
        return list(self.wants.values())

    async def report(self, seen: Sequence[Seen]) -> None:
        self.reports.append(seen)

    async def rounds(self, count: int) -> None:
        for _ in range(count):
            await self.loop.look()
            await self.loop.settled()

    def said(self, vm: str) -> Seen:
        return next(one for one in self.reports[-1] if one.vm == vm)


def control(driver: FakeDriver, *wants: Want) -> Control:
    return Control(driver, {want.vm: want for want in wants})


async def test_a_wish_becomes_a_running_vm() -> None:
    world = control(FakeDriver(), A)
    await world.rounds(2)
    assert world.said(A.vm).phase is Phase.RUNNING


async def test_removal_is_reported_so_that_the_row_can_go() -> None:
    world = control(FakeDriver(), A)
    await world.rounds(2)
    world.wants[A.vm] = replace(A, power=Power.ABSENT)
    await world.rounds(2)
    assert world.said(A.vm).phase is Phase.ABSENT
    assert world.driver.vms == {}


async def test_removal_of_what_was_never_made_is_reported_too() -> None:
    world = control(FakeDriver(), replace(A, power=Power.ABSENT))
    await world.rounds(1)
    assert world.said(A.vm).phase is Phase.ABSENT


async def test_a_vm_without_a_wish_is_left_alone() -> None:
    world = control(FakeDriver(), A)
    await world.rounds(2)
    world.wants.clear()
    await world.rounds(2)
    assert world.said(A.vm).phase is Phase.RUNNING


async def test_a_failed_preparation_is_told_in_one_sentence_and_tried_again_later() -> None:
    driver = DiskFullDriver()
    world = control(driver, A)
    await world.rounds(2)
    assert world.said(A.vm).phase is Phase.FAILED
    assert "disk is full" in world.said(A.vm).detail
    driver.vms[A.vm] = Seen(A.vm, Phase.PREPARED)  # room was made
    await world.rounds(1)
    assert driver.vms[A.vm].phase is Phase.PREPARED, "not before the backoff is over"
    world.clock.advance(FIRST_BACKOFF)
    await world.rounds(2)
    assert world.said(A.vm).phase is Phase.RUNNING


async def test_a_vm_that_never_answers_is_not_restarted_for_ever() -> None:
    world = control(NeverDriver(), A)
    await world.rounds(3)
    assert "did not answer" in world.said(A.vm).detail
    world.wants[A.vm] = replace(A, boot=2)
    await world.rounds(2)
    assert world.said(A.vm).boot == 2


async def test_all_the_stuck_vms_of_an_account_block_no_other() -> None:
    most = max(limits.vms for role, limits in LIMITS.items() if limits.vms is not None and role is not Role.ADMIN)
    assert most < AT_ONCE
    stuck = [replace(A, vm=f"vm_stuck{number:011}", number=10 + number) for number in range(most)]
    driver = StuckDriver(vms={B.vm: Seen(B.vm, Phase.RUNNING, boot=1)})
    world = control(driver, *stuck, replace(B, power=Power.STOPPED))
    await world.loop.look()
    await asyncio.wait_for(_until(lambda: driver.vms[B.vm].phase is Phase.STOPPED), 5)
    await _end(world.loop)


async def test_a_change_in_the_driver_is_seen_without_waiting_for_the_timer() -> None:
    driver = SlowDriver()
    world = control(driver, A)
    world.loop.interval = 3600.0
    driver.on_change(world.loop.nudge)
    running = asyncio.create_task(world.loop.run())
    world.loop.nudge()
    await asyncio.wait_for(_until(lambda: A.vm in driver.waiting), 5)
    driver.let_boot(A.vm)
    await asyncio.wait_for(_until(lambda: world.said(A.vm).phase is Phase.RUNNING), 5)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


async def test_new_keys_reach_a_running_guest() -> None:
    world = control(FakeDriver(), A)
    await world.rounds(2)
    world.wants[A.vm] = replace(A, authorized_keys=("ssh-ed25519 BBBB b",))
    await world.rounds(1)
    assert world.driver.told[A.vm].authorized_keys == ("ssh-ed25519 BBBB b",)


async def _until(check: object) -> None:
    assert callable(check)
    while not check():
        await asyncio.sleep(0)


async def _end(loop: Reconciler) -> None:
    running = asyncio.create_task(loop.run())
    await asyncio.sleep(0)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
