"""Pausing real machines: their processes sleep in a file, and survive whatever happens meanwhile."""
from __future__ import annotations

import asyncio
import os
import signal
import time
import zlib
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest

from tests.contract.check_driver import look, until, want
from tests.live.node import Node, running_node
from tests.live.test_driver_live import VM, booted, says
from ussycode.runtime.driver import Phase
from ussycode.runtime.drivers.qemu import memory
from ussycode.runtime.drivers.qemu.driver import QemuDriver
from ussycode.runtime.images.store import Image, ImageStore
from ussycode.runtime.kernel import BootFiles
from ussycode.runtime.net import taps

pytestmark = pytest.mark.timeout(300)
COUNT = "(n=0; while :; do n=$((n+1)); echo $n > /dev/shm/n; sleep 0.1; done) >/dev/null 2>&1 & echo $! > /dev/shm/pid"


@pytest.fixture
async def node(image_store: ImageStore, boot: BootFiles, debian_min: Image) -> AsyncIterator[Node]:
    async with running_node(image_store, boot) as one:
        yield one


async def paused(driver: QemuDriver) -> None:
    began = time.monotonic()
    await driver.pause(want())
    print(f"pause: {1000 * (time.monotonic() - began):.0f} ms")
    assert (await look(driver, VM)).phase is Phase.PAUSED


async def resumed(driver: QemuDriver) -> None:
    began = time.monotonic()
    await driver.resume(want())
    await until(driver, VM, Phase.RUNNING)
    print(f"resume: {1000 * (time.monotonic() - began):.0f} ms")


async def test_a_paused_machine_leaves_the_host_and_comes_back_with_its_processes(node: Node) -> None:
    driver = await booted(node)
    folder = node.instance.vm_data(VM)
    await says(driver, COUNT)
    pid, uuid = (await look(driver, VM)).pid, await says(driver, "cat /proc/sys/kernel/random/uuid")
    await paused(driver)
    assert not Path(f"/proc/{pid}").exists()
    assert taps.leftover(node.instance) == []
    assert (folder / memory.FILE).stat().st_mode & 0o077 == 0
    print(f"memory file: {(folder / memory.FILE).stat().st_blocks * 512 >> 20} MiB")
    await driver.pause(want())
    counted = int(await _after_resume(driver, "cat /dev/shm/n"))
    assert await says(driver, "kill -0 $(cat /dev/shm/pid) && echo alive") == "alive"
    async with asyncio.timeout(20):
        while int(await says(driver, "cat /dev/shm/n")) <= counted:
            await asyncio.sleep(0.05)
    assert abs(int(await says(driver, "date +%s")) - time.time()) < 5
    assert await says(driver, "cat /proc/sys/kernel/random/uuid") != uuid
    assert not memory.exists(folder), "memory that went on once must never go on again"
    await driver.close()


async def _after_resume(driver: QemuDriver, command: str) -> str:
    await resumed(driver)
    assert not (await look(driver, VM)).cold
    return await says(driver, command)


async def test_a_paused_machine_stays_paused_through_a_new_control_and_a_dead_host(node: Node) -> None:
    first = await booted(node)
    await says(first, "echo kept > /dev/shm/note")
    await paused(first)
    await first.close()
    second = await node.driver()
    assert (await look(second, VM)).phase is Phase.PAUSED
    assert await _after_resume(second, "cat /dev/shm/note") == "kept"
    await second.close()


@pytest.mark.parametrize("harm", ["lost", "cut", "changed"])
async def test_without_sound_memory_it_boots_and_says_so(node: Node, harm: str) -> None:
    driver = await booted(node)
    await says(driver, "echo gone > /dev/shm/note; echo kept > ~/note; sync")
    await paused(driver)
    file = node.instance.vm_data(VM) / memory.FILE
    if harm == "lost":
        file.unlink()
    if harm == "cut":
        os.truncate(file, file.stat().st_size // 2)
    if harm == "changed":
        with file.open("r+b") as opened:
            opened.seek(file.stat().st_size // 2)
            opened.write(os.urandom(64))
    await resumed(driver)
    assert (await look(driver, VM)).cold
    assert await says(driver, "cat ~/note; test -e /dev/shm/note || echo fresh") == "kept\nfresh"
    await driver.close()


async def test_memory_that_qemu_does_not_take_is_followed_by_a_boot(node: Node) -> None:
    driver = await booted(node)
    await paused(driver)
    folder = node.instance.vm_data(VM)
    about = msgspec.json.decode((folder / "memory.json").read_bytes(), type=memory.About)
    nonsense = b"QEVM" + bytes(4096)
    (folder / memory.FILE).write_bytes(nonsense)
    told = memory.About(len(nonsense), zlib.crc32(nonsense), about.fits)
    (folder / "memory.json").write_bytes(msgspec.json.encode(told))
    await resumed(driver)
    assert (await look(driver, VM)).cold
    await driver.close()


async def test_a_pause_that_is_cut_off_leaves_a_running_machine(node: Node) -> None:
    first = await booted(node)
    await says(first, "echo kept > /dev/shm/note")
    machine = first._machines[VM]
    assert machine._monitor is not None
    await memory.write(machine.folder, machine._monitor, 256, machine._fits)
    await first.close()  # control died: QEMU is halted and the memory is written, and nobody wrote that down
    second = await node.driver()
    async with asyncio.timeout(60):
        while not await _answers(second):
            await asyncio.sleep(0.1)
    assert await says(second, "cat /dev/shm/note") == "kept"
    assert not memory.exists(machine.folder)
    await second.close()


async def _answers(driver: QemuDriver) -> bool:
    channel = driver._machines[VM]._channel
    return channel is not None and (await channel.ready(60)).configured


async def test_a_resume_that_is_cut_off_begins_again(node: Node) -> None:
    first = await booted(node)
    await says(first, "echo kept > /dev/shm/note")
    await paused(first)
    await first.resume(want())
    async with asyncio.timeout(60):
        while (pid := (await look(first, VM)).pid) == 0:
            await asyncio.sleep(0.001)
    await first.close()
    second = await node.driver()
    await until(second, VM, Phase.RUNNING)
    assert await says(second, "cat /dev/shm/note") == "kept"
    print(f"was {pid}, is {(await look(second, VM)).pid}")
    await second.close()


async def test_a_paused_machine_may_be_stopped_and_removed(node: Node) -> None:
    driver = await booted(node)
    await paused(driver)
    await driver.stop(VM)
    assert not memory.exists(node.instance.vm_data(VM))
    await driver.start(want(boot=2))
    await until(driver, VM, Phase.RUNNING)
    await driver.pause(want(boot=2))
    await driver.destroy(VM)
    assert not node.instance.vm_data(VM).exists()
    await driver.close()


async def test_a_qemu_killed_while_it_is_paused_is_no_harm(node: Node) -> None:
    driver = await booted(node)
    seen = await look(driver, VM)
    pausing = asyncio.create_task(driver.pause(want()))
    await asyncio.sleep(0)
    os.kill(seen.pid, signal.SIGKILL)
    await asyncio.gather(pausing, return_exceptions=True)
    await until_settled(driver)
    await driver.stop(VM)
    await driver.start(want(boot=2))
    await until(driver, VM, Phase.RUNNING)
    await driver.close()


async def until_settled(driver: QemuDriver) -> None:
    async with asyncio.timeout(60):
        while (await look(driver, VM)).phase not in (Phase.FAILED, Phase.PAUSED):
            await asyncio.sleep(0.02)
