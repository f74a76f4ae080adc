"""`new` as a copy and as a boot, alone, in a crowd and in a row, against the floor; what idle VMs weigh."""
from __future__ import annotations

import asyncio
import os
import statistics
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from bench import fork_floor
from bench.report import Report
from tests.live.node import running_node
from tests.live.rig import Platform, platform, until
from ussycode.runtime.drivers.qemu import saved
from ussycode.runtime.images.store import ImageStore
from ussycode.runtime.instance import load
from ussycode.runtime.kernel import BootFiles, boot_files
from ussycode.runtime.privileged import processes
from ussycode.runtime.tsc import tsc_khz

ROUNDS = int(os.environ.get("BENCH_ROUNDS", "7"))
CROWD = 10
MANY = int(os.environ.get("BENCH_VMS", "30"))
"""VMs that are there at the end."""
ASKED = 200
"""Calls of `whoami` of which the slowest hundredth counts."""
REST_SECONDS = 5
"""Before each `new` that is measured alone: what stands by is made again meanwhile."""
UP_SECONDS = 200
_LETTERS = "abcdefghijklmnopqrstuvwxyz"


def run(report: Report, images: tuple[str, ...] = ("ussyuntu", "debian-min")) -> None:
    """All figures; each image against the floor in the same run."""
    live = Path(os.environ.get("LIVE_TEST_DATA", f"/var/tmp/ussycode-live-{os.getuid()}"))
    live.mkdir(parents=True, exist_ok=True)
    boot, store = boot_files(live / "cache"), ImageStore(live / "images")
    for name in images:
        kinds = 2 if store.ensure(name).settles else 1
        with tempfile.TemporaryDirectory(dir=live) as folder, _platform(Path(folder), live, name) as place:
            log = place.data / "log" / "control.log"
            until(lambda log=log, kinds=kinds: log.read_text().count("template made") >= kinds, UP_SECONDS, "templates")
            _forked(report, place, store, boot, name)
        off = ("--template-mib", "0")
        with tempfile.TemporaryDirectory(dir=live) as folder, _platform(Path(folder), live, name, *off) as place:
            _booted(report, place, name)


@contextmanager
def _platform(folder: Path, live: Path, image: str, *options: str) -> Iterator[Platform]:
    folder.chmod(0o711)
    home = folder / "home"
    home.mkdir()
    with platform(folder / "data", home, live, "--default-image", image, *options) as place:
        yield place


def _forked(report: Report, place: Platform, store: ImageStore, boot: BootFiles, image: str) -> None:
    taken = []
    floor = asyncio.run(_floor(store, boot, image, ROUNDS))
    for number in range(ROUNDS):
        name = _name("one", number)
        time.sleep(REST_SECONDS)
        taken.append(_new(place, name))
        _remove(place, name)
    ssh = [_timed(lambda: place.ssh("localhost", "whoami")) for _ in range(ROUNDS)]
    least = [fork + one for fork, one in zip(floor, ssh, strict=True)]
    report.add(f"floor: a bare fork and one OpenSSH connection ({image})", "s", least)
    report.add(f"`new` to the first answered command, a copy ({image})", "s", taken)
    report.notes.append(f"{image}: a copy takes {statistics.median(taken) / statistics.median(least):.2f} x the floor")
    _weigh(report, place, image)
    report.add(f"{CROWD} at once until the last one answers ({image})", "s", [_crowd(place)])
    _copy(report, place, image)
    row = [_new(place, _name("row", number)) for number in range(MANY - CROWD)]
    report.add(f"{len(row)} in a row beside {CROWD}, each to its first answer ({image})", "s", row)
    _idle(report, place, image)


def _weigh(report: Report, place: Platform, image: str) -> None:
    """Several VMs, so that what they share with their template counts once; copies made on the spot, and never used."""
    names = [_name("still", number) for number in range(CROWD)]
    for name in names:
        assert place.lobby("new", "--name", name, "--env", "A=1", seconds=120).status == 0
    before = [_pss(place, name) for name in names]
    for name in names:
        assert place.ssh(f"{name}@localhost", "true").status == 0
    after = [_pss(place, name) for name in names]
    for name in names:
        _remove(place, name)
    report.add(f"memory of each of {CROWD} VMs before its first login (PSS, {image})", "MiB", before)
    report.add(f"memory of each after a login (PSS, {image})", "MiB", after)


