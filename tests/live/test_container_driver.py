"""Real containers: the same contract and commands as VMs, behind walls that are looked at from inside."""
from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from tests.contract.check_driver import check_driver, look, until, want
from tests.live.node import BOOT_SECONDS, Node, running_node
from ussycode.agent.link import LocalLink
from ussycode.base.clock import SystemClock
from ussycode.base.errors import Failure
from ussycode.runtime.driver import Isolation, Origin, OriginKind, Phase, Want
from ussycode.runtime.drivers.container.box import GROWS_LATER
from ussycode.runtime.drivers.container.driver import ContainerDriver
from ussycode.runtime.drivers.container.errors import FOREIGN_DISK, UNSUPPORTED
from ussycode.runtime.guest.execs import ExecSpec, Exit, Stderr, Stdout
from ussycode.runtime.images.store import Image, ImageStore
from ussycode.runtime.instance import Instance
from ussycode.runtime.kernel import BootFiles
from ussycode.runtime.net import taps
from ussycode.runtime.privileged.container_client import ContainerClient

pytestmark = pytest.mark.timeout(120)
VM = want().vm


@dataclass
class Boxes:
    """A node on which containers are enabled."""

    node: Node
    drivers: list[ContainerDriver] = field(default_factory=list)

    @property
    def instance(self) -> Instance:
        return self.node.instance

    async def driver(self) -> ContainerDriver:
        """An opened driver, as a fresh control process would make it."""
        helper = ContainerClient(self.instance.helper_socket)
        made = ContainerDriver(self.instance, self.node.images, helper, SystemClock(), BOOT_SECONDS)
        await made.open()
        self.drivers.append(made)
        return made

    async def running(self, **changes: object) -> ContainerDriver:
        """A driver with one running container."""
        driver, one = await self.driver(), boxed(**changes)
        await driver.prepare(one)
        await driver.start(one)
        await until(driver, one.vm, Phase.RUNNING)
        return driver


def boxed(**changes: object) -> Want:
    return want(**{"isolation": Isolation.CONTAINER, "memory_mib": 128, **changes})


def share_images(node: Node, images: ImageStore) -> None:
    """Let root's helper find the images of all live tests where a node keeps its own."""
    shutil.rmtree(node.instance.data / "images", ignore_errors=True)
    (node.instance.data / "images").symlink_to(images.root)


@pytest.fixture
async def boxes(image_store: ImageStore, boot: BootFiles, debian_min: Image) -> AsyncIterator[Boxes]:
    async with running_node(image_store, boot) as node:
        share_images(node, image_store)
        made = Boxes(node)
        try:
            yield made
        finally:
            last = await made.driver()
            for one in await last.seen():
                await last.destroy(one.vm)
            for driver in made.drivers:
                await driver.close()


async def says(driver: ContainerDriver, command: str, vm: str = VM, user: str = "", status: int = 0) -> str:
    """What a command prints inside; it must end with `status`."""
    spec = ExecSpec(cmd=command, login=True, user=user) if user else ExecSpec(cmd=command, login=True)
    out = b""
    async for event in await LocalLink(driver).open_exec(vm, spec):
        if isinstance(event, Stdout | Stderr):
            out += event.data
        if isinstance(event, Exit):
            assert event.status == status, (command, event, out)
    return out.decode().strip()


async def ended(driver: ContainerDriver, *phases: Phase) -> None:
    async with asyncio.timeout(60):
        while (await look(driver, VM)).phase not in phases:
            await asyncio.sleep(0.02)


def nothing_left(instance: Instance) -> None:
    """No interface, process, mount, loop device, cgroup or file of any container made here.

    The helper removed at its start what groups others had left in this slot.
    """
    mounts = Path("/proc/self/mounts").read_text()
    loops = subprocess.run(["losetup", "-l", "-n", "-O", "BACK-FILE"], capture_output=True, text=True, check=True)
    assert taps.leftover(instance) == []
    assert list((instance.run / "vm").iterdir()) == []
    assert list((instance.data / "vms").iterdir()) == []
    assert str(instance.run) not in mounts
    assert str(instance.data) not in loops.stdout
    assert list(Path("/sys/fs/cgroup").glob(f"**/ussycode-{instance.slot}/vm-*")) == []
    assert list((instance.data / "containers" / "vms").iterdir()) == []


