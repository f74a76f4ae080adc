"""Control is killed at random moments while it makes, copies, keeps, grows and removes VMs: nothing is lost or left."""
from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import subprocess
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pytest

from tests.contract.check_driver import want
from tests.live.node import Node, running_node
from ussycode.runtime.driver import Origin, OriginKind, Want
from ussycode.runtime.drivers.qemu import saved, storage
from ussycode.runtime.drivers.qemu.driver import QemuDriver
from ussycode.runtime.images.store import Image, ImageStore
from ussycode.runtime.kernel import BootFiles
from ussycode.runtime.net import taps

POINTS = int(os.environ.get("KILL_POINTS", "24"))
"""How often it is killed; `make nightly` does it 200 times."""
LONGEST = 0.35
"""Seconds of work until it is killed, at most: several verbs."""
BOOTED = "vm_killpointsbooted"
NUMBERS = {f"vm_killpoints{n}aaaaaaa": n for n in range(2, 6)} | {BOOTED: 6}
PLACES = range(3000, 3004)
"""Places on the disk, in MiB, where an image and its file system have nothing."""
VERBS = ("new", "cp", "snapshot", "snapshot", "drop", "resize", "rm", "start")

pytestmark = pytest.mark.timeout(60 + 3 * POINTS)


@pytest.fixture
async def node(image_store: ImageStore, boot: BootFiles, debian_min: Image) -> AsyncIterator[Node]:
    async with running_node(image_store, boot) as one:
        yield one


@dataclass
class Vm:
    """What was acknowledged of a VM. A snapshot holds what the disk held then."""

    gib: int = 5
    boot: int = 0
    disk: dict[int, int] = field(default_factory=dict)
    kept: dict[str, dict[int, int]] = field(default_factory=dict)


@dataclass
class World:
    """All VMs, and the verbs upon them: first carried out, then noted."""

    vms: dict[str, Vm] = field(default_factory=dict)
    snapshots: int = 0

    def choose(self, rng: random.Random) -> dict[str, Any]:
        """Any verb that makes sense now."""
        while True:
            verb, vm, other = rng.choice(VERBS), rng.choice([*NUMBERS]), rng.choice([*NUMBERS])
            here = vm in self.vms
            if (verb == "start") != (vm == BOOTED) and not (vm == BOOTED and verb == "rm"):
                continue
            if verb == "cp" and (here or other not in self.vms or other == BOOTED):
                continue
            if (verb == "new" and here) or (verb not in ("new", "cp", "start") and not here):
                continue
            if verb == "drop" and not self.vms[vm].kept:
                continue
            name = rng.choice([*self.vms[vm].kept]) if verb == "drop" else f"snap_{rng.getrandbits(40):x}"
            return {"verb": verb, "vm": vm, "other": other, "name": name}

    def note(self, op: dict[str, Any]) -> None:
        """It is done."""
        vm = self.vms.get(op["vm"])
        match op["verb"]:
            case "new":
                self.vms[op["vm"]] = Vm()
            case "cp":
                source = self.vms[op["other"]]
                self.vms[op["vm"]] = Vm(source.gib, disk=dict(source.disk))
            case "snapshot" if vm:
                vm.kept[op["name"]] = dict(vm.disk)
            case "drop" if vm:
                del vm.kept[op["name"]]
            case "resize" if vm:
                vm.gib += 1
            case "rm":
                del self.vms[op["vm"]]
            case "start":
                self.vms.setdefault(op["vm"], Vm()).boot += 1

    def want(self, vm: str, **changes: object) -> Want:
        """The wish for a VM as it is."""
        now = self.vms.get(vm, Vm())
        given: dict[str, object] = {"disk_gib": now.gib, "snapshots": tuple(now.kept), "boot": now.boot or 1}
        return want(vm, NUMBERS[vm], **(given | changes))


async def do(driver: QemuDriver, world: World, op: dict[str, Any]) -> None:
    vm, now = op["vm"], world.vms.get(op["vm"], Vm())
    match op["verb"]:
        case "new":
            await driver.prepare(world.want(vm))
        case "cp":
            source = world.vms[op["other"]]
            origin = Origin(OriginKind.VM, op["other"])
            await driver.prepare(world.want(vm, origin=origin, disk_gib=source.gib))
        case "snapshot":
            await driver.keep_snapshots(world.want(vm, snapshots=(*now.kept, op["name"])))
        case "drop":
            left = tuple(name for name in now.kept if name != op["name"])
            await driver.keep_snapshots(world.want(vm, snapshots=left, dropped=(op["name"],)))
        case "resize":
            await driver.grow(world.want(vm, disk_gib=now.gib + 1))
        case "rm":
            await driver.destroy(vm)
        case "start":
            await driver.prepare(world.want(vm, boot=now.boot + 1))
            await driver.start(world.want(vm, boot=now.boot + 1))


