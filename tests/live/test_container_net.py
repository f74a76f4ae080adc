"""Real packets from two real containers: the wall is the one of VMs, and it was never theirs to change."""
from __future__ import annotations

import ipaddress
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, replace

import pytest
import pytest_asyncio

from tests.contract.check_driver import until
from tests.live import surroundings as far
from tests.live.guest_net import DEAF, Pair
from tests.live.node import BOOT_SECONDS, running_node
from tests.live.surroundings import INTERNET, INTERNET6, PORT
from tests.live.test_container_driver import boxed, share_images
from ussycode.base.clock import SystemClock
from ussycode.runtime.driver import Egress, Phase
from ussycode.runtime.drivers.container.driver import ContainerDriver
from ussycode.runtime.images.store import Image, ImageStore
from ussycode.runtime.instance import GATEWAY, HOST_MAC
from ussycode.runtime.kernel import BootFiles
from ussycode.runtime.privileged.container_client import ContainerClient

pytestmark = [pytest.mark.timeout(300), pytest.mark.asyncio(loop_scope="module")]
ONE, TWO = boxed(vm="vm_isolationoneaaaa", number=2), boxed(vm="vm_isolationtwoaaaa", number=3)


@dataclass
class Boxes(Pair):
    """Two running containers; they are asked as VMs are."""

    driver: ContainerDriver  # type: ignore[assignment]


@pytest.fixture(scope="module")
def world() -> Iterator[None]:
    with far.around_the_host():
        yield


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def pair(image_store: ImageStore, boot: BootFiles, debian_min: Image, world: None) -> AsyncIterator[Boxes]:
    async with running_node(image_store, boot) as node:
        share_images(node, image_store)
        helper = ContainerClient(node.instance.helper_socket)
        driver = ContainerDriver(node.instance, image_store, helper, SystemClock(), BOOT_SECONDS)
        await driver.open()
        for one in (ONE, TWO):
            await driver.prepare(one)
            await driver.start(one)
            await until(driver, one.vm, Phase.RUNNING)
        yield Boxes(node, driver)
        for one in (ONE, TWO):
            await driver.destroy(one.vm)
        await driver.close()


async def test_the_internet_is_reached_and_the_gateway_pings(pair: Boxes) -> None:
    said = await pair.knock(ONE.vm, ("tcp", INTERNET, PORT), ("udp", INTERNET, PORT))
    assert set(said.values()) == {f"you are {far.HOST_SIDE}"}
    assert await pair.hears(ONE.vm, INTERNET6) == f"you are {far.HOST_SIDE6}"
    assert await pair.pings(ONE.vm, GATEWAY)


async def test_nothing_near_is_reached(pair: Boxes) -> None:
    """Other guests, services of the host, private networks, neighbours: one knock at each door."""
    instance = pair.node.instance
    doors = [(kind, host, port) for kind in ("tcp", "udp") for host, port in (
        (instance.address(3), 1021), (instance.address6(3), 1021), (far.OTHER_GUEST, PORT), (far.HOST_SIDE, PORT),
        (far.BRIDGE, PORT), (far.HOST_SIDE6, PORT), (GATEWAY, PORT), (far.PRIVATE[0], PORT), (far.PRIVATE6, PORT),
        (far.NEIGHBOUR, PORT), (far.NEIGHBOUR6, PORT), (far.ON_BRIDGE, PORT),
    )]
    assert set((await pair.knock(ONE.vm, *doors)).values()) == {DEAF}
    assert not await pair.pings(ONE.vm, instance.address(3))
    for words in ("no vm to vm", "no host services", "no host addresses", "no private networks",
                  "no neighbours of the host"):
        assert pair.dropped(words) > 0, f"the rules did it, not a broken path: {words}"


async def test_forged_frames_are_not_heard(pair: Boxes) -> None:
    instance = pair.node.instance
    own, one = instance.mac(3).replace(":", ""), instance.mac(2).replace(":", "")
    host, address = HOST_MAC.replace(":", ""), ipaddress.IPv4Address(instance.address(2)).packed.hex()
    gateway = ipaddress.IPv4Address(GATEWAY).packed.hex()
    before = [pair.dropped(words) for words in ("forged mac", "forged arp", "forged sender")]
    await pair.sends(
        TWO.vm,
        host + one + "0800" + "45" + "00" * 60,  # as if from the other guest
        host + own + "0806" + "0001080006040002" + own + address + host + gateway,  # "the other guest is me"
        host + own + "88cc" + "00" * 60,  # not even IP
    )
    after = [pair.dropped(words) for words in ("forged mac", "forged arp", "forged sender")]
    forged = [now - then for now, then in zip(after, before, strict=True)]
    assert min(forged) >= 1, "the container's own kernel may add to the last: it speaks of groups that nobody asked for"


async def test_egress_is_switched_while_it_runs(pair: Boxes) -> None:
    await pair.driver.update(replace(TWO, egress=Egress.INTEGRATIONS))
    assert await pair.hears(TWO.vm, INTERNET) == DEAF
    await pair.driver.update(TWO)
    assert await pair.hears(TWO.vm, INTERNET) == f"you are {far.HOST_SIDE}"


async def test_a_lost_interface_is_given_back(pair: Boxes) -> None:
    """Somebody on the host deletes the link; the guard makes it again and the container is reached as before."""
    far.ip("link", "del", "dev", pair.node.instance.tap(2))
    found = await pair.node.helper.net_check()
    assert any("it has it back" in sentence for sentence in found), found
    assert await pair.hears(ONE.vm, INTERNET) == f"you are {far.HOST_SIDE}"