async def test_containers_keep_the_contract_and_leave_nothing(boxes: Boxes) -> None:
    await check_driver(boxes.driver)
    nothing_left(boxes.instance)


async def test_new_to_first_answer(boxes: Boxes) -> None:
    """Printed for the record; the bound only says that it is no boot."""
    driver, taken = await boxes.driver(), []
    for number in range(2, 7):
        one, began = boxed(vm=f"vm_newcontainer{number}aa", number=number), time.monotonic()
        await driver.prepare(one)
        await driver.start(one)
        while (address := driver.guest_address(one.vm)) is None:
            await asyncio.sleep(0.001)
        assert address.secret == one.secret
        assert await says(driver, "echo up", one.vm) == "up"
        taken.append(time.monotonic() - began)
    print(f"new to the first answer: {sorted(round(1000 * t) for t in taken)} ms")
    assert min(taken) < 10
    images = subprocess.run(["losetup", "-l", "-n", "-O", "BACK-FILE"], capture_output=True, text=True, check=True)
    assert images.stdout.count("debian-min") == 1, "all of them share one mount of their image, and its cache"
    await driver.destroy("vm_newcontainer2aa")


async def test_a_container_is_who_it_was_told_to_be(boxes: Boxes) -> None:
    driver = await boxes.running()
    assert await says(driver, "hostname; id -un; echo $GREETING") == "demo\nussy\nhello there"
    assert await says(driver, "grep -c 169.254.1.1 /etc/resolv.conf") == "1"
    assert await says(driver, "echo $(df -B1G --output=size /)") == "1G-blocks 5"
    assert await says(driver, "sudo id -u; sudo sh -c 'echo x > /root/x; cat /root/x'") == "0\nx"
    screen = await LocalLink(driver).open_exec(VM, ExecSpec(cmd="stty size; tty", pty=True, rows=30, cols=100))
    shown = b"".join([event.data async for event in screen if isinstance(event, Stdout)])
    assert shown == b"30 100\r\n/dev/pts/0\r\n"
    await driver.update(boxed(name="renamed"))
    assert await says(driver, "hostname; cat /etc/hostname") == "renamed\nrenamed"
    sample = await driver.sample(VM)
    assert sample is not None
    assert 0 < sample.memory_used < sample.memory_total == 128 << 20
    assert sample.fs_total > 4 << 30
    assert sample.net_rx > 0


async def test_walls_seen_from_inside(boxes: Boxes) -> None:
    """A root inside has no right outside: no capability, no device, no mount, no process of the host."""
    driver = await boxes.running()
    status = dict(line.split(":\t", 1) for line in (await says(driver, "cat /proc/self/status", user="root"))
                  .splitlines())
    assert (status["Seccomp"].strip(), status["CapAmb"]) == ("2", "0" * 16)
    assert int(status["CapEff"], 16) & sum(1 << n for n in (2, 12, 14, 16, 17, 19, 20, 21, 23, 24, 25, 27)) == 0
    mapped = (await says(driver, "cat /proc/self/uid_map")).split()
    assert mapped == ["0", str(boxes.instance.container_uids(2)), "65536"]
    assert (await says(driver, "cat /proc/1/comm; ls /proc | grep -c '^[0-9]'", user="root")).startswith("ussy-init\n")
    await says(driver, f"ls /proc/{os.getpid()}", user="root", status=2)
    mounts = await says(driver, "cat /proc/self/mountinfo")
    assert str(boxes.instance.data) not in mounts
    assert str(boxes.instance.run) not in mounts
    await says(driver, "mknod /tmp/disk b 254 0", user="root", status=1)
    await says(driver, "unshare --user true", status=1)
    await says(driver, "echo 1 > /proc/sys/kernel/panic", user="root", status=1)
    await says(driver, "ip addr add 10.9.9.9/32 dev eth0", user="root", status=2)
    await says(driver, "readlink /proc/$(pgrep -o -f @ussy)/fd/1", user="root", status=1)
    assert await says(driver, "ls /dev") == "fd\nfull\nnull\nptmx\npts\nrandom\nshm\nstderr\nstdin\nstdout\ntty\n" \
        "urandom\nussy-init\nzero"