def work(node: Node, world: World, seed: int, told: int) -> None:
    """Be control until killed, saying before and after each verb which it is."""
    async def run() -> None:
        rng, driver = random.Random(seed), await node.driver()
        while True:
            op = world.choose(rng)
            os.write(told, json.dumps(op).encode() + b"\n")
            await do(driver, world, op)
            world.note(op)
            os.write(told, b"done\n")

    asyncio.run(run())


async def killed(node: Node, world: World, rng: random.Random) -> dict[str, Any] | None:
    """Let control work and kill it; what it was about. `world` then holds what it said was done."""
    heard, told = os.pipe()
    process = get_context("fork").Process(target=work, args=(node, world, rng.getrandbits(32), told))
    process.start()
    os.close(told)
    await asyncio.sleep(rng.uniform(0.02, LONGEST))
    assert process.pid is not None and process.is_alive(), "it broke by itself"
    os.kill(process.pid, signal.SIGKILL)
    await asyncio.to_thread(process.join)
    with os.fdopen(heard) as file:
        lines = file.read().splitlines()
    for op, _ in zip(lines[::2], lines[1::2], strict=False):
        world.note(json.loads(op))
    return json.loads(lines[-1]) if len(lines) % 2 else None


async def converge(driver: QemuDriver, world: World, pending: dict[str, Any] | None) -> None:
    """What the reconciler does: the wish is still there, so what was cut off is done again."""
    if pending is not None:
        await do(driver, world, pending)
        world.note(pending)
    if BOOTED in world.vms:
        await driver.stop(BOOTED)
        world.vms[BOOTED].boot = 0


def reads(disk: Path, content: dict[int, int]) -> bool:
    asked = [word for place in PLACES for word in ("-c", f"read -P {content.get(place, 0)} {place}M 64k")]
    said = subprocess.run(["qemu-io", "-r", "-U", "-f", "qcow2", *asked, disk], check=True, capture_output=True,
                          text=True, timeout=30).stdout
    return "failed" not in said and "error" not in said.lower()


async def check(node: Node, driver: QemuDriver, world: World) -> None:
    seen = {one.vm: one for one in await driver.seen()}
    assert seen.keys() == world.vms.keys()
    records = {record.want.vm: record for record in saved.every(node.instance.data / "vms")}
    for name, vm in world.vms.items():
        assert seen[name].disk_gib == vm.gib
        assert {one.id for one in seen[name].snapshots} == vm.kept.keys()
        assert name == BOOTED or reads(node.disk(name), vm.disk)
        for kept in records[name].snapshots:
            assert (not kept.chain and not vm.kept[kept.id]) or reads(node.instance.layers / kept.chain[0],
                                                                    vm.kept[kept.id])
    needed = {name for record in records.values() for name in storage.names(record)}
    assert {place.name for place in node.instance.layers.iterdir()} == needed
    assert {place.name for place in (node.instance.data / "vms").iterdir()} == world.vms.keys()
    assert not list((node.instance.run / "vm").iterdir()), "no process, no socket"
    assert not taps.leftover(node.instance)
    assert not (await node.helper.facts()).leaks


async def write_somewhere(node: Node, driver: QemuDriver, world: World, rng: random.Random) -> None:
    """What guests would write."""
    for name in set(world.vms) - {BOOTED}:
        if rng.random() < 0.5:
            place, byte = rng.choice(PLACES), rng.randrange(1, 256)
            await driver._machines[name].disk.ready()
            words = ["qemu-io", "-f", "qcow2", "-c", f"write -q -P {byte} {place}M 64k", str(node.disk(name))]
            subprocess.run(words, check=True, timeout=30)
            world.vms[name].disk[place] = byte


async def test_nothing_acknowledged_is_lost_and_nothing_is_left_over_wherever_control_is_killed(node: Node) -> None:
    seed = int(os.environ.get("KILL_SEED", random.SystemRandom().randrange(1 << 30)))
    print(f"again with KILL_SEED={seed}")
    rng, world = random.Random(seed), World()
    for _ in range(POINTS):
        pending = await killed(node, world, rng)
        driver = await node.driver()
        await converge(driver, world, pending)
        await driver.close()
        driver = await node.driver()
        await check(node, driver, world)
        await write_somewhere(node, driver, world, rng)
        await driver.close()
