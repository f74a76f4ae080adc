"""From `new` to the first answered command, with the driver alone as the floor; bytes through `demo@host`."""
from __future__ import annotations

import asyncio
import os
import shutil
import socket
import statistics
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bench.report import Report
from tests.contract.check_driver import until, want
from tests.live.node import running_node
from tests.live.rig import Platform, platform
from ussycode.runtime.driver import Phase
from ussycode.runtime.images.store import ImageStore
from ussycode.runtime.kernel import BootFiles, boot_files

ROUNDS = 5
MEBIBYTES = 100


def live_folder() -> Path:
    """Where kernel and images are kept between runs, shared with the live tests."""
    return Path(os.environ.get("LIVE_TEST_DATA", f"/var/tmp/ussycode-live-{os.getuid()}"))


def run(report: Report) -> None:
    """All figures of this bench."""
    live = live_folder()
    live.mkdir(parents=True, exist_ok=True)
    boot, images = boot_files(live / "cache"), ImageStore(live / "images")
    for name in ("debian-min", "ussyuntu"):
        images.ensure(name)
        report.add(f"driver alone, start to agent configured ({name})", "s", asyncio.run(_driver(images, boot, name)))
        with tempfile.TemporaryDirectory(dir=live) as folder, _platform(Path(folder), live, name) as place:
            _new(report, place, name)
            if name == "debian-min":
                _memory(report, place)
                _bytes(report, place)
                _beside_a_glutton(report, place)


@contextmanager
def _platform(folder: Path, live: Path, image: str) -> Iterator[Platform]:
    folder.chmod(0o711)
    home = folder / "home"
    home.mkdir()
    with platform(folder / "data", home, live, "--default-image", image) as place:
        yield place


async def _driver(images: ImageStore, boot: BootFiles, image: str) -> list[float]:
    taken = []
    async with running_node(images, boot) as node:
        driver = await node.driver()
        for number in range(ROUNDS):
            one = want(vm=f"vm_bench{number}", number=10 + number, image=image)
            await driver.prepare(one)
            began = time.monotonic()
            await driver.start(one)
            await until(driver, one.vm, Phase.RUNNING)
            taken.append(time.monotonic() - began)
            await driver.destroy(one.vm)
        await driver.close()
    return taken


def _new(report: Report, place: Platform, image: str) -> None:
    made, answered = [], []
    for number in range(ROUNDS):
        name, began = f"bench-{'abcdefgh'[number]}", time.monotonic()
        done = place.lobby("new", "--name", name, seconds=120)
        assert done.status == 0, done.err
        made.append(time.monotonic() - began)
        assert place.ssh(f"{name}@localhost", "true").status == 0
        answered.append(time.monotonic() - began)
        place.lobby("rm", name)
    report.add(f"`ssh host new` returns ({image})", "s", made)
    report.add(f"`new` to the first answered `ssh VM true` ({image})", "s", answered)


def _memory(report: Report, place: Platform) -> None:
    import json

    pids = json.loads(place.ussycode("status", "--json").out)["processes"]
    for role in ("control", "edge0", "helper"):
        rollup = Path(f"/proc/{pids[role]}/smaps_rollup").read_text()
        pss = next(int(line.split()[1]) for line in rollup.splitlines() if line.startswith("Pss:"))
        report.add(f"memory of {role}, idle (PSS)", "MiB", [pss / 1024])


def _bytes(report: Report, place: Platform) -> None:
    assert place.lobby("new", "--name", "bulk", seconds=120).status == 0
    down = f"head -c {MEBIBYTES}M /dev/zero"
    with _plain_sshd(place) as port:
        for _ in range(3):
            for what, argv in (
                ("guest", ("-p", str(place.ports["ssh"]), "bulk@localhost")),
                ("plain sshd on the host", ("-p", str(port), "root@127.0.0.1")),
            ):
                _note(report, f"down through {what}", place, argv, down, b"")
                _note(report, f"up through {what}", place, argv, "cat >/dev/null", bytes(MEBIBYTES << 20))
    place.lobby("rm", "bulk")


