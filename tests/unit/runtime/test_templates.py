"""Which templates there are: the rules, without machines."""
from __future__ import annotations

import asyncio
import ipaddress
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace

import msgspec
import pytest

from tests.contract.check_driver import want
from ussycode.base.clock import ManualClock
from ussycode.runtime.drivers.qemu.template import TEMPLATE_FAILED, Class, Template
from ussycode.runtime.drivers.qemu.templates import RETRY_SECONDS, Limits, Templates
from ussycode.runtime.images.store import Image
from ussycode.runtime.instance import Instance
from ussycode.runtime.privileged.protocol import Held

SIZE = 100 << 20
WANT = want()
PLAIN = Image("plain", "a" * 64, Path("/none"), "root", "tiny", 1, 0.0, 0, 8000, {}, "")
SETTLED = replace(PLAIN, name="settled", settles=True)


@dataclass
class Layers:
    """Remembers what it was told to keep."""

    pins: list[str] = field(default_factory=list)

    @contextmanager
    def pinned(self, chain: Sequence[str]) -> Iterator[None]:
        self.pins += chain
        yield
        for name in chain:
            self.pins.remove(name)


@dataclass
class Shop:
    """Makes templates that are not there; fails for as long as it is told to."""

    clock: ManualClock
    layers: Layers
    made: list[Class] = field(default_factory=list)
    removed: list[str] = field(default_factory=list)
    ended: list[str] = field(default_factory=list)
    broken: bool = False

    async def make(self, of: Class, image: Image | None) -> Template:
        self.made.append(of)
        if self.broken:
            raise TEMPLATE_FAILED(why="it is broken")
        return Template(f"{len(self.made):032}", of, f"layer{len(self.made)}", 1, 0, 0.0, SIZE)

    async def remove(self, template: Template) -> None:
        self.removed.append(template.id)

    async def end(self, machine: str) -> None:
        self.ended.append(machine)

    def is_whole(self, template: Template) -> bool:
        return True


def templates(most_mib: int = 1024) -> tuple[Templates, Shop]:
    shop = Shop(ManualClock(1000.0), Layers())
    made = Templates(shop, Limits(most_mib), lambda _: None, lambda: False, build="b")  # type: ignore[arg-type]
    return made, shop


async def worked(one: Templates) -> None:
    """Make everything that is wished."""
    task = asyncio.create_task(one._make_for_ever())
    while one._wishes:
        await asyncio.sleep(0)
    for _ in range(20):
        await asyncio.sleep(0)
    task.cancel()


async def test_every_size_has_a_kernel_and_only_an_image_made_for_it_a_system() -> None:
    one, shop = templates()
    assert one.system(WANT, PLAIN) is None and one.system(WANT, SETTLED) is None
    await worked(one)
    assert [of.image for of in shop.made] == ["", "settled"]
    assert one.system(WANT, PLAIN) is None, "what an image of others starts, it starts in each copy"
    found, kernel = one.system(WANT, SETTLED), one.kernel(WANT)
    assert found is not None and kernel is not None and found.id != kernel.id
    assert one.kernel(replace(WANT, memory_mib=1024)) is None, "another size is another machine"
    assert sorted(shop.layers.pins) == ["layer1", "layer2"]


async def test_a_new_build_of_an_image_has_a_new_template_and_the_old_one_goes() -> None:
    one, shop = templates()
    one.system(WANT, SETTLED)
    await worked(one)
    newer = replace(SETTLED, digest="b" * 64)
    assert one.system(WANT, newer) is None
    await worked(one)
    found = one.system(WANT, newer)
    assert found is not None and [t.of.digest for t in one.held if t.of.image] == ["b" * 64]
    assert len(shop.removed) == 1 and "layer2" not in shop.layers.pins


async def test_the_one_unused_longest_goes_when_there_is_no_room() -> None:
    one, _ = templates(most_mib=250)
    sizes = [replace(WANT, memory_mib=mib) for mib in (256, 512)]
    for size in sizes:
        one.kernel(size)
    await worked(one)
    assert one.kernel(sizes[0]) is not None
    one.kernel(replace(WANT, memory_mib=1024))
    await worked(one)
    assert [t.of.memory_mib for t in one.held] == [256, 1024]
    assert one.figures.size == 2 * SIZE and one.figures.held == 2


async def test_what_cannot_be_made_or_copied_is_not_tried_over_and_over() -> None:
    one, shop = templates()
    shop.broken = True
    one.kernel(WANT)
    await worked(one)
    one.kernel(WANT)
    await worked(one)
    assert len(shop.made) == 1
    shop.broken = False
    shop.clock.advance(RETRY_SECONDS + 1)
    one.kernel(WANT)
    await worked(one)
    for number in (2, 3):
        found = one.kernel(WANT)
        assert found is not None and len(shop.made) == number
        await one.failed(found.id)
        assert one.kernel(WANT) is None
        await worked(one)
    assert len(shop.made) == 3 and one.held == [], "after two in a row the next has to wait"


class Helper:
    """Holds the memory of templates, and nothing else."""

    def __init__(self, *held: Held) -> None:
        self.held, self.dropped = held, list[str]()

    async def templates(self) -> tuple[Held, ...]:
        return self.held

    async def template_drop(self, template: str) -> None:
        self.dropped.append(template)


async def test_what_was_made_with_another_kernel_or_qemu_is_made_anew(tmp_path: Path) -> None:
    """`build` says what a template is made of besides its image; size and image are in its class."""
    one, shop = templates()
    instance = Instance(7, tmp_path, ipaddress.IPv4Network("10.199.0.0/16"), tmp_path / "run")
    held: list[Held] = []
    for number, build in enumerate(("QEMU 7.2 tcg cpu kernel", "QEMU 7.2 tcg cpu newer", "QEMU 8.2 tcg cpu kernel")):
        made = Template(f"{number}" * 32, Class("", "", 1, 512, build), "", 1, 0, 0.0, SIZE)
        folder = instance.vm_data(made.machine)
        folder.mkdir(parents=True)
        (folder / "template.json").write_bytes(msgspec.json.encode(made))
        held.append(Held(made.id, SIZE, True))
    helper = Helper(*held, Held("f" * 32, SIZE, False))
    shop.instance, shop.helper = instance, helper  # type: ignore[attr-defined]
    await one.open("QEMU 7.2 tcg cpu newer")
    assert [made.id for made in one.held] == ["1" * 32] and one.figures.size == SIZE
    assert shop.removed == ["0" * 32, "2" * 32] and helper.dropped == ["f" * 32]
    assert sorted(shop.ended) == ["tpl_" + "0" * 16, "tpl_" + "2" * 16]
    assert one.kernel(replace(WANT, memory_mib=512)) is not None
    await one.close()
    other, shop2 = templates(0)
    shop2.instance, shop2.helper = instance, Helper(held[1])  # type: ignore[attr-defined]
    await other.open("QEMU 7.2 tcg cpu newer")
    assert other.held == [] and shop2.removed == ["1" * 32], "an operator who wants none has none"


@pytest.mark.parametrize("most", [0])
async def test_without_room_there_are_none(most: int) -> None:
    one, shop = templates(most)
    assert one.kernel(WANT) is None and one.system(WANT, SETTLED) is None
    assert not one._wishes and SimpleNamespace(**vars(shop)).made == []
