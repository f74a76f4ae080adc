"""Disks above layers: whatever cuts a verb off, the record names what is there, and nothing else stays."""
from __future__ import annotations

import contextlib
import ipaddress
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from msgspec.structs import replace

from tests.contract.check_driver import want
from ussycode.base.errors import Failure
from ussycode.runtime.driver import Phase
from ussycode.runtime.drivers.qemu import storage
from ussycode.runtime.drivers.qemu.saved import Kept, Saved
from ussycode.runtime.drivers.qemu.storage import Disk, Ground, Layers
from ussycode.runtime.instance import Instance

STEPS = 12
"""More than any verb has."""


class PowerCut(Exception):
    """The process ends here."""


@dataclass
class World:
    """A host whose power fails after so many steps: its disk, what root knows, and perhaps a machine."""

    instance: Instance
    steps: int = 1 << 30
    saved: Saved = field(init=False)
    sealed: set[str] = field(default_factory=set)
    machine: Machine | None = None

    def __post_init__(self) -> None:
        self.saved = Saved(
            want=want(disk_gib=1), digest="", init="tiny", login_user="ussy", default_port=8000,
            phase=Phase.PREPARED, top=storage.new_name(), disk_gib=1,
        )

    def step(self) -> None:
        self.steps -= 1
        if self.steps < 0:
            raise PowerCut

    def keep(self, saved: Saved) -> None:
        self.step()
        self.saved = saved

    async def disk_own(self, vm: str, number: int, disk: str) -> None:
        self.step()
        assert (self.instance.layers / disk).exists()
        assert disk not in self.sealed or (self.layers.reflinks and disk == self.saved.top), "a layer is nobody's"
        self.sealed.discard(disk)

    async def disk_seal(self, vm: str, number: int, disk: str) -> None:
        self.step()
        assert self.machine is None or self.machine.top != disk or self.layers.reflinks, "it is written to"
        self.sealed.add(disk)

    @property
    def layers(self) -> Layers:
        return Layers(self.instance, self)

    @property
    def disk(self) -> Disk:
        """As a fresh process makes it from the record."""
        return Disk(self.layers, lambda: self.saved, self.keep)

    def there(self) -> set[str]:
        return {place.name for place in self.instance.layers.iterdir()}


@dataclass
class Machine:
    """A running QEMU, which outlives what cuts control off."""

    world: World
    top: str

    async def switch(self, top: Path) -> None:
        self.world.step()
        assert top.exists()
        self.top = top.name
        self.world.step()

    async def stands_on(self) -> str:
        return str(self.world.instance.layers / self.top)

    @contextlib.asynccontextmanager
    async def held(self) -> AsyncIterator[None]:
        self.world.step()
        yield
        self.world.step()


@pytest.fixture
async def world(tmp_path: Path) -> World:
    made = World(Instance(7, tmp_path, ipaddress.IPv4Network("10.199.0.0/16")))
    made.instance.layers.mkdir()
    base = tmp_path / "disk.raw"
    base.write_bytes(bytes(1 << 20))
    await made.disk.make(base)
    return made


async def all_is_well(world: World) -> None:
    """The record names what is there and what is there is named; layers are sealed, the top is not."""
    await world.layers.sweep([world.saved])
    assert world.there() == {world.saved.top, *world.saved.chain}
    assert set(world.saved.chain) <= world.sealed
    assert world.saved.top not in world.sealed
    assert world.machine is None or world.machine.top == world.saved.top
    assert (world.saved.pending, world.saved.draft) == ("", "")


@pytest.mark.parametrize("runs", [True, False])
@pytest.mark.parametrize("steps", range(STEPS))
async def test_a_freeze_that_is_cut_off_is_completed_or_undone(world: World, steps: int, runs: bool) -> None:
    first, world.steps = world.saved.top, steps
    world.machine = Machine(world, first) if runs else None
    try:
        await world.disk.freeze(world.machine)
    except PowerCut:
        pass
    else:
        assert steps >= 4
    world.steps = 1 << 30
    await world.disk.settle(world.machine)
    await all_is_well(world)
    assert first in (world.saved.top, *world.saved.chain), "nothing written is lost"
    assert (await world.disk.freeze(world.machine)).chain[-1] == first


@pytest.mark.parametrize("steps", range(STEPS))
async def test_a_restore_that_is_cut_off_leaves_the_old_disk_or_the_new_one(world: World, steps: int) -> None:
    ground = await world.disk.freeze(None)
    await world.disk.ready()
    old, world.steps = world.saved.top, steps
    turn = world.saved.disk_turn
    with contextlib.suppress(PowerCut):
        await world.disk.remake(ground, Path("/none"), turn + 1)
    world.steps = 1 << 30
    await world.disk.ready()
    assert (world.saved.top == old) == (world.saved.disk_turn == turn)
    await all_is_well(world)


async def test_an_unwritten_disk_is_not_frozen_again(world: World) -> None:
    first = await world.disk.freeze(None)
    assert await world.disk.freeze(None) == first
    assert len(first.chain) == 1
    assert (await world.disk.freeze(None, 3)).gib == 3
    await world.disk.ready()
    assert len((await world.disk.freeze(None)).chain) == 3


async def test_a_chain_has_an_end(world: World) -> None:
    world.saved = replace(world.saved, chain=("c0" * 16,) * storage.MAX_CHAIN)
    with pytest.raises(Failure, match="copied or kept"):
        await world.disk.freeze(None)


async def test_what_a_snapshot_or_another_vm_needs_is_kept(world: World) -> None:
    ground = await world.disk.freeze(None)
    kept = replace(world.saved, chain=(), snapshots=(Kept("snap", 0.0, ground.chain, 1),))
    clone = replace(world.saved, top="c1" * 16)
    for records, left in (([kept], 2), ([kept, clone], 2), ([clone], 1), ([], 0)):
        await world.layers.sweep(records)
        assert len(world.there()) == left
    assert storage.users([kept, clone])[ground.chain[0]] == 2


async def test_a_pinned_layer_waits_for_its_record(world: World) -> None:
    layers = world.layers
    with layers.pinned((world.saved.top,)):
        assert await layers.sweep([]) == 0
    assert await layers.sweep([]) == 1


async def test_a_disk_from_before_names_keeps_its_content(world: World) -> None:
    old = world.instance.vm_data(world.saved.want.vm) / "disk.qcow2"
    old.parent.mkdir(parents=True)
    (world.instance.layers / world.saved.top).rename(old)
    written = old.read_bytes()
    world.saved = replace(world.saved, top="")
    with pytest.raises(Failure, match="restart"):
        await world.disk.freeze(Machine(world, ""))
    world.steps = 1
    with pytest.raises(PowerCut):
        await world.disk.ready()
    world.steps = 1 << 30
    await world.disk.ready()
    assert (world.instance.layers / world.saved.top).read_bytes() == written


async def test_a_layer_that_is_gone_is_said(world: World) -> None:
    with pytest.raises(Failure, match="is gone"):
        await world.disk.remake(Ground(("c2" * 16,), 1), Path("/none"), 2)
    await world.disk.ready()
    await all_is_well(world)


def test_names_are_long_and_never_the_same() -> None:

    assert storage.new_name() != storage.new_name()
    assert len(bytes.fromhex(storage.new_name())) == 16
