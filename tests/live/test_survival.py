"""What happens to the host happens to VMs within bounds: each comes back, or its owner reads why not."""
from __future__ import annotations

import os
import shutil
import signal
from collections.abc import AsyncIterator

import pytest

from tests.contract.check_driver import look, until, want
from tests.live.node import Node, running_node
from tests.live.test_disks import VM
from tests.live.test_driver_live import booted, ended, says
from ussycode.base.clock import SystemClock
from ussycode.runtime.driver import Origin, OriginKind, Phase
from ussycode.runtime.drivers.qemu import clocks, endings
from ussycode.runtime.images.store import Image, ImageStore
from ussycode.runtime.kernel import BootFiles
from ussycode.runtime.net import taps

pytestmark = pytest.mark.timeout(200)


@pytest.fixture
async def node(image_store: ImageStore, boot: BootFiles, debian_min: Image) -> AsyncIterator[Node]:
    async with running_node(image_store, boot) as one:
        yield one


async def test_a_damaged_disk_is_told_of_and_a_snapshot_brings_the_vm_back(node: Node) -> None:
    driver = await booted(node)
    await says(driver, "echo precious > ~/note; sync")
    await driver.keep_snapshots(want(snapshots=("snap_1",)))
    await driver.stop(VM)
    with node.disk(VM).open("r+b") as file:
        file.write(b"\xff" * 512)
    again = want(boot=2, snapshots=("snap_1",))
    await driver.prepare(again)
    await driver.start(again)
    await ended(driver, Phase.FAILED)
    seen = await look(driver, VM)
    assert seen.detail == endings.SPOILT_DISK, seen.console
    back = want(boot=3, disk_turn=2, origin=Origin(OriginKind.SNAPSHOT, VM, "snap_1"), snapshots=("snap_1",))
    await driver.prepare(back)
    await driver.start(back)
    await until(driver, VM, Phase.RUNNING)
    assert await says(driver, "cat ~/note") == "precious"
    await driver.close()


class Moved:
    """The host's clock, set to another time."""

    by = 0.0

    def now(self) -> float:
        return SystemClock().now() + self.by


async def test_a_guests_clock_follows_the_hosts_when_that_jumps(node: Node) -> None:
    node.clock = clock = Moved()
    driver = await booted(node)
    for jump in (7200.0, -86_400.0):
        clock.by += jump
        assert await driver.sample(VM) is not None
        assert abs(int(await says(driver, "date +%s")) - clock.now()) < 60
        assert (await look(driver, VM)).warning == clocks.sentence(jump)
        await driver.sample(VM)
        assert (await look(driver, VM)).warning == "", "said once"
    assert await says(driver, "echo alive") == "alive"
    await driver.close()


async def test_a_vm_is_started_again_after_the_host_went_down_in_the_middle(node: Node) -> None:
    driver = await booted(node)
    await says(driver, "echo before > ~/note; sync")
    pid = (await look(driver, VM)).pid
    await driver.close()
    node.process.terminate()
    node.process.join(10)
    os.kill(pid, signal.SIGKILL)
    shutil.rmtree(node.instance.run / "vm")
    for name in taps.leftover(node.instance):
        taps.remove(name)
    (node.instance.run / "vm").mkdir(mode=0o711)
    node.start_helper()
    second = await node.driver()
    seen = await look(second, VM)
    assert (seen.phase, seen.boot, seen.detail) == (Phase.PREPARED, 0, ""), "the next look of the reconciler starts it"
    await second.start(want())
    await until(second, VM, Phase.RUNNING)
    assert await says(second, "cat ~/note") == "before"
    await second.close()
