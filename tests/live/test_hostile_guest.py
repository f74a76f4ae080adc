"""A guest whose root replaced the agent: it floods, lies and stalls, and harms only itself."""
from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest

from tests.contract.check_driver import until
from tests.live.guest_net import ONE, TWO
from tests.live.node import running_node
from tests.live.test_driver_live import says
from ussycode.base.errors import Failure
from ussycode.runtime.driver import Phase
from ussycode.runtime.drivers.qemu.driver import QemuDriver
from ussycode.runtime.guest import execs, streams
from ussycode.runtime.guest.execs import ExecSpec
from ussycode.runtime.images.store import Image, ImageStore
from ussycode.runtime.kernel import BootFiles

pytestmark = pytest.mark.timeout(300)
MOST_MIB = 96
"""How much larger this process may be for all that the guest sends."""
EVIL = r"""
import glob, os, socket, struct, threading, time
def frame(kind, *pairs):
    body = b"".join(k.encode() + b"\0" + v.encode() + b"\0" for k, v in pairs)
    return struct.pack(">IB", len(body), kind) + body
for comm in glob.glob("/proc/[0-9]*/comm"):
    try:
        if open(comm).read() == "ussy-agent\n": os.kill(int(comm.split("/")[2]), 9)
    except OSError: pass
def control():
    name = next(p for p in glob.glob("/sys/class/virtio-ports/*") if open(p + "/name").read() == "ussy\n")
    port = os.open("/dev/" + os.path.basename(name), os.O_RDWR)
    number, hello = 0, (("version", "1"), ("build", "x" * 90000), ("uptime_ms", "5"), ("configured", "1"))
    lies = [("memory_total", "9" * 19), ("memory_available", "-1"), ("load", "nan 1 1"), ("disk_total", "9" * 18),
            ("disk_free", "9" * 18), ("uptime_ms", "1"), *[("port", f"{n} ::") for n in range(1, 2000)]]
    while True:
        got = os.read(port, 65536)
        at = got.find(b"\xffussycode-sync-1")
        if at >= 0: os.write(port, got[at:at + 32] + frame(4, *hello))
        number += 1
        what = number % 4
        if what == 0:   # lies, with the number of every request there may be
            for one in range(300): os.write(port, frame(2, ("id", str(one)), *lies))
        elif what == 1: os.write(port, frame(2, ("id", "no")) * 5000)
        elif what == 2: os.write(port, b"\xff\xff\xff\xff" + os.urandom(60000))
def streams():
    door = socket.create_server(("", 1021), reuse_port=True, backlog=500)
    def serve(one):
        try:
            one.recv(100)
            one.sendall(b"OK\0\0\0\0")
            while True: one.sendall(struct.pack(">BI", 1, 65536) + bytes(65536))
        except OSError: pass
    while True:
        one, _ = door.accept()
        threading.Thread(target=serve, args=(one,), daemon=True).start()
for what in (control, streams): threading.Thread(target=what).start()
"""


@pytest.fixture
async def driver(image_store: ImageStore, boot: BootFiles, debian_min: Image) -> AsyncIterator[QemuDriver]:
    async with running_node(image_store, boot) as node:
        made = await node.driver()
        for one in (ONE, TWO):
            await made.prepare(one)
            await made.start(replace(one, name=f"guest{one.number}"))
        for one in (ONE, TWO):
            await until(made, one.vm, Phase.RUNNING)
        yield made
        await made.close()


def size_mib() -> int:
    """Memory of this process."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS:")) >> 10


async def test_an_agent_that_was_replaced_harms_only_its_own_machine(driver: QemuDriver) -> None:
    address = driver.guest_address(ONE.vm)
    assert address is not None
    begin = "cat > /tmp/evil.py; sudo setsid -f python3 /tmp/evil.py > /dev/null 2>&1 < /dev/null; sleep 5"
    with suppress(Failure):  # its agent is killed under it
        await execs.run(address, ExecSpec(cmd=begin), EVIL.encode(), timeout=20)
    before, began = size_mib(), time.monotonic()
    for _ in range(4):
        with suppress(Failure):
            sample = await driver.sample(ONE.vm)
            assert sample is None or -1 <= sample.fs_total < 1 << 63
        with suppress(Failure):
            flooded = await execs.run(address, ExecSpec(cmd="true"), timeout=2)
            assert len(flooded.stdout) <= execs.MAX_OUTPUT
        with suppress(Failure):
            (await streams.dial(address, port=8000)).writer.transport.abort()
        asked = time.monotonic()
        assert await says(driver, "echo well", TWO.vm) == "well"
        assert time.monotonic() - asked < 20
        assert {seen.vm for seen in await driver.seen()} == {ONE.vm, TWO.vm}
    print(f"{time.monotonic() - began:.1f} s under attack, {size_mib() - before} MiB more")
    assert size_mib() - before < MOST_MIB
    sample = await driver.sample(TWO.vm)
    assert sample is not None and sample.fs_total > 0
    stopping = time.monotonic()
    async with asyncio.timeout(60):
        await driver.stop(ONE.vm)
    print(f"stopped after {time.monotonic() - stopping:.1f} s")
    again = replace(ONE, boot=2, name="guest2")
    await driver.start(again)
    await until(driver, ONE.vm, Phase.RUNNING)
    assert await says(driver, "echo mine again", ONE.vm) == "mine again"
