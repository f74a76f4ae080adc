"""Disks of real machines: copied, kept, brought back, grown and let go, running or not."""
from __future__ import annotations

import asyncio
import shutil
import subprocess
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from tests.contract.check_driver import look, until, want
from tests.live.node import Node, running_node
from tests.live.test_driver_live import booted, says
from ussycode.base.errors import Failure
from ussycode.runtime.driver import Origin, OriginKind, Phase, Want
from ussycode.runtime.drivers.qemu.driver import QemuDriver
from ussycode.runtime.drivers.qemu.storage import Owners
from ussycode.runtime.images.store import Image, ImageStore
from ussycode.runtime.kernel import BootFiles
from ussycode.runtime.privileged.protocol import HELPER_GONE

pytestmark = pytest.mark.timeout(400)
VM, COPY = want().vm, "vm_checkcopyaaaaaaa"
WRITTEN_MIB = 256
GAPS = """python3 -c '
import os, time
file, last, worst = open("beat", "w"), time.monotonic(), 0
for n in range(300):
    file.write("x"); file.flush(); os.fsync(file.fileno()); time.sleep(0.01)
    now = time.monotonic(); worst = max(worst, now - last); last = now
print(worst)
'"""
"""Writes for a few seconds and says how long the longest time between two writes was."""


@pytest.fixture
async def node(image_store: ImageStore, boot: BootFiles, debian_min: Image) -> AsyncIterator[Node]:
    async with running_node(image_store, boot) as one:
        yield one


def copy_of(vm: str, **changes: object) -> Want:
    return want(vm=COPY, number=3, origin=Origin(OriginKind.VM, vm), **changes)


async def up(driver: QemuDriver, one: Want) -> None:
    await driver.prepare(one)
    await driver.start(one)
    await until(driver, one.vm, Phase.RUNNING)


def taken(node: Node) -> int:
    """Bytes that all disks of the node take on the host."""
    return sum(file.stat().st_blocks * 512 for file in node.instance.layers.iterdir())


def layers(node: Node) -> int:
    return len(list(node.instance.layers.iterdir()))


async def test_a_copy_of_a_running_vm_is_whole_independent_and_costs_next_to_nothing(node: Node) -> None:
    driver = await booted(node)
    await says(driver, f"head -c {WRITTEN_MIB}M /dev/urandom > ~/big; sha256sum ~/big > ~/sum; echo before > ~/note")
    await says(driver, "sudo mkdir -p /etc/ssh; echo 'of the source' | sudo tee /etc/ssh/ssh_host_ed25519_key; sync")
    before, began = taken(node), time.monotonic()
    await up(driver, copy_of(VM))
    assert await says(driver, "cat ~/note", COPY) == "before"
    spent, more = time.monotonic() - began, taken(node) - before
    print(f"cp of {WRITTEN_MIB} MiB to an answering clone: {spent:.2f} s, new space {more >> 10} KiB")
    assert more < WRITTEN_MIB << 20 >> 4
    who = "cat /etc/machine-id /proc/sys/kernel/random/uuid; sudo cat /etc/ssh/ssh_host_ed25519_key"
    source, copied = [(await says(driver, who, vm)).splitlines() for vm in (VM, COPY)]
    assert copied[2].startswith("-----BEGIN OPENSSH") and not set(source) & set(copied), "it is a machine of its own"
    assert "OK" in await says(driver, "sha256sum -c ~/sum", COPY)
    await says(driver, "echo source > ~/note")
    await says(driver, "echo copy > ~/note", COPY)
    assert (await says(driver, "cat ~/note"), await says(driver, "cat ~/note", COPY)) == ("source", "copy")
    await driver.destroy(VM)
    await driver.stop(COPY)
    await up(driver, copy_of(VM, boot=2))
    again = (await says(driver, who, COPY)).splitlines()
    assert (again[0], again[2:]) == (copied[0], copied[2:]), "and stays it"
    assert "OK" in await says(driver, "sha256sum -c ~/sum; cat ~/note", COPY), "it needs nothing of the source"
    await driver.destroy(COPY)
    assert layers(node) == 0
    await driver.close()


