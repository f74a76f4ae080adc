"""Real machines under the QEMU driver."""
from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.contract.check_driver import check_driver, look, until, want
from tests.live.node import Node, owner, running_node
from ussycode.agent.link import LocalLink
from ussycode.runtime.driver import Driver, Phase
from ussycode.runtime.drivers.qemu.driver import QemuDriver
from ussycode.runtime.guest.execs import ExecSpec, Exit, Stdout
from ussycode.runtime.images.store import Image, ImageStore
from ussycode.runtime.kernel import BootFiles
from ussycode.runtime.net import taps
from ussycode.runtime.privileged import processes

pytestmark = pytest.mark.timeout(300)
VM = want().vm
REBOOT_2 = "sudo python3 -c 'import ctypes; ctypes.CDLL(None).reboot({})'"
"""The system call behind poweroff and reboot, which the minimal image does not carry."""


@pytest.fixture
async def node(image_store: ImageStore, boot: BootFiles, debian_min: Image) -> AsyncIterator[Node]:
    async with running_node(image_store, boot) as one:
        yield one


async def says(driver: QemuDriver, command: str, vm: str = VM) -> str:
    """What a command prints in the guest; it must succeed."""
    stream = await LocalLink(driver).open_exec(vm, ExecSpec(cmd=command, login=True))
    out = b""
    async for event in stream:
        if isinstance(event, Stdout):
            out += event.data
        if isinstance(event, Exit):
            assert event.status == 0, (command, event, out)
    return out.decode().strip()


async def booted(node: Node, **changes: object) -> QemuDriver:
    """A driver with one running VM."""
    driver = await node.driver()
    one = want(**changes)
    await driver.prepare(one)
    began = time.monotonic()
    await driver.start(one)
    await until(driver, one.vm, Phase.RUNNING)
    print(f"start to RUNNING: {1000 * (time.monotonic() - began):.0f} ms")
    return driver


async def ended(driver: Driver, *phases: Phase) -> None:
    async with asyncio.timeout(60):
        while (await look(driver, VM)).phase not in phases:
            await asyncio.sleep(0.02)


async def test_real_machines_keep_the_contract(node: Node) -> None:
    await check_driver(node.driver)
    assert taps.leftover(node.instance) == []
    assert list((node.instance.run / "vm").iterdir()) == []
    assert list((node.instance.data / "vms").iterdir()) == []