def _note(report: Report, what: str, place: Platform, argv: tuple[str, ...], command: str, stdin: bytes) -> None:
    began = time.monotonic()
    done = place.program("ssh", *argv, command, stdin=stdin, seconds=120)
    assert done.status == 0, done.err
    rate = MEBIBYTES / (time.monotonic() - began)
    found = [values for name, _, values in report.rows if name == what]
    found[0].append(rate) if found else report.add(what, "MiB/s", [rate])


GREED = """
import os, threading, time
def burn():
    while True: pass
def write():
    with open("/var/tmp/greed", "wb", buffering=0) as file:
        while True:
            file.write(os.urandom(1 << 20))
            if file.tell() > 1 << 28: os.fsync(file.fileno()); file.seek(0)
held = []
try:
    while len(held) < 3000: held.append(bytearray(os.urandom(1 << 10) * 64))
except MemoryError: pass
for _ in range(20):
    if not os.fork(): burn()
threading.Thread(target=write).start(); burn()
"""
"""CPU, memory, processes and disk, as much as there is."""


def _beside_a_glutton(report: Report, place: Platform) -> None:
    """A command in one VM, alone and while another one eats everything it can."""
    for name in ("calm", "greedy"):
        assert place.lobby("new", "--name", name, seconds=120).status == 0
    alone = [_answered(place) for _ in range(4 * ROUNDS)]
    words = "cat > /tmp/greed.py; (setsid python3 /tmp/greed.py >/dev/null 2>&1 </dev/null &)"
    assert place.ssh("greedy@localhost", words, stdin=GREED.encode()).status == 0
    time.sleep(5)  # until it has begun with everything; nothing tells
    beside = [_answered(place) for _ in range(4 * ROUNDS)]
    report.add("`ssh VM true`, nothing beside it", "s", alone)
    report.add("`ssh VM true` beside a VM that eats all it can", "s", beside)
    ratio = statistics.median(beside) / statistics.median(alone)
    report.notes.append(f"a command beside a greedy VM takes {ratio:.2f} x what it takes alone")
    for name in ("calm", "greedy"):
        place.lobby("rm", name, "--now", seconds=60)


def _answered(place: Platform) -> float:
    began = time.monotonic()
    assert place.ssh("calm@localhost", "true").status == 0
    return time.monotonic() - began


@contextmanager
def _plain_sshd(place: Platform) -> Iterator[int]:
    """Debian's sshd on loopback, unpacked and not installed, for as long as the block runs."""
    folder = Path(tempfile.mkdtemp(prefix="ussycode-sshd-"))
    subprocess.run(["apt-get", "download", "-qq", "openssh-server"], cwd=folder, check=True, timeout=120)
    subprocess.run(["dpkg-deb", "-x", next(folder.glob("*.deb")), "."], cwd=folder, check=True)
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", folder / "host"], check=True)
    shutil.copy(place.home / "admin.pub", folder / "authorized")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    Path("/run/sshd").mkdir(exist_ok=True)
    words = ["ListenAddress=127.0.0.1", f"Port={port}", f"HostKey={folder}/host", "UsePAM=no", "PermitRootLogin=yes",
             f"AuthorizedKeysFile={folder}/authorized", "StrictModes=no", f"PidFile={folder}/pid"]
    options = [x for w in words for x in ("-o", w)]
    server = subprocess.Popen([folder / "usr/sbin/sshd", "-D", "-f", "/dev/null", *options])
    try:
        deadline = time.monotonic() + 10
        while place.program("ssh", "-p", str(port), "root@127.0.0.1", "true").status and time.monotonic() < deadline:
            time.sleep(0.05)
        yield port
    finally:
        server.terminate()
        server.wait(10)
        shutil.rmtree(folder)
