"""Real packets from two real guests: what must get through does, and nothing else. Each claim is one test."""
from __future__ import annotations

import asyncio
import ipaddress
import json
import socket
import subprocess
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace

import pytest
import pytest_asyncio

from tests.contract.check_driver import until
from tests.live import surroundings as far
from tests.live.guest_net import DEAF, ONE, TWO, Pair
from tests.live.node import running_node
from tests.live.surroundings import INTERNET, INTERNET6, LISTED, PORT
from ussycode.agent.dns import Forwarder
from ussycode.runtime.driver import Egress, Phase
from ussycode.runtime.images.store import Image, ImageStore
from ussycode.runtime.instance import GATEWAY, GATEWAY6, HOST_MAC, METADATA_ADDRESS
from ussycode.runtime.kernel import BootFiles
from ussycode.runtime.net import facing
from ussycode.runtime.net.policy import Policy

pytestmark = [pytest.mark.timeout(300), pytest.mark.asyncio(loop_scope="module")]

LIMITS = Policy(
    mbit=8, packets=3000, connections=150, tracked=300, integrations=(ipaddress.ip_network(f"{LISTED}/32"),),
)
"""Small enough to be reached by an emulated guest; the rules are the same."""
NEVER = 3600.0
"""Seconds between two looks of the driver's own guard: here the tests look."""


@pytest.fixture(scope="module")
def world() -> Iterator[None]:
    with far.around_the_host():
        yield


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def pair(image_store: ImageStore, boot: BootFiles, debian_min: Image, world: None) -> AsyncIterator[Pair]:
    async with running_node(image_store, boot, LIMITS) as node:
        driver = await node.driver(check_seconds=NEVER)
        for one in (ONE, TWO):
            await driver.prepare(one)
            await driver.start(replace(one, name=f"guest{one.number}"))
        for one in (ONE, TWO):
            await until(driver, one.vm, Phase.RUNNING)
        metadata = asyncio.create_task(_who_asks(facing.tcp(node.instance.metadata_port)))
        yield Pair(node, driver)
        metadata.cancel()
        await asyncio.gather(metadata, return_exceptions=True)
        await driver.close()


async def test_the_internet_is_reached_through_the_hosts_address(pair: Pair) -> None:
    said = await pair.knock(ONE.vm, ("tcp", INTERNET, PORT), ("udp", INTERNET, PORT))
    assert set(said.values()) == {f"you are {far.HOST_SIDE}"}
    assert await pair.pings(ONE.vm, INTERNET)


async def test_the_internet_is_reached_over_ipv6(pair: Pair) -> None:
    said = await pair.knock(ONE.vm, ("tcp", INTERNET6, PORT), ("udp", INTERNET6, PORT))
    assert set(said.values()) == {f"you are {far.HOST_SIDE6}"}


async def test_metadata_sees_the_true_source(pair: Pair) -> None:
    for one in (ONE, TWO):
        assert await pair.hears(one.vm, METADATA_ADDRESS, 80) == f"you are {pair.node.instance.address(one.number)}"


async def test_the_gateway_answers_pings(pair: Pair) -> None:
    assert await pair.pings(ONE.vm, GATEWAY)


async def test_no_guest_reaches_another_one(pair: Pair) -> None:
    """Both belong to the same owner here: that makes no difference."""
    instance, before = pair.node.instance, pair.dropped("no vm to vm")
    two, two6 = instance.address(3), instance.address6(3)
    said = await pair.knock(
        ONE.vm, ("tcp", two, 1021), ("udp", two, 53), ("tcp", two6, 1021), ("udp", two6, 53),
        ("tcp", far.OTHER_GUEST, PORT), ("udp", far.OTHER_GUEST, PORT),
    )
    assert set(said.values()) == {DEAF}
    assert not await pair.pings(ONE.vm, two)
    assert pair.dropped("no vm to vm") >= before + 6, "the rules did it, not a broken path"


async def test_no_guest_finds_another_one_by_arp(pair: Pair) -> None:
    """Nothing but the gateway is on a guest's wire, whoever it asks for."""
    mac = pair.node.instance.mac(2).replace(":", "")
    own, two = (_hex(pair.node.instance.address(number)) for number in (2, 3))
    before = pair.dropped("forged arp")
    asks = "ff" * 6 + mac + "0806" + "0001080006040001" + mac + own + "00" * 6 + two
    await pair.sends(ONE.vm, asks)
    assert pair.dropped("forged arp") == before + 1


