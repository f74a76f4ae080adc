"""Long chains of layers become short again behind everybody's back, and nothing is lost on the way."""
from __future__ import annotations

import asyncio
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.contract.check_driver import look, until, want
from tests.live.node import Node, running_node
from tests.live.test_disks import COPY, VM, copy_of, layers
from tests.live.test_driver_live import booted, says
from ussycode.runtime.driver import Phase
from ussycode.runtime.drivers.qemu import merging, saved
from ussycode.runtime.drivers.qemu.driver import QemuDriver
from ussycode.runtime.images.store import Image, ImageStore
from ussycode.runtime.kernel import BootFiles

pytestmark = pytest.mark.timeout(300)
DEEP = merging.MERGE_AT + 3


@pytest.fixture
async def node(image_store: ImageStore, boot: BootFiles, debian_min: Image) -> AsyncIterator[Node]:
    async with running_node(image_store, boot) as one:
        yield one


def mark(node: Node, vm: str, at_mib: int, byte: int) -> None:
    """What a guest would write, without the guest."""
    words = ["qemu-io", "-f", "qcow2", "-c", f"write -q -P {byte} {at_mib}M 64k", str(node.disk(vm))]
    subprocess.run(words, check=True, timeout=30)


def holds(disk: Path, at_mib: int, byte: int) -> bool:
    words = ["qemu-io", "-r", "-f", "qcow2", "-c", f"read -P {byte} {at_mib}M 64k", str(disk)]
    return "failed" not in subprocess.run(words, check=True, timeout=30, capture_output=True, text=True).stdout


async def kept(driver: QemuDriver, node: Node, count: int) -> None:
    """A VM that never ran, with so many snapshots, each of its own content."""
    await driver.prepare(want())
    for n in range(count):
        await driver._machines[VM].disk.ready()  # as before a boot: from now on it is written to
        mark(node, VM, 4000 + n, n + 1)
        await driver.keep_snapshots(want(snapshots=tuple(f"snap_{one}" for one in range(n + 1))))


async def shortened(node: Node, vm: str, most: int) -> None:
    async with asyncio.timeout(60):
        while len(chain(node, vm)) > most:
            await asyncio.sleep(0.02)


def chain(node: Node, vm: str) -> tuple[str, ...]:
    record = saved.load(node.instance.vm_data(vm))
    assert record is not None
    return record.chain


async def test_layers_that_nobody_uses_alone_become_one(node: Node) -> None:
    driver = await node.driver()
    await kept(driver, node, DEEP)
    assert len(chain(node, VM)) == DEEP, "each snapshot needs its own"
    await driver.prepare(copy_of(VM))
    some = tuple(f"snap_{n}" for n in range(DEEP) if n != 1)
    await driver.keep_snapshots(want(snapshots=("snap_1",), dropped=some))
    await shortened(node, VM, 3)
    disk, copy = node.disk(VM), node.disk(COPY)
    for n in range(DEEP):
        assert holds(disk, 4000 + n, n + 1), n
        assert holds(copy, 4000 + n, n + 1), n
    async with asyncio.timeout(60):
        while layers(node) != 5:  # what is above the snapshot is one; its own two are few enough
            await asyncio.sleep(0.02)
    assert chain(node, COPY) == chain(node, VM)
    subprocess.run(["qemu-img", "check", "-q", node.instance.layers / chain(node, VM)[0]], check=True, timeout=30)
    await driver.close()


async def test_a_merge_that_was_cut_off_anywhere_costs_nothing(node: Node) -> None:
    driver = await node.driver()
    await kept(driver, node, DEEP)
    await driver.prepare(copy_of(VM))
    await driver.close()
    machines = list(saved.every(node.instance.data / "vms"))
    mine = next(one for one in machines if one.want.vm == VM)
    found = merging.Merge(mine.chain[3:7], mine.chain[7])
    draft = merging.write(driver.layers, found, Path("/nonexistent"))
    second = await node.driver()
    assert not draft.exists(), "what was not finished is removed"
    await second.close()
    merging.publish(driver.layers, found, merging.write(driver.layers, found, Path("/nonexistent")))
    third = await node.driver()
    assert all(holds(node.disk(VM), 4000 + n, n + 1) for n in range(DEEP)), "published, but no record says so"
    await third.close()
    mine = next(one for one in saved.every(node.instance.data / "vms") if one.want.vm == COPY)
    saved.save(node.instance.vm_data(COPY), merging.without(mine, found.gone))
    fourth = await node.driver()
    assert chain(node, VM) == chain(node, COPY), "one record said so, now all do"
    assert all(holds(node.disk(vm), 4000 + n, n + 1) for n in range(DEEP) for vm in (VM, COPY))
    await fourth.close()


async def test_a_running_vm_does_not_notice_that_its_layers_were_merged(node: Node) -> None:
    driver = await booted(node)
    names = tuple(f"snap_{n}" for n in range(DEEP))
    for n in range(DEEP):
        await says(driver, f"echo {n} >> ~/note; sync")
        await driver.keep_snapshots(want(snapshots=names[:n + 1]))
    await driver.keep_snapshots(want(dropped=names))
    await shortened(node, VM, 1)
    expected = "\n".join(str(n) for n in range(DEEP))
    assert await says(driver, "cat ~/note; echo more >> ~/note; sync") == expected
    await driver.keep_snapshots(want(snapshots=("snap_last",)))
    await driver.stop(VM)
    await driver.prepare(want(boot=2, snapshots=("snap_last",)))
    await driver.start(want(boot=2, snapshots=("snap_last",)))
    await until(driver, VM, Phase.RUNNING)
    assert await says(driver, "cat ~/note") == expected + "\nmore"
    assert [one.id for one in (await look(driver, VM)).snapshots] == ["snap_last"]
    await driver.close()
