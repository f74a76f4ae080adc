"""New machines as copies of one that had booted: nothing is shared that must not be, and whatever breaks, they boot."""
from __future__ import annotations

import asyncio
import fcntl
import hashlib
import mmap
import os
import signal
import subprocess
import time
import zlib
from collections.abc import AsyncIterator, Collection
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest

from tests.contract.check_driver import look, until, want
from tests.live.node import Node, running_node
from tests.live.test_driver_live import says
from ussycode.runtime.driver import Origin, OriginKind, Phase, Spare, Want
from ussycode.runtime.drivers.qemu import machine
from ussycode.runtime.drivers.qemu.driver import QemuDriver
from ussycode.runtime.drivers.qemu.spares import Spares, Stock
from ussycode.runtime.drivers.qemu.template import NUMBER, STATE, Template
from ussycode.runtime.drivers.qemu.templates import Limits
from ussycode.runtime.images.store import Image, ImageStore
from ussycode.runtime.kernel import BootFiles
from ussycode.runtime.net import taps
from ussycode.runtime.privileged import processes
from ussycode.runtime.privileged.protocol import Accel
from ussycode.runtime.qcow2.writer import draw

pytestmark = pytest.mark.timeout(300)
ROOM = Limits(2048, ("debian-min", 1, 256))
WHO = (
    "hostname; cat /etc/machine-id /sys/class/net/eth0/address /proc/sys/kernel/random/boot_id "
    "/proc/sys/kernel/random/uuid; head -c 16 /dev/urandom | od -An -tx1; ip -4 -o addr show eth0 | awk '{print $4}'"
)
CONNECTED = """python3 -c '
from socket import inet_ntoa
lines = [line.split() for line in open("/proc/net/tcp").read().splitlines()[1:]]
lines += [line.split() for line in open("/proc/net/udp").read().splitlines()[1:]]
print(*{inet_ntoa(bytes.fromhex(words[1][:8])[::-1]) for words in lines if words[3] != "0A"})
'"""
"""Addresses that connections which are open now have on this side."""
LOOP = "(while :; do sleep 1; done) >/dev/null 2>&1 & echo $! > /dev/shm/pid"
HARD = "python3 -c 'import os; a = bytearray(os.urandom(1 << 20)) * 100; a[::4096] = bytes(len(a[::4096]))'; sync"


@pytest.fixture
async def node(image_store: ImageStore, boot: BootFiles, debian_min: Image) -> AsyncIterator[Node]:
    async with running_node(image_store, boot) as one:
        yield one


def one_of(number: int, **changes: object) -> Want:
    """One of several machines that differ in all that a control plane gives them."""
    return want(
        vm=f"vm_forked{number:010}", number=number, name=f"demo{number}", secret=f"{number & 255:02x}" * 32,
        env=(("NUMBER", str(number)),), **changes,
    )


async def made(driver: QemuDriver, *wanted: Want) -> None:
    """Machines that run."""
    for one in wanted:
        await driver.prepare(one)
    began = time.monotonic()
    for one in wanted:
        await driver.start(one)
    await asyncio.gather(*(until(driver, one.vm, Phase.RUNNING) for one in wanted))
    print(f"{len(wanted)} started in {1000 * (time.monotonic() - began):.0f} ms: {driver.templates.figures}")


async def templates(driver: QemuDriver, count: int = 1, seconds: float = 60) -> None:
    """Wait until there are so many."""
    async with asyncio.timeout(seconds):
        while driver.templates.figures.held != count:
            await asyncio.sleep(0.02)


def memory_of_templates(node: Node) -> list[Path]:
    """The helper's descriptors of templates' memory."""
    found = []
    for fd in Path(f"/proc/{node.process.pid}/fd").iterdir():
        with suppress(FileNotFoundError):  # it closes others meanwhile
            found += [fd] if "ussycode-template" in str(fd.readlink()) else []
    return found