async def test_a_machine_is_who_it_was_told_to_be_and_walled_in(node: Node) -> None:
    driver = await booted(node)
    assert await says(driver, "hostname; id -un; echo $GREETING") == "demo\nussy\nhello there"
    assert await says(driver, "sudo cat /etc/resolv.conf | grep -c 169.254.1.1") == "1"
    pid, uid = (await look(driver, VM)).pid, node.instance.uid(2)
    status = dict(line.split(":\t", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    assert status["Uid"].split() == status["Gid"].split() == [str(uid)] * 4
    assert (status["CapEff"], status["NoNewPrivs"], status["Seccomp"]) == ("0" * 16, "1", "2")
    assert status["Groups"].strip() == ""
    assert os.getsid(pid) == pid
    disk = node.disk(VM)
    assert (owner(disk), disk.stat().st_mode & 0o777) == (uid, 0o600)
    used = await node.helper.usage(VM, 2)
    facts = await node.helper.facts()
    print(f"cgroups: {facts}; used: {used}")
    assert facts.cgroups == "no cgroups" or 1 << 20 < used.memory < (256 + 256) << 20
    await driver.close()


async def test_control_may_die_and_come_back(node: Node) -> None:
    first = await booted(node)
    before = await look(first, VM)
    await says(first, "echo kept > ~/note")
    await first.close()
    second = await node.driver()
    after = await look(second, VM)
    assert (after.phase, after.pid, after.address) == (Phase.RUNNING, before.pid, before.address)
    assert await says(second, "cat ~/note") == "kept"
    await second.stop(VM)
    assert not Path(f"/proc/{before.pid}").exists()
    await second.close()


async def test_a_machine_that_boots_while_control_dies_is_configured_by_the_next(node: Node) -> None:
    first, one = await node.driver(), want()
    await first.prepare(one)
    await first.start(one)
    async with asyncio.timeout(30):
        while (await look(first, VM)).pid == 0:
            await asyncio.sleep(0.01)
    await first.close()
    second = await node.driver()
    await until(second, VM, Phase.RUNNING)
    assert await says(second, "hostname") == "demo"
    await second.close()


async def test_the_helper_may_be_killed_and_machines_live_on(node: Node) -> None:
    driver = await booted(node)
    assert node.process.pid is not None
    os.kill(node.process.pid, signal.SIGKILL)
    node.process.join(10)
    assert await says(driver, "echo alive") == "alive"
    node.start_helper()
    await driver.destroy(VM)
    assert taps.leftover(node.instance) == []
    await driver.close()


async def test_a_guest_that_powers_itself_off_is_stopped_and_stays_so(node: Node) -> None:
    driver = await booted(node)
    await _run_to_the_end(driver, f"sync; {REBOOT_2.format(0x4321FEDC)}")
    await ended(driver, Phase.STOPPED)
    seen = await look(driver, VM)
    assert (seen.boot, seen.detail) == (1, "the guest powered itself off")
    await driver.start(want(boot=2))
    await until(driver, VM, Phase.RUNNING)
    await driver.close()


async def test_a_guest_may_restart_itself(node: Node) -> None:
    driver = await booted(node)
    before = (await look(driver, VM)).pid
    await _run_to_the_end(driver, f"echo kept > ~/note; sync; {REBOOT_2.format(0x1234567)}")
    async with asyncio.timeout(60):
        while (await look(driver, VM)).phase is Phase.RUNNING and (await look(driver, VM)).pid in (before, 0):
            await asyncio.sleep(0.02)
    await until(driver, VM, Phase.RUNNING)
    assert await says(driver, "cat ~/note") == "kept"
    await driver.close()


async def test_a_killed_machine_has_failed_and_says_how(node: Node) -> None:
    driver = await booted(node)
    record = processes.read(node.instance.vm_run(VM))
    assert record is not None
    processes.kill(record)
    await ended(driver, Phase.FAILED)
    assert "SIGKILL" in (await look(driver, VM)).detail
    await driver.start(want(boot=2))
    await until(driver, VM, Phase.RUNNING)
    await driver.close()


async def test_a_guest_that_never_answers_fails_in_time_with_its_last_words(node: Node) -> None:
    driver = await node.driver(boot_timeout=0.4)
    one = replace(want(), vm="vm_neveranswersaaaa")
    await driver.prepare(one)
    await driver.start(one)
    async with asyncio.timeout(30):
        while (seen := await look(driver, one.vm)).phase is not Phase.FAILED:
            await asyncio.sleep(0.02)
    assert seen.detail.startswith("the guest did not answer within")
    assert taps.leftover(node.instance) == []
    await driver.close()


async def _run_to_the_end(driver: QemuDriver, command: str) -> None:
    """Run what ends the guest; the stream may break at any point."""
    stream = await LocalLink(driver).open_exec(VM, ExecSpec(cmd=command, login=True))
    try:
        async for _ in stream:
            pass
    except Exception as error:
        print(f"the stream ended with the guest: {error}")


async def test_a_disk_grows_under_a_running_guest_and_stays_so(node: Node) -> None:
    driver = await booted(node, disk_gib=5)
    assert (await look(driver, VM)).disk_gib == 5
    await driver.grow(want(disk_gib=8))
    assert (await look(driver, VM)).disk_gib == 8
    assert int(await says(driver, "cat /sys/block/vda/size")) * 512 == 8 << 30
    async with asyncio.timeout(60):
        while int(await says(driver, "df -k --output=size / | tail -1")) < 7 << 20:
            await asyncio.sleep(0.1)
    used = await driver.sample(VM)
    assert used is not None and used.disk_allocated > 0
    assert 7 << 30 < used.fs_total <= 8 << 30 and 0 < used.fs_free < used.fs_total
    assert min(used.net_rx, used.net_tx, used.io_read, used.io_write) > 0
    await driver.close()
    assert (await look(await node.driver(), VM)).disk_gib == 8
