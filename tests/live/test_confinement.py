"""What a QEMU could do to the host if its guest broke out of it: nothing, and not too much of anything."""
from __future__ import annotations

import asyncio
import os
import stat
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path

import pytest
import pytest_asyncio

from tests.contract.check_driver import look, until
from tests.live.guest_net import ONE, TWO, Pair
from tests.live.node import running_node
from ussycode.runtime.driver import Phase
from ussycode.runtime.images.store import Image, ImageStore
from ussycode.runtime.kernel import BootFiles
from ussycode.runtime.privileged.cgroups import IO_BYTES, PERIOD_US, ROOT, SPARE_CPUS, disk_under
from ussycode.runtime.privileged.helper import OVERHEAD_MIB, THREADS

pytestmark = [pytest.mark.timeout(300), pytest.mark.asyncio(loop_scope="module")]

PLAIN_FILES = ("/dev/null", "/dev/urandom", "/dev/random")


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def pair(image_store: ImageStore, boot: BootFiles, debian_min: Image) -> AsyncIterator[Pair]:
    async with running_node(image_store, boot) as node:
        driver = await node.driver()
        for one in (ONE, TWO):
            await driver.prepare(one)
            await driver.start(replace(one, name=f"guest{one.number}"))
        for one in (ONE, TWO):
            await until(driver, one.vm, Phase.RUNNING)
        yield Pair(node, driver)
        await driver.close()


async def process(pair: Pair) -> Path:
    return Path(f"/proc/{(await look(pair.driver, ONE.vm)).pid}")


def status(process: Path) -> dict[str, str]:
    lines = (process / "status").read_text().splitlines()
    return {name: " ".join(words.split()) for name, _, words in (line.partition(":") for line in lines)}


async def test_it_has_an_own_uid_no_capability_and_a_system_call_filter(pair: Pair) -> None:
    said, uid = status(await process(pair)), str(pair.node.instance.uid(2))
    assert said["Uid"].split() == said["Gid"].split() == [uid] * 4
    assert said["Groups"] == ""
    assert {said[name] for name in ("CapInh", "CapPrm", "CapEff", "CapAmb")} == {"0" * 16}
    assert (said["NoNewPrivs"], said["Seccomp"]) == ("1", "2")
    other = status(Path(f"/proc/{(await look(pair.driver, TWO.vm)).pid}"))
    assert other["Uid"] != said["Uid"], "and no two VMs share one"


async def test_it_holds_only_the_descriptors_it_needs(pair: Pair) -> None:
    jail = str(pair.node.instance.run / "jail")
    fds = (await process(pair) / "fd").iterdir()
    held = {entry.name: str(entry.readlink()).removeprefix(jail) for entry in fds}
    files = {path for path in held.values() if path.startswith("/")}
    mine = {str(pair.node.disk(ONE.vm)), str(pair.node.instance.vm_data(ONE.vm) / "console.log")}
    image = {path for path in files if "/images/" in path}
    assert len(image) == 1, "the image below its disk"
    assert files - mine - image - {*PLAIN_FILES, "/dev/net/tun"} == set()
    assert [path for path in held.values() if path == "/dev/net/tun"] == ["/dev/net/tun"], "its own tap and no other"
    rest = {path.split(":")[0] for path in held.values() if not path.startswith("/")}
    assert rest <= {"socket", "pipe", "anon_inode"}
    opened = {path: (await process(pair) / "fdinfo" / fd).read_text() for fd, path in held.items() if path in image}
    assert all(int(info.split()[3], 8) & os.O_ACCMODE == os.O_RDONLY for info in opened.values())


async def test_it_sees_no_network_and_little_of_the_file_system(pair: Pair) -> None:
    qemu, here = await process(pair), Path("/proc/self")
    for namespace in ("mnt", "net", "ipc", "uts"):
        assert (qemu / "ns" / namespace).readlink() != (here / "ns" / namespace).readlink()
    links = (qemu / "net" / "dev").read_text().splitlines()[2:]
    assert [line.split(":")[0].strip() for line in links] == ["lo"], "not even the host's loopback"
    root, data = qemu / "root", pair.node.instance.data
    assert {p.name for p in root.iterdir()} <= {
        "usr", "lib", "lib64", "lib32", "bin", "sbin", "etc", "dev", "proc", "var", "run", "home", "tmp",
    }
    assert [p.name for p in (root / "etc").iterdir()] == ["ld.so.cache"]
    assert {p.name for p in (root / "dev").iterdir()} <= {"null", "zero", "random", "urandom", "kvm"}
    assert not (root / "root").exists() and not (root / "run").exists(), "no home of root, no sockets of services"
    inside = root / data.relative_to("/")
    assert (inside / "layers" / pair.node.disk(ONE.vm).name).exists()
    other = (inside / "layers" / pair.node.disk(TWO.vm).name).stat()
    assert (other.st_uid, stat.S_IMODE(other.st_mode)) == (pair.node.instance.uid(3), 0o600)