async def test_a_snapshot_brings_a_file_back(node: Node) -> None:
    driver = await booted(node)
    await says(driver, "echo precious > ~/note; sync")
    beat = asyncio.create_task(says(driver, GAPS))
    async with asyncio.timeout(60):
        while await says(driver, "stat -c %s beat || echo 0") == "0":
            await asyncio.sleep(0.1)
    began = time.monotonic()
    await driver.keep_snapshots(want(snapshots=("snap_1",)))
    print(f"snapshot of a running VM: {1000 * (time.monotonic() - began):.0f} ms; writes paused {await beat} s at most")
    assert [one.id for one in (await look(driver, VM)).snapshots] == ["snap_1"]
    await says(driver, "rm ~/note; head -c 20M /dev/urandom > ~/junk; sync")
    await driver.keep_snapshots(want(snapshots=("snap_1", "snap_2")))
    await driver.stop(VM)
    back = want(boot=2, disk_turn=2, origin=Origin(OriginKind.SNAPSHOT, VM, "snap_1"), snapshots=("snap_1", "snap_2"))
    await driver.prepare(back)
    seen = await look(driver, VM)
    assert (seen.phase, seen.disk_turn) == (Phase.STOPPED, 2)
    await up(driver, back)
    assert await says(driver, "cat ~/note; ls ~/junk 2>&1 | grep -c 'No such'") == "precious\n1"
    kept = {one.id: one.size for one in (await look(driver, VM)).snapshots}
    assert kept["snap_2"] > 20 << 20 > kept["snap_1"], "the junk is held by the second snapshot alone"
    before = layers(node)
    await driver.keep_snapshots(replace(back, snapshots=("snap_1",), dropped=("snap_2",)))
    assert layers(node) == before - 1
    await driver.close()
    again = await node.driver()
    assert [one.id for one in (await look(again, VM)).snapshots] == ["snap_1"]
    await again.close()


async def test_a_stopped_vm_is_copied_and_grown_and_its_root_follows_at_the_next_boot(node: Node) -> None:
    driver = await booted(node)
    await says(driver, "echo here > ~/note; sync")
    await driver.stop(VM)
    await driver.grow(want(disk_gib=7))
    await driver.grow(want(disk_gib=7))
    assert (await look(driver, VM)).disk_gib == 7
    await driver.prepare(copy_of(VM, disk_gib=5))
    assert (await look(driver, COPY)).disk_gib == 7, "a copy is never smaller than what it copies"
    await up(driver, want(boot=2, disk_gib=7))
    async with asyncio.timeout(60):
        while int(await says(driver, "df -k --output=size / | tail -1")) < 6 << 20:
            await asyncio.sleep(0.1)
    assert await says(driver, "cat ~/note") == "here"
    await up(driver, copy_of(VM, disk_gib=5))
    assert await says(driver, "cat ~/note", COPY) == "here"
    await driver.close()


async def test_a_paused_vm_is_copied_and_goes_on_where_it_was(node: Node) -> None:
    driver = await booted(node)
    await says(driver, "sleep 1000 >/dev/null 2>&1 & echo asleep > ~/note")
    await driver.pause(want())
    await driver.prepare(copy_of(VM))
    assert (await look(driver, VM)).phase is Phase.PAUSED
    await driver.resume(want())
    await until(driver, VM, Phase.RUNNING)
    assert await says(driver, "cat ~/note; for p in /proc/[0-9]*; do cat $p/comm; done | grep -c sleep") == "asleep\n1"
    assert not (await look(driver, VM)).cold
    await up(driver, copy_of(VM))
    assert await says(driver, "cat ~/note", COPY) == "asleep"
    await driver.close()


@dataclass
class BreaksAfterTheSwitch:
    """Root's part of disks while control is killed right after QEMU went on to a new layer."""

    real: Owners

    async def disk_own(self, vm: str, number: int, disk: str) -> None:
        await self.real.disk_own(vm, number, disk)

    async def disk_seal(self, vm: str, number: int, disk: str) -> None:
        raise HELPER_GONE()