def digest(path: Path) -> str:
    """Of a whole file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


async def test_copies_share_nothing_that_makes_a_machine_itself(node: Node) -> None:
    driver = await node.driver(limits=ROOM)
    await templates(driver)
    (memory,) = memory_of_templates(node)
    before = digest(memory)
    first, second = one_of(2), one_of(3, disk_gib=7)
    await made(driver, first, second)
    assert (driver.templates.figures.forked, driver.templates.figures.failed) == (2, 0)
    told = [(await says(driver, WHO, one.vm)).splitlines() for one in (first, second)]
    assert len(told[0]) == 7 and not set(told[0]) & set(told[1]), told
    for one, said in zip((first, second), told, strict=True):
        instance = node.instance
        assert await says(driver, CONNECTED, one.vm) == instance.address(one.number), "nothing of the template's"
        assert (said[0], said[2], said[6]) == (
            one.name, instance.mac(one.number), f"{instance.address(one.number)}/32")
        assert await says(driver, "echo $NUMBER", one.vm) == str(one.number)
        assert abs(int(await says(driver, "date +%s", one.vm)) - time.time()) < 5
        address = driver.guest_address(one.vm)
        assert address is not None and address.secret == one.secret
    async with asyncio.timeout(30):
        while int(await says(driver, "df -k --output=size / | tail -1", second.vm)) < 6 << 20:
            await asyncio.sleep(0.1)
    await asyncio.gather(*(says(driver, HARD, one.vm) for one in (first, second)))
    assert digest(memory) == before, "what copies write is theirs alone"
    third = one_of(4)
    await made(driver, third)
    assert (await says(driver, WHO, third.vm)).splitlines()[4] not in (told[0][4], told[1][4])
    await driver.close()


async def test_nobody_can_write_to_a_templates_memory(node: Node) -> None:
    driver = await node.driver(limits=ROOM)
    await templates(driver)
    await made(driver, one_of(2))
    (memory,) = memory_of_templates(node)
    before = digest(memory)
    held = processes.read(node.instance.vm_run(one_of(2).vm))
    assert held is not None
    places = Path(f"/proc/{held.pid}/fd")
    (opened, *_) = [fd for fd in places.iterdir() if "ussycode-template" in str(fd.readlink())]
    for path in (memory, opened):  # as root, which a machine's own user is less than
        fd = os.open(path, os.O_RDWR)
        with pytest.raises(PermissionError):
            os.pwrite(fd, b"x", 4096)
        with pytest.raises(PermissionError):
            mmap.mmap(fd, 4096, mmap.MAP_SHARED, mmap.PROT_READ | mmap.PROT_WRITE)
        with pytest.raises(PermissionError):
            os.ftruncate(fd, 4096)
        with pytest.raises(PermissionError):
            fcntl.fcntl(fd, fcntl.F_ADD_SEALS, 0)
        os.close(fd)
        punch = ["fallocate", "-p", "-o", "4096", "-l", "4096", path]
        punched = subprocess.run(punch, capture_output=True, text=True, check=False)
        assert "not permitted" in punched.stderr, "a hole would be zeros in everybody's memory"
    assert digest(memory) == before
    await driver.close()


async def test_a_machine_boots_when_it_cannot_be_a_copy(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    driver = await node.driver(limits=ROOM)
    await templates(driver)
    folder = next((node.instance.data / "vms").glob("tpl_*"))
    sound = (folder / STATE).read_bytes()
    (folder / STATE).write_bytes(sound[: len(sound) // 2])
    await made(driver, one_of(2))
    figures = driver.templates.figures
    assert (figures.forked, figures.failed) == (0, 0), "what is not whole is not even tried"
    (folder / STATE).write_bytes(sound)
    for held in await node.helper.templates():
        await node.helper.template_drop(held.template)
    await made(driver, one_of(3))
    assert (figures.forked, figures.failed, figures.held) == (0, 1, 0)
    await driver.prepare(one_of(4))
    await templates(driver)
    await driver.close()
    _make_senseless(node)
    driver = await node.driver(limits=ROOM)
    await made(driver, one_of(5))
    assert (driver.templates.figures.forked, driver.templates.figures.failed) == (0, 1)
    await driver.prepare(one_of(6))
    await templates(driver)
    monkeypatch.setattr(machine, "FORK_SECONDS", 0.0)
    await made(driver, one_of(6))
    assert driver.templates.figures.failed == 2, "a copy that does not say in time that it is well"
    for number in (2, 3, 5, 6):
        vm = one_of(number).vm
        assert await says(driver, "hostname; echo $NUMBER", vm) == f"demo{number}\n{number}"
        assert not (await look(driver, vm)).cold
    await driver.close()


def _make_senseless(node: Node) -> None:
    """A device state that is whole as a file and means nothing to QEMU."""
    (about,) = (node.instance.data / "vms").glob("tpl_*/template.json")
    state = about.parent / STATE
    state.write_bytes(b"\xff" * state.stat().st_size)
    told = msgspec.json.decode(about.read_bytes(), type=Template)
    about.write_bytes(msgspec.json.encode(msgspec.structs.replace(told, crc=zlib.crc32(state.read_bytes()))))


async def test_templates_survive_control_and_are_made_again_without_the_helper(node: Node) -> None:
    first = await node.driver(limits=ROOM)
    await templates(first)
    await first.prepare(one_of(2))
    await first.close()
    second = await node.driver(limits=ROOM)
    assert second.templates.figures.held == 1
    await made(second, one_of(2), one_of(3))
    assert second.templates.figures.forked == 2
    assert node.process.pid is not None
    os.kill(node.process.pid, signal.SIGKILL)
    node.process.join(10)
    node.start_helper()
    await made(second, one_of(4))
    assert (second.templates.figures.forked, second.templates.figures.failed) == (2, 1)
    await second.prepare(one_of(5))
    await templates(second)
    await second.close()
    third = await node.driver(limits=Limits())
    assert third.templates.figures.held == 0 and not memory_of_templates(node)
    assert await says(third, "hostname", one_of(2).vm) == "demo2", "who was a copy lives on without the template"
    await third.start(one_of(5))
    await until(third, one_of(5).vm, Phase.RUNNING)
    assert third.templates.figures.forked == 0
    await third.close()


async def test_a_control_that_dies_in_the_middle_leaves_a_machine_that_boots(node: Node) -> None:
    first = await node.driver(limits=ROOM)
    await templates(first)
    await first.prepare(one_of(2))
    await first.start(one_of(2))
    async with asyncio.timeout(30):
        while (await look(first, one_of(2).vm)).pid == 0:
            await asyncio.sleep(0.001)
    await first.close()
    second = await node.driver(limits=ROOM)
    await until(second, one_of(2).vm, Phase.RUNNING)
    assert await says(second, "hostname", one_of(2).vm) == "demo2"
    assert (second.templates.figures.held, second.templates.figures.failed) == (1, 0), "nobody blames the template"
    await second.close()


async def test_what_was_a_copy_lives_as_any_other(node: Node) -> None:
    driver = await node.driver(limits=ROOM)
    await templates(driver)
    one, copy = one_of(2), one_of(3, origin=Origin(OriginKind.VM, vm=one_of(2).vm))
    await made(driver, one)
    await says(driver, f"echo kept > ~/note; {LOOP}", one.vm)
    await driver.keep_snapshots(replace(one, snapshots=("sn_first",)))
    await says(driver, "echo changed > ~/note", one.vm)
    await made(driver, copy)
    assert await says(driver, "cat ~/note; hostname", copy.vm) == "changed\ndemo3"
    await driver.pause(one)
    assert (await look(driver, one.vm)).phase is Phase.PAUSED
    await driver.resume(one)
    await until(driver, one.vm, Phase.RUNNING)
    assert await says(driver, "kill -0 $(cat /dev/shm/pid) && cat ~/note", one.vm) == "changed"
    back = replace(one, boot=2, disk_turn=2, origin=Origin(OriginKind.SNAPSHOT, vm=one.vm, snapshot="sn_first"))
    await driver.stop(one.vm)
    await driver.prepare(back)
    await driver.start(back)
    await until(driver, one.vm, Phase.RUNNING)
    assert await says(driver, "cat ~/note; hostname", one.vm) == "kept\ndemo2"
    assert (driver.templates.figures.forked, driver.templates.figures.failed) == (3, 0), "each start was a copy"
    await driver.close()


async def test_old_templates_make_room_and_nothing_is_left_of_them(node: Node) -> None:
    driver = await node.driver(limits=Limits(130, None))
    first, other = one_of(2), one_of(3, memory_mib=320)
    await driver.prepare(first)
    await templates(driver)
    assert 20 << 20 < driver.templates.figures.size < 130 << 20
    await driver.prepare(other)
    async with asyncio.timeout(60):
        while [one.of.memory_mib for one in driver.templates.held] != [320] or len(memory_of_templates(node)) != 1:
            await asyncio.sleep(0.02)
    for one in (first, other):
        await driver.destroy(one.vm)
    await driver.close()
    last = await node.driver()
    instance = node.instance
    assert memory_of_templates(node) == [] and [*Path("/sys/class/net").glob(f"uyt{instance.slot}-*")] == []
    for folder in (instance.run / "vm", instance.data / "vms", instance.layers):
        assert [*folder.iterdir()] == [], folder
    assert taps.leftover(instance) == []
    assert [*Path("/sys/fs/cgroup").glob(f"**/ussycode-{instance.slot}/vm-*")] == []
    await last.close()


async def test_a_template_that_was_begun_when_control_died_goes_with_the_next_start(node: Node) -> None:
    machine, layer, instance = "tpl_0123456789abcdef", "ab" * 16, node.instance
    disk, folder = instance.layers / layer, instance.vm_data(machine)
    disk.write_bytes(draw([], 1 << 30).tables)
    folder.mkdir(mode=0o711)
    for place in (disk, folder):
        instance.give_to_control(place)
    await node.helper.disk_own(machine, NUMBER, layer)
    begun = await node.helper.spawn(
        machine, NUMBER, 1, 256, "tiny", Accel.TCG, layer, template="cd" * 16, waits=True,
    )
    assert begun.running and len(memory_of_templates(node)) == 1
    driver = await node.driver()
    assert not Path(f"/proc/{begun.pid}").exists() and memory_of_templates(node) == []
    for place in (instance.run / "vm", instance.data / "vms", instance.layers):
        assert [*place.iterdir()] == [], place
    await driver.close()


@pytest.mark.timeout(900)  # the image may have to be built first
async def test_a_copy_of_a_settled_system_is_a_system_of_its_own(
    image_store: ImageStore, boot: BootFiles, ussyuntu: Image, monkeypatch: pytest.MonkeyPatch,
) -> None:
    """systemd, its journal and the user's services had started in the template, as nobody's."""
    shown = "printenv NUMBER QUOTED"
    async with running_node(image_store, boot) as node:
        driver = await node.driver(limits=Limits(2048, ("ussyuntu", 1, 512)))
        await templates(driver, 2, seconds=200)
        env = (("NUMBER", "7"), ("QUOTED", "a\"b$c%d"))
        plain, given = (one_of(n, image="ussyuntu", memory_mib=512) for n in (2, 3))
        plain, given = replace(plain, env=()), replace(given, env=env)
        await made(driver, plain, given)
        assert driver.templates.figures.forked == 2
        told = [(await says(driver, f"{WHO}; cat /proc/uptime", one.vm)).splitlines() for one in (plain, given)]
        assert len(told[0]) == 8 and not set(told[0]) & set(told[1]), told
        for one in (plain, given):
            assert await says(driver, "systemctl is-system-running; systemctl --user is-system-running", one.vm) == (
                "running\nrunning")
        for how in (shown, f"bash -lc '{shown}'", f"sudo systemd-run --quiet --wait --pipe {shown}",
                    f"systemd-run --user --quiet --wait --pipe {shown}"):
            assert await says(driver, how, given.vm) == "7\na\"b$c%d", how
        key = "sudo systemctl start ssh-host-key; cut -d' ' -f2 /etc/ssh/ssh_host_ed25519_key.pub"
        assert await says(driver, key, plain.vm) != await says(driver, key, given.vm)
        begun = "sudo journalctl -b -q -o cat -u systemd-journald"
        async with asyncio.timeout(60):
            while "Journal started" not in await says(driver, begun, plain.vm):
                await asyncio.sleep(0.5)
        entries = "sudo journalctl -q -o cat | wc -l; ls /var/log/journal; cat /etc/machine-id"
        count, *ids = (await says(driver, entries, plain.vm)).splitlines()
        assert int(count) > 20 and ids == [told[0][1]] * 2
        cold = replace(given, boot=2)
        await driver.stop(given.vm)
        await driver.start(cold)
        await until(driver, given.vm, Phase.RUNNING)
        assert (driver.templates.figures.forked, driver.templates.figures.failed) == (3, 0)
        again = (await says(driver, WHO, given.vm)).splitlines()
        assert again[:3] == told[1][:3] and again[3] not in (told[0][3], told[1][3])
        await driver.close()
        await spares_become_vms_and_nothing_is_left_of_others(node)
        driver = await node.driver(limits=Limits(2048, ("ussyuntu", 1, 512)))
        monkeypatch.setattr(machine, "FORK_SECONDS", 0.0)
        late = one_of(4, image="ussyuntu", memory_mib=512)
        await made(driver, late)
        assert driver.templates.figures.failed == 2, "neither the system nor the kernel said in time that it was well"
        assert await says(driver, "hostname; cat /etc/machine-id; echo $NUMBER", late.vm) == (
            f"demo4\n{hashlib.sha256(late.vm.encode()).hexdigest()[:32]}\n4"), "so it booted from its image"
        await driver.close()


async def spares_become_vms_and_nothing_is_left_of_others(node: Node) -> None:
    """On a node that has the templates already."""
    stock = Stock("ussyuntu", 1, 512, 5, 2)
    driver = await node.driver(limits=Limits(2048, ("ussyuntu", 1, 512)), spares=stock)
    first, second = await standing(driver, 2)
    known = {one.vm for one in await driver.seen()}
    assert not {first.vm, second.vm} & known, "nobody is told of machines that are nobody's"
    assert await driver.claim("ussyuntu", 1, 1024, 5) is None and await driver.claim("debian-min", 1, 512, 5) is None
    taken = [await driver.claim("ussyuntu", 1, 512, 7) for _ in range(2)]
    assert taken == [first, second] and await driver.claim("ussyuntu", 1, 512, 5) is None
    vms = [
        replace(one_of(one.number, image="ussyuntu", memory_mib=512), vm=one.vm, env=(), disk_gib=7)
        for one in taken if one is not None
    ]
    pids = [process_of(node, vm.vm) for vm in vms]
    await made(driver, *vms)
    assert [process_of(node, vm.vm) for vm in vms] == pids, "they did not start again"
    told = [(await says(driver, WHO, vm.vm)).splitlines() for vm in vms]
    assert len(told[0]) == 7 and not set(told[0]) & set(told[1]), told
    for vm, said in zip(vms, told, strict=True):
        assert (said[0], said[1]) == (vm.name, hashlib.sha256(vm.vm.encode()).hexdigest()[:32])
        address = driver.guest_address(vm.vm)
        assert address is not None and address.secret == vm.secret, "not that of the time when it was nobody's"
        assert await says(driver, "systemctl is-system-running", vm.vm) == "running"
    keys = "sudo systemctl start ssh-host-key; cut -d' ' -f2 /etc/ssh/ssh_host_ed25519_key.pub"
    assert await says(driver, keys, vms[0].vm) != await says(driver, keys, vms[1].vm)
    async with asyncio.timeout(60):
        while int(await says(driver, "df -k --output=size / | tail -1", vms[0].vm)) < 6 << 20:
            await asyncio.sleep(0.5)
    third, fourth = await standing(driver, 2)
    unwanted = await driver.claim("ussyuntu", 1, 512, 5)
    assert unwanted == third
    await driver.give_back(third)
    os.kill(process_of(node, fourth.vm), signal.SIGKILL)
    await standing(driver, 2, without={third, fourth})
    for gone in (third, fourth):
        assert not node.instance.vm_run(gone.vm).exists() and not node.instance.vm_data(gone.vm).exists()
    kept = process_of(node, vms[0].vm)
    driver.spares = Spares(stock, node.clock, *5 * [None])  # type: ignore[list-item]  # a control that is killed ends none
    left = [place.name for place in (node.instance.run / "vm").iterdir() if place.name.startswith("vm_")]
    assert len(left) > 2
    await driver.close()
    driver = await node.driver(limits=Limits(2048, ("ussyuntu", 1, 512)))
    there = {place.name for place in (node.instance.run / "vm").iterdir() if place.name.startswith("vm_")}
    assert there & set(left) == there and not there - {one.vm for one in await driver.seen()}
    assert process_of(node, vms[0].vm) == kept
    for vm in vms:
        await driver.destroy(vm.vm)
    await driver.close()


async def standing(driver: QemuDriver, count: int, without: Collection[Spare] = ()) -> list[Spare]:
    """The spares, once there are so many of them, none of `without`."""
    async with asyncio.timeout(60):
        while len(ready := driver.spares.ready) != count or set(ready) & set(without):
            await asyncio.sleep(0.05)
    return ready


def process_of(node: Node, vm: str) -> int:
    """Pid of its QEMU."""
    record = processes.read(node.instance.vm_run(vm))
    assert record is not None
    return record.pid
