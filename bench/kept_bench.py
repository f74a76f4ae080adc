"""What keeps VMs: copies, snapshots, pauses, wakes, warm commands, files by scp; each with its floor.

The floor of a command is the driver alone, without lobby, database and reconciler; of bytes and commands through the
gateway, a bare program on the agent's own stream.
"""
from __future__ import annotations

import asyncio
import sqlite3
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from bench.report import Report
from bench.vm_bench import live_folder
from tests.contract.check_driver import until, want
from tests.live.node import Node, running_node
from tests.live.rig import Done, Platform, platform
from tests.live.rig import until as answering
from ussycode.runtime.driver import Origin, OriginKind, Phase
from ussycode.runtime.drivers.qemu.driver import QemuDriver
from ussycode.runtime.guest import execs
from ussycode.runtime.guest.execs import ExecSpec
from ussycode.runtime.guest.streams import GuestAddress
from ussycode.runtime.images.store import ImageStore
from ussycode.runtime.kernel import boot_files

ROUNDS, WARM = 5, 30
WRITTEN_MIB, SCP_MIB = 1024, 512
GAPS = r"""
import time
worst, last, end = 0.0, time.monotonic(), time.monotonic() + 6
while time.monotonic() < end:
    time.sleep(0.001); now = time.monotonic(); worst = max(worst, now - last); last = now
print(worst)
"""
"""Says the longest time for which its machine stood still."""


def run(report: Report) -> None:
    """All figures of this bench."""
    live = live_folder()
    live.mkdir(parents=True, exist_ok=True)
    boot, images = boot_files(live / "cache"), ImageStore(live / "images")
    images.ensure("debian-min")
    asyncio.run(_floors(report, images, boot))
    with tempfile.TemporaryDirectory(dir=live) as folder:
        Path(folder).chmod(0o711)
        home = Path(folder) / "home"
        home.mkdir()
        with platform(Path(folder) / "data", home, live, "--default-image", "debian-min") as place:
            done = place.lobby("new", "--name", "kept", "--disk", "8G", "--wake", seconds=120)
            assert done.status == 0, done.err
            fill = f"head -c {WRITTEN_MIB}M /dev/urandom > big; sync"
            assert place.ssh("kept@localhost", fill, seconds=300).status == 0
            _keeping(report, place)
            _pausing(report, place)
            _warm(report, place)
            asyncio.run(_bytes(report, place))


async def _floors(report: Report, images: ImageStore, boot: object) -> None:
    async with running_node(images, boot) as node:  # type: ignore[arg-type]
        driver, one = await node.driver(), want(disk_gib=8)
        await driver.prepare(one)
        await driver.start(one)
        await until(driver, one.vm, Phase.RUNNING)
        await _floor_of_copies(report, node, driver)
        await _floor_of_pauses(report, driver)
        await driver.close()


async def _floor_of_copies(report: Report, node: Node, driver: QemuDriver) -> None:
    snapshots, copies, names = [], [], []
    for number in range(ROUNDS):
        names.append(f"snap_{number}")
        snapshots.append(await _timed(driver.keep_snapshots(want(disk_gib=8, snapshots=tuple(names)))))
        copy = want(vm=f"vm_benchcopy{number}", number=20 + number, disk_gib=8, origin=Origin(OriginKind.VM, want().vm))
        began = time.monotonic()
        await driver.prepare(copy)
        await driver.start(copy)
        await until(driver, copy.vm, Phase.RUNNING)
        copies.append(time.monotonic() - began)
        await driver.destroy(copy.vm)
    report.add("snapshot: driver alone", "s", snapshots)
    report.add("cp to an answering copy: driver alone", "s", copies)


async def _floor_of_pauses(report: Report, driver: QemuDriver) -> None:
    pauses, resumes = [], []
    for _ in range(ROUNDS):
        pauses.append(await _timed(driver.pause(want(disk_gib=8))))
        began = time.monotonic()
        await driver.resume(want(disk_gib=8))
        await until(driver, want().vm, Phase.RUNNING)
        resumes.append(time.monotonic() - began)
    report.add("pause: driver alone", "s", pauses)
    report.add("resume: driver alone", "s", resumes)


async def _timed(doing: object) -> float:
    began = time.monotonic()
    await doing  # type: ignore[misc]
    return time.monotonic() - began


def _timed_now(doing: Callable[[], Done]) -> float:
    began = time.monotonic()
    done = doing()
    assert done.status == 0, done.err
    return time.monotonic() - began


def _keeping(report: Report, place: Platform) -> None:
    snapshots, gaps, copies, space = [], [], [], []
    for number in range(ROUNDS):
        probe = subprocess.Popen(
            ["ssh", "-p", str(place.ports["ssh"]), "kept@localhost", "python3 -"], stdin=subprocess.PIPE,
            stdout=subprocess.PIPE, env={"PATH": f"{place.person('admin')}:/usr/bin:/bin", "HOME": str(place.home)},
        )
        assert probe.stdin is not None and probe.stdout is not None
        probe.stdin.write(GAPS.encode())
        probe.stdin.close()
        time.sleep(1)  # it has to be under way; nothing announces it
        snapshots.append(_timed_now(lambda n=number: place.lobby("snapshot", "create", "kept", f"s{n}")))
        gaps.append(float(probe.stdout.read()))
        probe.wait(30)
        before, name = _used(place), f"copy-{'abcdefgh'[number]}"
        began = time.monotonic()
        done = place.lobby("cp", "kept", name, seconds=120)
        assert done.status == 0, done.err
        assert place.ssh(f"{name}@localhost", "true").status == 0
        copies.append(time.monotonic() - began)
        space.append(100 * (_used(place) - before) / (WRITTEN_MIB << 20))
        place.lobby("rm", name, "--now", seconds=60)
    report.add("`snapshot create` of a running VM", "s", snapshots)
    report.add("for so long the VM stood still", "s", gaps)
    report.add(f"`cp` of a VM with {WRITTEN_MIB} MiB to an answered command", "s", copies)
    report.add("disk that the copy took, of what was written", "%", space)