async def test_it_is_a_stranger_on_the_host(boxes: Boxes) -> None:
    driver = await boxes.running()
    pid, first = (await look(driver, VM)).pid, boxes.instance.container_uids(2)
    status = dict(line.split(":\t", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    assert status["Uid"].split() == status["Gid"].split() == [str(first)] * 4
    for kind in ("mnt", "pid", "net", "ipc", "uts", "user", "cgroup"):
        assert Path(f"/proc/{pid}/ns/{kind}").readlink() != Path(f"/proc/self/ns/{kind}").readlink(), kind
    assert boxes.instance.tap(2) in taps.leftover(boxes.instance)
    used = await boxes.node.helper.usage(VM, 2)
    assert 0 < used.memory < 128 << 20
    folder = boxes.instance.container(VM)
    assert (folder.stat().st_uid, folder.stat().st_mode & 0o777) == (0, 0o700)


async def test_memory_and_processes_are_bounded(boxes: Boxes) -> None:
    driver = await boxes.running()
    eats = "python3 -c 'x = bytearray(300 << 20); print(len(x))'"
    assert "137" in (await says(driver, f"{eats}; echo $?")).splitlines()
    assert (await look(driver, VM)).phase is Phase.RUNNING
    limit = Path("/sys/fs/cgroup/pids") / f"ussycode-{boxes.instance.slot}/vm-2/pids.max"
    unified = Path("/sys/fs/cgroup") / f"ussycode-{boxes.instance.slot}/vm-2/pids.max"
    assert (limit if limit.exists() else unified).read_text() == "4096\n"


async def test_what_init_says_is_kept_and_cannot_fill_the_host(boxes: Boxes) -> None:
    driver = await boxes.running()
    await says(driver, "echo hello there > /proc/1/fd/1", user="root")
    async with asyncio.timeout(20):
        while "hello there" not in driver.console(VM):
            await asyncio.sleep(0.02)
    await says(driver, "head -c 20000000 /dev/zero > /proc/1/fd/1", user="root")
    log = boxes.instance.vm_data(VM) / "console.log"
    assert log.stat().st_size < 1 << 20
    assert (log.stat().st_uid, log.stat().st_mode & 0o777) == (boxes.instance.control_uid, 0o600)


async def test_control_may_die_and_come_back(boxes: Boxes) -> None:
    first = await boxes.running()
    before = await look(first, VM)
    await says(first, "echo kept > ~/note")
    await first.close()
    second = await boxes.driver()
    after = await look(second, VM)
    assert (after.phase, after.pid, after.address) == (Phase.RUNNING, before.pid, before.address)
    assert await says(second, "cat ~/note") == "kept"
    await second.stop(VM)
    assert not Path(f"/proc/{before.pid}").exists()


async def test_the_helper_may_be_killed_and_containers_live_on(boxes: Boxes) -> None:
    driver, process = await boxes.running(), boxes.node.process
    assert process.pid is not None
    os.kill(process.pid, signal.SIGKILL)
    process.join(10)
    assert await says(driver, "echo alive") == "alive"
    boxes.node.start_helper()
    await driver.destroy(VM)
    nothing_left(boxes.instance)


async def test_a_guest_may_power_itself_off_and_restart_itself(boxes: Boxes) -> None:
    driver = await boxes.running()
    before = (await look(driver, VM)).pid
    await _run_to_the_end(driver, "echo kept > ~/note; sync; sudo python3 -c 'import ctypes; "
                                  "ctypes.CDLL(None).reboot(0x1234567)'")
    async with asyncio.timeout(60):
        while (await look(driver, VM)).pid in (before, 0):
            await asyncio.sleep(0.02)
    await until(driver, VM, Phase.RUNNING)
    assert await says(driver, "cat ~/note") == "kept"
    await _run_to_the_end(driver, "sudo python3 -c 'import ctypes; ctypes.CDLL(None).reboot(0x4321FEDC)'")
    await ended(driver, Phase.STOPPED)
    assert (await look(driver, VM)).detail == "the guest powered itself off"


async def test_a_killed_container_has_failed_and_starts_again(boxes: Boxes) -> None:
    driver = await boxes.running()
    await says(driver, "echo kept > ~/note; sync")
    os.kill((await look(driver, VM)).pid, signal.SIGKILL)
    await ended(driver, Phase.FAILED)
    assert "SIGKILL" in (await look(driver, VM)).detail
    await driver.start(boxed(boot=2))
    await until(driver, VM, Phase.RUNNING)
    assert await says(driver, "cat ~/note") == "kept"


async def test_containers_start_again_after_the_host_went_down(boxes: Boxes) -> None:
    """A boot of the host: every process is gone, and so is all of /run."""
    first = await boxes.running()
    await says(first, "echo kept > ~/note; sync")
    pid = (await look(first, VM)).pid
    await first.close()
    os.kill(pid, signal.SIGKILL)
    async with asyncio.timeout(20):
        while Path(f"/proc/{pid}").exists():
            await asyncio.sleep(0.02)
    shutil.rmtree(boxes.instance.vm_run(VM))
    second = await boxes.driver()
    assert ((await look(second, VM)).phase, (await look(second, VM)).boot) == (Phase.PREPARED, 0)
    await second.start(boxed())
    await until(second, VM, Phase.RUNNING)
    assert await says(second, "cat ~/note") == "kept"


async def test_systemd_boots_whole(boxes: Boxes, ussyuntu: Image) -> None:
    """The default image, as it is: no unit fails, services and user managers work, and it shuts down by itself."""
    driver = await boxes.running(image="ussyuntu", memory_mib=512)
    async with asyncio.timeout(60):
        while await says(driver, "systemctl is-system-running || true") not in ("running", "degraded"):
            await asyncio.sleep(0.1)
    assert await says(driver, "systemctl is-system-running; systemctl --failed --plain --no-legend") == "running"
    assert await says(driver, "systemd-run --user --wait --quiet --pipe id -un", user="ussy") == "ussy"
    assert await says(driver, "sudo systemctl start nginx && curl -s -o /dev/null -w %{http_code} localhost") == "200"
    await _run_to_the_end(driver, "sudo poweroff; sleep 30")
    await ended(driver, Phase.STOPPED)
    assert (await look(driver, VM)).detail == "the guest powered itself off"


async def test_snapshots_copies_and_growth(boxes: Boxes) -> None:
    driver = await boxes.running(disk_gib=2)
    await says(driver, "echo first > ~/note; sudo mkdir -p /etc/ssh; echo old | sudo tee /etc/ssh/ssh_host_rsa_key")
    await driver.keep_snapshots(boxed(snapshots=("snap_one",)))
    await driver.keep_snapshots(boxed(snapshots=("snap_one",)))
    await says(driver, "echo second > ~/note")
    assert [one.id for one in (await look(driver, VM)).snapshots] == ["snap_one"]
    copied = boxed(vm="vm_copycopycopyaaaa", number=3, name="copy", origin=Origin(OriginKind.VM, VM))
    old = boxed(vm="vm_oldoldoldoldaaaa", number=4, origin=Origin(OriginKind.SNAPSHOT, VM, "snap_one"))
    for one in (copied, old):
        await driver.prepare(one)
        await driver.start(one)
        await until(driver, one.vm, Phase.RUNNING)
    assert await says(driver, "cat ~/note; hostname", copied.vm) == "second\ncopy"
    own = [await says(driver, "cat /etc/machine-id", vm) for vm in (VM, copied.vm, old.vm)]
    assert len(set(own)) == 3, "no two machines have one identity"
    keys = [await says(driver, "sudo sh -c 'cat /etc/ssh/ssh_host_*_key'", vm) for vm in (VM, copied.vm, old.vm)]
    assert keys[0] == "old" and len(set(keys)) == 3 and all("OPENSSH" in key for key in keys[1:])
    assert await says(driver, "cat ~/note; stat -c %U ~/note", old.vm) == "first\nussy"
    await driver.grow(boxed(disk_gib=4))
    assert (await look(driver, VM)).disk_gib == 4
    if (await look(driver, VM)).notice == GROWS_LATER:  # a host whose root may not do it online
        await driver.stop(VM)
        await driver.start(boxed(boot=2, disk_gib=4))
        await until(driver, VM, Phase.RUNNING)
    assert int(await says(driver, "df -B1M --output=size / | tail -1")) > 3800
    again = boxed(boot=3, disk_turn=2, origin=Origin(OriginKind.SNAPSHOT, VM, "snap_one"), disk_gib=4)
    await driver.prepare(again)
    await driver.start(again)
    await until(driver, VM, Phase.RUNNING)
    assert await says(driver, "cat ~/note") == "first", "restored"
    assert await says(driver, "cat /etc/machine-id") == own[0]
    await driver.keep_snapshots(boxed(dropped=("snap_one",)))
    assert (await look(driver, VM)).snapshots == ()
    await driver.stop(VM)
    await driver.grow(boxed(disk_gib=5))
    with (boxes.instance.container(VM) / "disk.img").open("rb") as disk:
        blocks = int.from_bytes(os.pread(disk.fileno(), 4, 1028), "little")
    assert blocks * 4096 == 5 << 30, "grown at once, so that the next start need not wait for it"


async def test_copying_a_disk_keeps_nobody_waiting(boxes: Boxes) -> None:
    """The helper answers others while a disk of some size is copied, and that copy is whole."""
    driver = await boxes.running()
    await says(driver, "head -c 150000000 /dev/urandom > ~/much; sync; sha256sum ~/much > ~/sum")
    copied = boxed(vm="vm_copycopycopyaaaa", number=3, origin=Origin(OriginKind.VM, VM))
    copying = asyncio.create_task(driver.prepare(copied))
    answers = 0
    while not copying.done():
        await boxes.node.helper.look(VM, 2)
        answers += 1
    await copying
    await driver.start(copied)
    await until(driver, copied.vm, Phase.RUNNING)
    assert await says(driver, "sha256sum -c ~/sum", copied.vm) == "/home/ussy/much: OK"
    print(f"{answers} answers while the disk was copied")
    assert answers > 3


async def test_a_container_held_still_by_a_copy_that_was_killed_goes_on(boxes: Boxes) -> None:
    first = await boxes.running()
    await first.close()
    runc = ["runc", "--root", str(boxes.instance.vm_run(VM) / "runc"), "pause", VM]
    subprocess.run(runc, check=True, capture_output=True, timeout=20)
    second = await boxes.driver()
    assert await says(second, "echo going on") == "going on"


async def test_what_containers_cannot_do_is_said(boxes: Boxes) -> None:
    driver = await boxes.running()
    with pytest.raises(Failure) as paused:
        await driver.pause(boxed())
    other = boxed(vm="vm_livecopylivecopy", number=3)
    with pytest.raises(Failure) as live:
        await driver.prepare(replace(other, origin=Origin(OriginKind.VM, VM, memory=True)))
    with pytest.raises(Failure) as foreign:
        await driver.prepare(replace(other, origin=Origin(OriginKind.VM, "vm_avirtualmachine")))
    assert [f.value.error for f in (paused, live, foreign)] == [UNSUPPORTED, UNSUPPORTED, FOREIGN_DISK]
    assert "shares the host's kernel" in paused.value.sentence
    assert (await look(driver, VM)).phase is Phase.RUNNING


async def _run_to_the_end(driver: ContainerDriver, command: str) -> None:
    """Run what ends the guest; the stream may break at any point."""
    stream = await LocalLink(driver).open_exec(VM, ExecSpec(cmd=command, login=True))
    try:
        async for _ in stream:
            pass
    except Failure as failure:
        print(f"the stream ended with the guest: {failure.sentence}")