async def test_no_service_of_the_host_on_any_of_its_addresses(pair: Pair) -> None:
    real = _addresses_of_the_host()
    assert {far.HOST_SIDE, far.BRIDGE, far.HOST_SIDE6} <= real, "the server listens on all of them"
    doors = [(kind, host, PORT) for kind in ("tcp", "udp") for host in sorted(real | {GATEWAY})]
    assert set((await pair.knock(ONE.vm, *doors)).values()) == {DEAF}
    assert await pair.hears(ONE.vm, GATEWAY, pair.node.instance.metadata_port) == DEAF, "only by its own address"
    assert pair.dropped("no host services") > 0 < pair.dropped("no host addresses")


async def test_no_private_network(pair: Pair) -> None:
    before = pair.dropped("no private networks")
    doors = [(kind, host, PORT) for kind in ("tcp", "udp") for host in (*far.PRIVATE, far.PRIVATE6)]
    doors += [("udp", "224.0.0.251", 5353)]
    said = await pair.knock(ONE.vm, *doors)
    assert {words for words in said.values()} == {DEAF}
    assert pair.dropped("no private networks") >= before + len(doors) - 1, "multicast is not even forwarded"


async def test_no_neighbour_of_the_host(pair: Pair) -> None:
    """Public addresses on the host's own wires are machines of the operator, not the internet."""
    before = pair.dropped("no neighbours of the host")
    said = await pair.knock(ONE.vm, *(("tcp", h, PORT) for h in (far.NEIGHBOUR, far.NEIGHBOUR6, far.ON_BRIDGE)))
    assert set(said.values()) == {DEAF}
    assert pair.dropped("no neighbours of the host") >= before + 3


async def test_nobody_outside_reaches_a_guest(pair: Pair) -> None:
    before = pair.dropped("nothing new from outside")
    for address in (pair.node.instance.address(2), pair.node.instance.address6(2)):
        wire = far.HOST_SIDE6 if ":" in address else far.HOST_SIDE
        far.ip("-n", far.FAR, "route", "replace", address, "via", wire)
        script = f"import socket; socket.create_connection(('{address}', 1021), 1)"
        knock = subprocess.run(["ip", "netns", "exec", far.FAR, "python3", "-c", script], capture_output=True)
        assert b"timed out" in knock.stderr
    assert pair.dropped("nothing new from outside") > before


async def test_forged_addresses_are_not_heard(pair: Pair) -> None:
    one, before = pair.node.instance.address(2), pair.dropped("forged sender")
    one6 = pair.node.instance.address6(2)
    await pair.says(TWO.vm, f"for a in {one}/32 10.9.9.9/32 {one6}/128; do ip addr add $a dev eth0; done")
    assert await pair.hears(TWO.vm, METADATA_ADDRESS, 80, source=one) == DEAF
    assert await pair.hears(TWO.vm, INTERNET, source="10.9.9.9") == DEAF
    assert await pair.hears(TWO.vm, INTERNET6, source=one6) == DEAF
    assert await pair.hears(TWO.vm, INTERNET) == f"you are {far.HOST_SIDE}", "the honest address still works"
    assert pair.dropped("forged sender") >= before + 3


async def test_forged_macs_and_arp_are_not_heard(pair: Pair) -> None:
    instance = pair.node.instance
    two, two_mac = _hex(instance.address(3)), instance.mac(3).replace(":", "")
    one, one_mac, host = _hex(instance.address(2)), instance.mac(2).replace(":", ""), HOST_MAC.replace(":", "")
    macs, arps, senders = (pair.dropped(words) for words in ("forged mac", "forged arp", "forged sender"))
    arp = "0806" + "0001080006040002"
    await pair.sends(
        TWO.vm,
        host + one_mac + "0800" + "45" + "00" * 60,  # as if from the other guest
        host + two_mac + arp + two_mac + one + host + _hex(GATEWAY),  # "the other guest is me"
        host + two_mac + arp + one_mac + two + host + _hex(GATEWAY),  # "I am at the other guest's MAC"
        host + two_mac + arp + two_mac + _hex(GATEWAY) + host + _hex(GATEWAY),  # "the gateway is me"
        host + two_mac + "8100" + "0005" + "0800" + "45" + "00" * 60,  # in a VLAN
        host + two_mac + "88cc" + "00" * 60,  # not even IP
    )
    assert pair.dropped("forged mac") == macs + 1
    assert pair.dropped("forged arp") == arps + 3
    assert pair.dropped("forged sender") >= senders + 2
    listed = subprocess.run(["ip", "neigh", "show", "dev", instance.tap(3)], capture_output=True, text=True, check=True)
    assert instance.address(2) not in listed.stdout