def _copy(report: Report, place: Platform, image: str) -> None:
    """`cp` and `restart` of a VM with a gigabyte of its own."""
    assert place.lobby("new", "--name", "big", seconds=120).status == 0
    fill = "head -c 64M /dev/urandom > part; for n in $(seq 16); do cat part; done > all; sync"
    filled = place.ssh("big@localhost", fill, seconds=300)
    assert filled.status == 0, filled
    copied, again = [], []
    for number in range(3):
        began = time.monotonic()
        assert place.lobby("cp", "big", _name("copy", number), seconds=120).status == 0
        assert place.ssh(f"{_name('copy', number)}@localhost", "test -s all").status == 0
        copied.append(time.monotonic() - began)
        _remove(place, _name("copy", number))
        began = time.monotonic()
        assert place.lobby("restart", "big", seconds=120).status == 0
        assert place.ssh("big@localhost", "true").status == 0
        again.append(time.monotonic() - began)
    _remove(place, "big")
    report.add(f"`cp` of a VM with 1 GiB written, to the copy's first answer ({image})", "s", copied)
    report.add(f"`restart` to the first answer ({image})", "s", again)


def _booted(report: Report, place: Platform, image: str) -> None:
    taken = []
    for number in range(3):
        taken.append(_new(place, _name("cold", number)))
        _remove(place, _name("cold", number))
    report.add(f"`new` to the first answered command, a boot ({image})", "s", taken)


def _idle(report: Report, place: Platform, image: str) -> None:
    """What the platform is like beside so many idle VMs."""
    time.sleep(10)  # they come to rest; that they are idle is what is measured
    master = ("-o", "ControlMaster=auto", "-o", f"ControlPath={place.home}/mux", "-o", "ControlPersist=60")
    asked = sorted(_timed(lambda: place.ssh(*master, "localhost", "whoami")) * 1000 for _ in range(ASKED))
    report.add(f"`whoami` on an open connection beside {MANY} idle VMs ({image})", "ms", asked)
    report.notes.append(f"{image}: `whoami` beside {MANY} idle VMs, p99 {asked[int(ASKED * 0.99)]:.0f} ms")
    weights = [_pss(place, name) for name in (_name("row", number) for number in range(MANY - CROWD))]
    report.add(f"memory of each of {MANY} idle VMs after a login (PSS, {image})", "MiB", weights)
    report.add(f"one more `new` beside {MANY} ({image})", "s", [_new(place, "onemore")])


def _new(place: Platform, name: str) -> float:
    began = time.monotonic()
    done = place.lobby("new", "--name", name, seconds=120)
    assert done.status == 0, done.err
    assert place.ssh(f"{name}@localhost", "true").status == 0
    return time.monotonic() - began


def _crowd(place: Platform) -> float:
    began = time.monotonic()
    with ThreadPoolExecutor(CROWD) as people:
        list(people.map(lambda number: _new(place, _name("crowd", number)), range(CROWD)))
    return time.monotonic() - began


def _remove(place: Platform, name: str) -> None:
    assert place.lobby("rm", name).status == 0


def _timed(what: object) -> float:
    began = time.monotonic()
    assert what().status == 0  # type: ignore[operator]
    return time.monotonic() - began


def _name(kind: str, number: int) -> str:
    return f"{kind}{_LETTERS[number // 26]}{_LETTERS[number % 26]}"


def _pss(place: Platform, name: str) -> float:
    """MiB that are a VM's own, with its share of what it shares."""
    instance = load(place.data)
    assert instance is not None
    states = saved.every(place.data / "vms")
    vm = next(state.want.vm for state in states if state.want.name == name)
    record = processes.read(instance.vm_run(vm))
    assert record is not None
    rollup = Path(f"/proc/{record.pid}/smaps_rollup").read_text()
    return next(int(line.split()[1]) for line in rollup.splitlines() if line.startswith("Pss:")) / 1024


async def _floor(store: ImageStore, boot: BootFiles, image: str, rounds: int) -> list[float]:
    found = store.find(image)
    assert found is not None
    async with running_node(store, boot) as node:
        return await fork_floor.measure(node.instance, boot, found, tsc_khz(), rounds)
