"""One way to keep disks, on file systems whose files share bytes and on those where they cannot."""
from __future__ import annotations

import contextlib
import ipaddress
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from msgspec.structs import replace

from tests.contract.check_driver import want
from tests.unit.runtime.test_storage import STEPS, Machine, PowerCut, World
from ussycode.runtime import reflinks
from ussycode.runtime.drivers.qemu.storage import Ground
from ussycode.runtime.instance import Instance

KINDS = {"ext4": (), "xfs": ("-q",), "btrfs": ("-q",)}
MIB = 1 << 20


@pytest.fixture(scope="module", params=list(KINDS))
def place(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """A file system of each kind, in a file."""
    kind, folder = request.param, tmp_path_factory.mktemp("mounted")
    image = folder.with_suffix(".img")
    with image.open("wb") as file:
        file.truncate(1 << 30)
    subprocess.run([f"/usr/sbin/mkfs.{kind}", *KINDS[kind], image], check=True, capture_output=True, timeout=60)
    subprocess.run(["mount", "-o", "loop", image, folder], check=True, timeout=30)
    try:
        yield kind, folder
    finally:
        subprocess.run(["umount", folder], check=True, timeout=30)
        image.unlink()


@pytest.fixture
async def world(place: tuple[str, Path], tmp_path: Path) -> World:
    root = place[1] / tmp_path.name
    root.mkdir()
    made = World(Instance(7, root, ipaddress.IPv4Network("10.199.0.0/16")))
    made.instance.layers.mkdir()
    base = root / "disk.raw"
    base.write_bytes(bytes(MIB))
    await made.disk.make(base)
    await made.disk.ready()
    return made


def write(path: Path, byte: int, at: int, size: int = 1) -> None:
    """What a guest would."""
    words = ["qemu-io", "-f", "qcow2", "-c", f"write -q -P {byte} {at}M {size}M", path]
    subprocess.run(words, check=True, capture_output=True, timeout=60)


def holds(path: Path, byte: int, at: int, size: int = 1) -> bool:
    words = ["qemu-io", "-r", "-f", "qcow2", "-c", f"read -q -P {byte} {at}M {size}M", path]
    return subprocess.run(words, check=False, capture_output=True, timeout=60).returncode == 0


def used(folder: Path) -> int:
    """Bytes in use on a file system, once all is written."""
    os.sync()
    return shutil.disk_usage(folder).used


async def test_what_is_kept_stays_and_both_go_on_alone(place: tuple[str, Path], world: World) -> None:
    kind, folder = place
    assert world.layers.reflinks is (kind != "ext4")
    write(world.disk.path, 1, 0, 64)
    before = used(folder)
    ground = await world.disk.freeze(None)
    assert used(folder) - before < 4 * MIB, "keeping costs next to nothing"
    await world.disk.ready()
    write(world.disk.path, 2, 0)
    copy = World(world.instance)
    copy.saved = replace(copy.saved, chain=ground.chain, want=want("vm_copycopycopyaaaa", 3, disk_gib=1))
    await copy.disk.make(folder / "nothing")
    await copy.disk.ready()
    write(copy.disk.path, 3, 1)
    layer = world.layers.path(ground.chain[0])
    assert holds(layer, 1, 0, 64)
    assert holds(world.disk.path, 2, 0) and holds(world.disk.path, 1, 1, 63)
    assert holds(copy.disk.path, 1, 0) and holds(copy.disk.path, 3, 1) and holds(copy.disk.path, 1, 2, 62)
    assert (len(world.saved.chain) == 0) is world.layers.reflinks, "where bytes are shared no chain grows"
    alone = world.layers.size(ground.chain[0])
    assert alone <= 2 * MIB if world.layers.reflinks else alone >= 64 * MIB
    for path in (layer, world.disk.path, copy.disk.path):
        subprocess.run(["qemu-img", "check", "-q", path], check=True, timeout=30)


@pytest.mark.parametrize("runs", [True, False])
async def test_keeping_that_is_cut_off_anywhere_costs_nothing(
    place: tuple[str, Path], world: World, runs: bool,
) -> None:
    for steps in range(STEPS):
        if runs:
            world.machine = Machine(world, world.saved.top)
        write(world.disk.path, steps + 1, 0)
        world.steps = steps
        with contextlib.suppress(PowerCut):
            await world.disk.freeze(world.machine)
        world.steps = 1 << 30
        await world.disk.settle(world.machine)
        await world.layers.sweep([world.saved])
        assert world.there() == {world.saved.top, *world.saved.chain}
        assert (world.saved.pending, world.saved.draft) == ("", "") and world.saved.top not in world.sealed
        assert holds(world.disk.path, steps + 1, 0)
        world.machine = None
        await world.disk.ready()


async def test_growth_makes_a_layer_on_every_kind(world: World) -> None:
    write(world.disk.path, 7, 0)
    ground = await world.disk.freeze(None, gib=2)
    assert ground == Ground(world.saved.chain, 2) and len(ground.chain) == 1
    await world.disk.ready()
    write(world.disk.path, 8, 1500)
    assert holds(world.disk.path, 7, 0) and holds(world.disk.path, 8, 1500)


def test_a_folder_says_whether_its_files_share_bytes(place: tuple[str, Path]) -> None:
    kind, folder = place
    assert reflinks.possible(folder) is (kind != "ext4")
    assert not list(folder.glob(".probe-*"))