async def test_no_guest_plays_the_hosts_ipv6_router(pair: Pair) -> None:
    """A router advertisement from a guest must not become the host's route."""
    mac, before = pair.node.instance.mac(2).replace(":", ""), pair.dropped("forged sender")
    header = "60000000" + "0010" + "3aff" + "fe80" + "00" * 13 + "09" + "ff02" + "00" * 13 + "01"
    await pair.sends(ONE.vm, "333300000001" + mac + "86dd" + header + "86000000" + "40000708" + "00" * 8)
    assert pair.dropped("forged sender") >= before + 1
    assert await pair.hears(ONE.vm, GATEWAY6 + "%eth0", PORT) != f"you are {far.HOST_SIDE6}"


async def test_egress_integrations_leaves_metadata_resolver_and_what_is_listed(pair: Pair) -> None:
    """Switched while the guest runs; the other guest keeps its internet."""
    inner = ONE, TWO
    assert await pair.hears(inner[0].vm, LISTED) == f"you are {far.HOST_SIDE}", "listed, so reached in any case"
    confined = replace(ONE, name="guest2", egress=Egress.INTEGRATIONS)
    await pair.driver.update(confined)
    said = await pair.knock(
        ONE.vm, ("tcp", INTERNET, PORT), ("tcp", INTERNET6, PORT), ("tcp", LISTED, PORT), ("tcp", METADATA_ADDRESS, 80),
    )
    assert [words for words in said.values() if words == DEAF] == [DEAF, DEAF]
    assert said[f"tcp {LISTED} {PORT}"] != DEAF != said[f"tcp {METADATA_ADDRESS} 80"]
    assert await pair.hears(TWO.vm, INTERNET) != DEAF
    await pair.node.helper.net_up()
    assert await pair.hears(ONE.vm, INTERNET) == DEAF, "also after the rules were loaded anew"
    await pair.driver.update(replace(confined, egress=Egress.ALL))
    assert await pair.hears(ONE.vm, INTERNET) != DEAF


async def test_uploads_and_downloads_have_a_limit(pair: Pair) -> None:
    script = f"""
import socket
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.connect(("{INTERNET}", {PORT}))
for _ in range(2000): s.send(bytes(1400))"""
    assert await pair.python(TWO.vm, script) == (0, "")
    assert pair.dropped("upload limit") > 0
    before = pair.dropped("download limit")
    script = f"""
import socket
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.connect(("{INTERNET}", {PORT})); s.settimeout(2)
s.send(b"flood"); came = 0
try:
    while True: came += len(s.recv(1500)) == 1400
except TimeoutError: print(came)"""
    status, came = await pair.python(TWO.vm, script)
    assert status == 0 and 0 < int(came) < 2000, came
    assert pair.dropped("download limit") > before


async def test_questions_and_pings_have_a_limit(pair: Pair) -> None:
    """The host's own answers are no way to keep it busy, also when all of them go to the same place."""
    script = f"""
import socket, struct
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.settimeout(5)
s.sendto(b"?" * 30, ("{GATEWAY}", 53)); s.recv(100)
for _ in range(2000): s.sendto(b"?" * 30, ("{GATEWAY}", 53))
p = socket.socket(socket.AF_INET, socket.SOCK_RAW, 1); p.settimeout(1); heard = 0
for n in range(200):
    body = struct.pack(">BBHHH", 8, 0, 0, 9, n); total = sum(struct.unpack(">4H", body))
    p.sendto(struct.pack(">BBHHH", 8, 0, 0xFFFF - total, 9, n), ("{GATEWAY}", 0))
try:
    while True: heard += p.recv(200)[20] == 0
except TimeoutError: print(heard)"""
    questions, pings = pair.dropped("too many questions"), pair.dropped("too many pings")
    loop = asyncio.get_running_loop()
    with facing.udp(pair.node.instance.dns_port) as door:

        def answer() -> None:
            words, who = door.recvfrom(100)
            door.sendto(words, who)

        loop.add_reader(door, answer)
        status, heard = await pair.python(TWO.vm, script)
        loop.remove_reader(door)
    assert status == 0 and 0 < int(heard) < 150, heard
    assert pair.dropped("too many questions") > questions + 500
    assert pair.dropped("too many pings") > pings
    assert await pair.pings(ONE.vm, GATEWAY), "the other guest's are answered"


async def test_a_guest_opens_so_many_connections_and_the_other_one_does_not_feel_it(pair: Pair) -> None:
    script = f"""
import socket, time
held = []
for _ in range({LIMITS.tracked} * 2):
    s = socket.socket(); s.setblocking(False); s.connect_ex(("{INTERNET}", {PORT})); held.append(s); time.sleep(0.007)
time.sleep(1)
def known(s):
    try: s.getpeername()
    except OSError: return False
    return True
print(sum(map(known, held)))"""
    status, said = await pair.python(ONE.vm, script)
    assert status == 0, said
    assert LIMITS.tracked // 2 < int(said) <= LIMITS.tracked
    assert pair.dropped("too many connections") > 0
    assert await pair.hears(TWO.vm, INTERNET) != DEAF