def _used(place: Platform) -> int:
    subprocess.run(["sync"], check=True)
    return sum(file.stat().st_blocks for file in (place.data / "layers").iterdir()) * 512


def _pausing(report: Report, place: Platform) -> None:
    serve = ("cd $(mktemp -d) && echo well > index.html && "
             "(setsid python3 -m http.server 8000 >/dev/null 2>&1 </dev/null &)")
    assert place.ssh("kept@localhost", serve).status == 0
    assert place.lobby("share", "set-public", "kept").status == 0
    answering(lambda: "well" in place.curl(place.url("kept.localhost")).out, 60, "the page")
    pauses, resumes, by_ssh, by_https, told, cold = [], [], [], [], [], []
    for _ in range(ROUNDS):
        pauses.append(_timed_now(lambda: place.lobby("pause", "kept")))
        resumes.append(_timed_now(lambda: place.lobby("resume", "kept")))
        place.lobby("pause", "kept")
        by_ssh.append(_timed_now(lambda: place.ssh("kept@localhost", "true")))
        place.lobby("pause", "kept")
        began = time.monotonic()
        got = place.curl("-D", "-", place.url("kept.localhost"), seconds=60)
        by_https.append(time.monotonic() - began)
        assert "well" in got.out, got
        told.append(float(got.out.lower().partition("wake;dur=")[2].split()[0]) / 1000)
    for _ in range(3):
        place.lobby("stop", "kept", seconds=60)
        cold.append(_timed_now(lambda: place.ssh("kept@localhost", "true")))
    report.add("`pause`", "s", pauses)
    report.add("`resume`", "s", resumes)
    report.add("wake of a paused VM by SSH, to an answered command", "s", by_ssh)
    report.add("wake of a paused VM by HTTPS, to the page", "s", by_https)
    report.add("  of which Server-Timing says waking", "s", told)
    report.add("wake of a stopped VM by SSH, to an answered command", "s", cold)


@contextmanager
def _connected(place: Platform) -> Iterator[list[str]]:
    """Words of an ssh that uses a connection that is open already."""
    socket = str(place.home / "warm")
    base = ["ssh", "-p", str(place.ports["ssh"]), "-o", f"ControlPath={socket}", "kept@localhost"]
    assert place.program(*base[:-1], "-o", "ControlMaster=yes", "-o", "ControlPersist=60", base[-1], "true").status == 0
    try:
        yield base
    finally:
        place.program(*base[:-1], "-O", "exit", base[-1])


def _warm(report: Report, place: Platform) -> None:
    with _connected(place) as base:
        words = [f"{place.person('admin')}/ssh", *base[1:], "true"]
        values = []
        for _ in range(WARM):
            began = time.monotonic()
            subprocess.run(words, check=True, timeout=30, stdin=subprocess.DEVNULL)
            values.append((time.monotonic() - began) * 1000)
    report.add("exec on a warm connection, `true`", "ms", values)


def _address(place: Platform) -> GuestAddress:
    """Where the VM's agent answers, as control knows it."""
    with sqlite3.connect(place.data / "control" / "ussycode.db") as db:
        address, secret = db.execute("SELECT address, secret FROM vms WHERE name = 'kept'").fetchone()
    return GuestAddress(address, secret)


async def _bytes(report: Report, place: Platform) -> None:
    address, file = _address(place), place.home / "bulk"
    with file.open("wb") as out:
        out.truncate(SCP_MIB << 20)
    bare_exec, bare_up, up, down = [], [], [], []
    for _ in range(WARM):
        bare_exec.append(await _timed(execs.run(address, ExecSpec(cmd="true"))) * 1000)
    for _ in range(3):
        spent = await _timed(execs.run(address, ExecSpec(cmd="cat > /tmp/bulk"), bytes(SCP_MIB << 20), timeout=600))
        bare_up.append(SCP_MIB / spent)
        for values, words in ((up, (str(file), "kept@localhost:bulk")), (down, ("kept@localhost:bulk", str(file)))):
            scp = ("scp", "-q", "-P", str(place.ports["ssh"]), *words)
            spent = await asyncio.to_thread(_timed_now, lambda scp=scp: place.program(*scp, seconds=600))
            values.append(SCP_MIB / spent)
    report.add("exec on the agent's stream, bare", "ms", bare_exec)
    report.add(f"a file of {SCP_MIB} MiB up, bare program on the agent's stream", "MiB/s", bare_up)
    report.add(f"a file of {SCP_MIB} MiB up by scp", "MiB/s", up)
    report.add(f"a file of {SCP_MIB} MiB down by scp", "MiB/s", down)