async def test_the_host_does_not_see_the_jail(pair: Pair) -> None:
    """Its mounts are in a namespace of their own, so that nothing of it can be left behind."""
    jail = pair.node.instance.run / "jail"
    assert str(jail) not in Path("/proc/self/mountinfo").read_text()
    assert list(jail.iterdir()) == []


async def test_limits_of_cpu_memory_processes_and_disk_are_in_force(pair: Pair) -> None:
    pid = (await look(pair.driver, ONE.vm)).pid
    groups = f"ussycode-{pair.node.instance.slot}/vm-2"
    memory, threads = str((ONE.memory_mib + OVERHEAD_MIB) << 20), str(THREADS + ONE.vcpus)
    quota = (ONE.vcpus + SPARE_CPUS) * PERIOD_US
    if (ROOT / "cgroup.controllers").exists():
        files = {f"{groups}/memory.max": memory, f"{groups}/pids.max": threads, f"{groups}/cpu.max":
                 f"{quota} {PERIOD_US}"}
        joined = [ROOT / groups / "cgroup.procs"]
    else:
        files = {f"memory/{groups}/memory.limit_in_bytes": memory, f"pids/{groups}/pids.max": threads,
                 f"cpu/{groups}/cpu.cfs_quota_us": str(quota), f"cpu/{groups}/cpu.shares": "1024"}
        joined = [ROOT / name / groups / "cgroup.procs" for name in ("memory", "pids", "cpu", "blkio")]
        if disk := disk_under(pair.node.instance.data):
            files[f"blkio/{groups}/blkio.throttle.write_bps_device"] = f"{disk} {IO_BYTES}"
    assert {name: (ROOT / name).read_text().strip() for name in files} == files
    for file in joined:
        assert file.read_text().split() == [str(pid)]


GLUTTON = """
import os, threading, time
def burn():
    while time.monotonic() < end: pass
def write():
    with open("/var/tmp/glut", "wb", buffering=0) as file:
        while time.monotonic() < end:
            file.write(os.urandom(1 << 16)); file.flush()
            if file.tell() > 1 << 28: os.fsync(file.fileno()); file.seek(0)
end = time.monotonic() + 20
held = []
try:
    while len(held) < 3000: held.append(bytearray(os.urandom(1 << 10) * 64))
except MemoryError: pass
for _ in range(200):
    try:
        if not os.fork():
            burn(); os._exit(0)
    except OSError: break
threading.Thread(target=write).start(); burn()
"""


async def test_a_glutton_stays_within_its_limits_and_the_other_guest_answers(
    pair: Pair, record_property: Callable[[str, object], None],
) -> None:
    calm = await _latency(pair)
    glutton = asyncio.create_task(pair.python(ONE.vm, GLUTTON))
    before = await pair.node.helper.usage(ONE.vm, 2)
    async with asyncio.timeout(60):
        while (await pair.node.helper.usage(ONE.vm, 2)).cpu_ns < before.cpu_ns + 5_000_000_000:
            await pair.says(TWO.vm, "true")
    busy = await _latency(pair)
    after = await pair.node.helper.usage(ONE.vm, 2)
    record_property("latency_ms", f"calm {calm * 1000:.0f}, beside a glutton {busy * 1000:.0f}")
    assert after.memory <= (ONE.memory_mib + OVERHEAD_MIB) << 20
    assert 0 < after.threads <= THREADS + ONE.vcpus
    assert after.cpu_ns > before.cpu_ns, "it did burn"
    glutton.cancel()
    await asyncio.gather(glutton, return_exceptions=True)
    assert (await look(pair.driver, TWO.vm)).phase is Phase.RUNNING


async def _latency(pair: Pair) -> float:
    """Median of some commands in the other guest, in seconds."""
    taken = []
    for _ in range(15):
        began = time.perf_counter()
        assert await pair.says(TWO.vm, "true") == (0, "")
        taken.append(time.perf_counter() - began)
    return sorted(taken)[len(taken) // 2]