async def test_a_guest_that_scans_is_slowed_down(pair: Pair) -> None:
    script = f"""
import socket
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
for port in range(10000, 14000): s.sendto(b"x", ("{INTERNET}", port))"""
    before = pair.dropped("too many new connections")
    assert await pair.python(TWO.vm, script) == (0, "")
    assert pair.dropped("too many new connections") > before
    assert await pair.hears(ONE.vm, METADATA_ADDRESS, 80) != DEAF


async def test_a_flood_of_frames_ends_at_the_tap(pair: Pair) -> None:
    before = pair.dropped("too many packets")
    mac = pair.node.instance.mac(3).replace(":", "")
    await pair.sends(TWO.vm, HOST_MAC.replace(":", "") + mac + "88cc" + "00" * 46, times=LIMITS.packets * 4)
    assert pair.dropped("too many packets") > before
    assert await pair.hears(ONE.vm, METADATA_ADDRESS, 80) != DEAF


async def test_removed_rules_are_noticed_and_loaded_again(pair: Pair) -> None:
    instance = pair.node.instance
    await pair.node.helper.net_check()
    assert await pair.node.helper.net_check() == (), "nothing to mend"
    for gone in (f"delete table inet {instance.table}", f"delete table netdev {instance.table}_2",
                 f"flush chain inet {instance.table} through",
                 f'delete element inet {instance.table} guests {{ "{instance.tap(2)}" . {instance.address(2)} }}'):
        subprocess.run(["nft", gone], check=True, capture_output=True, timeout=10)
        found = await pair.node.helper.net_check()
        assert [s for s in found if "loaded again" in s] == list(found) != [], gone
    assert await pair.hears(ONE.vm, instance.address(3), 1021) == DEAF
    assert await pair.hears(ONE.vm, INTERNET) != DEAF


async def test_a_lost_tap_comes_back_to_the_running_guest(pair: Pair) -> None:
    tap = pair.node.instance.tap(2)
    for loss in (("link", "set", tap, "down"), ("link", "del", tap)):
        far.ip(*loss)
        found = await pair.node.helper.net_check()
        assert [s for s in found if "it has it back" in s] != [], found
        assert await pair.hears(ONE.vm, INTERNET) == f"you are {far.HOST_SIDE}"
        assert await pair.hears(ONE.vm, far.PRIVATE[0]) == DEAF


async def test_the_resolver_forwards_and_says_when_it_cannot(pair: Pair) -> None:
    """A guest's question reaches the server that the host asks; a silent server is said to be failing."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as upstream:
        upstream.bind(("127.0.0.1", 0))
        upstream.setblocking(False)
        servers, port = [upstream.getsockname()], pair.node.instance.dns_port
        forwarder = asyncio.create_task(Forwarder(facing.udp(port), facing.tcp(port), lambda: servers).run())
        asked = asyncio.create_task(pair.python(ONE.vm, ASK, GATEWAY))
        query, who = await asyncio.get_running_loop().sock_recvfrom(upstream, 600)
        upstream.sendto(query[:2] + b"\x81\x80" + query[4:] + b"answer!", who)
        assert (await asked)[1].endswith(b"answer!".hex())
        servers.clear()
        assert (await pair.python(ONE.vm, ASK, GATEWAY))[1][4:8] == "8182", "SERVFAIL"
        forwarder.cancel()
        await asyncio.gather(forwarder, return_exceptions=True)


ASK = """
import socket, sys
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.settimeout(5); s.connect((sys.argv[1], 53))
s.send(bytes.fromhex("abcd01000001000000000000076578616d706c6503636f6d0000010001"))
print(s.recv(500).hex())"""


def _addresses_of_the_host() -> set[str]:
    listed = json.loads(subprocess.run(["ip", "-j", "addr"], capture_output=True, check=True).stdout)
    links = [link for link in listed if not link["ifname"].startswith("uy") and link["ifname"] != "lo"]
    infos = [info for link in links for info in link["addr_info"]]
    return {info["local"] for info in infos if info["scope"] == "global"}


def _hex(address: str) -> str:
    return socket.inet_aton(address).hex()


async def _who_asks(listening: socket.socket) -> None:
    """Answer every connection with its source address, as the world's server does."""
    loop = asyncio.get_running_loop()
    with listening:
        while True:
            connection, (host, _) = await loop.sock_accept(listening)
            await loop.sock_sendall(connection, f"you are {host}".encode())
            connection.close()