async def test_a_snapshot_whose_taker_dies_half_way_is_taken_by_the_next(node: Node) -> None:
    driver = await booted(node)
    await says(driver, "echo one > ~/note")
    driver.layers.helper = BreaksAfterTheSwitch(node.helper)
    with pytest.raises(Failure):
        await driver.keep_snapshots(want(snapshots=("snap_1",)))
    await says(driver, "echo two >> ~/note; sync")
    await driver.close()
    second = await node.driver()
    await second.keep_snapshots(want(snapshots=("snap_1",)))
    assert await says(second, "cat ~/note") == "one\ntwo"
    await second.stop(VM)
    await up(second, want(boot=2, snapshots=("snap_1",)))
    assert await says(second, "cat ~/note") == "one\ntwo"
    assert layers(node) == 3, "one layer from the first attempt, one from the second, and the top"
    await second.close()


async def test_an_owner_is_warned_and_a_vm_on_a_full_host_stands_still_until_there_is_room(
    image_store: ImageStore, boot: BootFiles, debian_min: Image, tmp_path: Path
) -> None:
    with small_disk(tmp_path, mib=1100) as place:
        async with running_node(image_store, boot, parent=place) as node:
            await _fill_host_and_guest(node, place)


async def _fill_host_and_guest(node: Node, place: Path) -> None:
    driver = await booted(node)
    await says(driver, "sudo fallocate -l $(($(df --output=avail -B1 / | tail -1) * 9 / 10)) /var/tmp/big")
    await driver.sample(VM)
    assert "% full" in (await look(driver, VM)).warning
    await says(driver, "sudo rm /var/tmp/big")
    await driver.sample(VM)
    assert (await look(driver, VM)).warning == ""
    _leave(place, mib=300)
    with pytest.raises(Failure, match="the host's disk is full"):
        await driver.prepare(want(COPY, 3))
    with pytest.raises(Failure, match="the host's disk is full"):
        await driver.keep_snapshots(want(snapshots=("snap_1",)))
    _leave(place, mib=20)
    noise = "head -c 60M /dev/urandom > ~/new; sync; sha256sum ~/new > ~/sum; echo ok"
    write = asyncio.create_task(says(driver, noise))
    async with asyncio.timeout(90):
        while "stands still" not in (await look(driver, VM)).warning:
            await asyncio.sleep(0.05)
    (place / "ballast").unlink()
    assert await write == "ok"
    assert (await look(driver, VM)).warning == ""
    assert "OK" in await says(driver, "sha256sum -c ~/sum")
    await driver.destroy(VM)
    await driver.close()


def _leave(place: Path, mib: int) -> None:
    """Fill the file system until so much is free."""
    (place / "ballast").unlink(missing_ok=True)
    free = shutil.disk_usage(place).free - (mib << 20)
    subprocess.run(["fallocate", "-l", str(free), place / "ballast"], check=True)


@contextmanager
def small_disk(folder: Path, mib: int) -> Iterator[Path]:
    """A file system of its own, so small that it can be filled."""
    file, place = folder / "small.ext4", folder / "small"
    place.mkdir()
    subprocess.run(["truncate", "-s", f"{mib}M", file], check=True)
    subprocess.run(["mkfs.ext4", "-q", "-m", "0", file], check=True)
    subprocess.run(["mount", "-o", "loop", file, place], check=True)
    try:
        yield place
    finally:
        subprocess.run(["umount", "-l", place], check=True)


async def test_what_a_guest_deletes_is_given_back_to_the_host(node: Node) -> None:
    driver = await booted(node)
    before = taken(node)
    await says(driver, "head -c 100M /dev/urandom > ~/big; sync")
    full = taken(node)
    assert full > before + (90 << 20)
    await driver.keep_snapshots(want(snapshots=("snap_1",)))
    await says(driver, "head -c 60M /dev/urandom > ~/more; sync; rm ~/more; sync")
    async with asyncio.timeout(60):
        while taken(node) > full + (20 << 20):
            await says(driver, "sync")
    await driver.keep_snapshots(want(dropped=("snap_1",)))
    await driver.close()
