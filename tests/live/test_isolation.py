"""Real packets from two real guests: what must get through does, and nothing else.

The host's own network plays the host; a namespace behind a veth pair plays the uplink, with one address of the
internet and one of a private network.
"""
from __future__ import annotations

import asyncio
import socket
import subprocess
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from tests.contract.check_driver import until, want
from tests.live.node import Node, running_node
from ussycode.agent.dns import Forwarder
from ussycode.agent.link import LocalLink
from ussycode.runtime.driver import Phase
from ussycode.runtime.drivers.qemu.driver import QemuDriver
from ussycode.runtime.guest.execs import ExecSpec, Exit, Stderr, Stdout
from ussycode.runtime.images.store import Image, ImageStore
from ussycode.runtime.instance import GATEWAY, METADATA_ADDRESS
from ussycode.runtime.kernel import BootFiles
from ussycode.runtime.net import facing

pytestmark = pytest.mark.timeout(300)

UPLINK = "uytest"
INTERNET, LAN, HOST_SIDE, FAR_SIDE = "198.51.100.7", "172.31.255.5", "203.0.113.2", "203.0.113.1"
ONE, TWO = want("vm_isolationoneaaaa", 2), want("vm_isolationtwoaaaa", 3)
PORT = 8377
DEAF = 3
"""Exit status of the probe when nobody answered within two seconds."""

PROBE = """
import socket, sys
kind, host, port, source = sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4]
s = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, getattr(socket, kind))
s.settimeout(2)
try:
    if source: s.bind((source, 0))
    s.connect((host, port))
    s.sendall(b"GET / HTTP/1.0\\r\\n\\r\\n" if kind == "SOCK_STREAM" else bytes.fromhex(
        "abcd01000001000000000000076578616d706c6503636f6d0000010001"))
    print(s.recv(500).decode("latin1"))
except OSError as error:
    print(error); sys.exit(3)
"""


IPV6_FRAME = """python3 -c '
import socket
s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW); s.bind(("eth0", 0)); mac = s.getsockname()[4]
address = bytes.fromhex("fe80") + bytes(13)
head, tail = "86dd60000000" + "0000" + "3b40", "fe80" + "00" * 13
s.send(bytes.fromhex("020000000001") + mac + bytes.fromhex(head + tail + "09" + tail + "01"))'"""
"""An IPv6 packet without content to the host's end of the tap, made by hand: the guest need not speak IPv6."""


def ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True, timeout=10)


@pytest.fixture
def uplink() -> object:
    """A namespace that is the rest of the world, with a web server that tells who asks."""
    with suppress(subprocess.CalledProcessError):
        ip("netns", "del", UPLINK)
    ip("netns", "add", UPLINK)
    ip("link", "add", "uplink0", "type", "veth", "peer", "name", "uplink1", "netns", UPLINK)
    ip("addr", "add", f"{HOST_SIDE}/24", "dev", "uplink0")
    ip("link", "set", "uplink0", "up")
    for words in (("addr", "add", f"{FAR_SIDE}/24", "dev", "uplink1"), ("link", "set", "uplink1", "up"),
                  ("link", "set", "lo", "up"), ("addr", "add", f"{INTERNET}/32", "dev", "lo"),
                  ("addr", "add", f"{LAN}/32", "dev", "lo")):
        ip("-n", UPLINK, *words)
    ip("route", "add", f"{INTERNET}/32", "via", FAR_SIDE)
    ip("route", "add", f"{LAN}/32", "via", FAR_SIDE)
    server = subprocess.Popen(["ip", "netns", "exec", UPLINK, "python3", "-c", TELLS_WHO.replace("PORT", str(PORT))])
    yield None
    server.kill()
    server.wait(10)
    ip("link", "del", "uplink0")
    ip("netns", "del", UPLINK)


TELLS_WHO = """
import socket
s = socket.create_server(("0.0.0.0", PORT))
while True:
    c, who = s.accept()
    c.sendall(("you are " + who[0]).encode()); c.close()
"""


@dataclass
class Pair:
    """Two running guests and the node they run on."""

    node: Node
    driver: QemuDriver

    async def says(self, vm: str, command: str) -> tuple[int, str]:
        """Status and output of a command in a guest."""
        out, status = b"", -1
        async for event in await LocalLink(self.driver).open_exec(vm, ExecSpec(cmd=command, user="root")):
            match event:
                case Stdout(data) | Stderr(data):
                    out += data
                case Exit(code):
                    status = code
        return status, out.decode(errors="replace").strip()

    async def probe(
        self, vm: str, host: str, port: int, kind: str = "SOCK_STREAM", source: str = ""
    ) -> tuple[int, str]:
        """Knock from inside a guest."""
        return await self.says(vm, f"python3 -c '{PROBE}' {kind} {host} {port} '{source}'")

    async def deaf(self, vm: str, host: str, port: int, source: str = "") -> None:
        """Assert that nobody answers there."""
        status, said = await self.probe(vm, host, port, source=source)
        assert (status, "you are" in said) == (DEAF, False), (host, port, said)


@pytest.fixture
async def pair(image_store: ImageStore, boot: BootFiles, debian_min: Image, uplink: object) -> AsyncIterator[Pair]:
    async with running_node(image_store, boot) as node:
        driver = await node.driver()
        for one in (ONE, TWO):
            await driver.prepare(one)
            await driver.start(replace(one, name=f"guest{one.number}"))
        for one in (ONE, TWO):
            await until(driver, one.vm, Phase.RUNNING)
        yield Pair(node, driver)
        await driver.close()


async def test_guests_reach_the_world_and_nothing_near(pair: Pair) -> None:
    told: list[str] = []
    listening = facing.tcp(pair.node.instance.metadata_port), _host_service()
    servers = [asyncio.create_task(_who_asks(one, told)) for one in listening]
    try:
        await _check(pair, told)
    finally:
        for server in servers:
            server.cancel()
        await asyncio.gather(*servers, return_exceptions=True)


async def _check(pair: Pair, told: list[str]) -> None:
    instance = pair.node.instance
    one, two = instance.address(2), instance.address(3)
    for vm, address in ((ONE.vm, one), (TWO.vm, two)):
        status, said = await pair.probe(vm, METADATA_ADDRESS, 80)
        assert (status, said) == (0, f"you are {address}"), "metadata sees the true source"
    assert await pair.probe(ONE.vm, INTERNET, PORT) == (0, f"you are {HOST_SIDE}"), "out through NAT"
    assert (await pair.says(ONE.vm, _ping(GATEWAY)))[0] == 0, "the gateway answers pings"

    told.clear()
    await pair.deaf(ONE.vm, two, 1021)
    await pair.deaf(ONE.vm, GATEWAY, PORT)
    await pair.deaf(ONE.vm, HOST_SIDE, PORT)
    await pair.deaf(ONE.vm, GATEWAY, instance.metadata_port)
    await pair.deaf(ONE.vm, LAN, PORT)
    assert (await pair.says(ONE.vm, _ping(two)))[0] != 0, "no ping from guest to guest"
    assert told == [], "nothing of the host answered"

    await pair.says(TWO.vm, f"ip addr add {one}/32 dev eth0; ip addr add 10.9.9.9/32 dev eth0")
    await pair.deaf(TWO.vm, METADATA_ADDRESS, 80, source=one)
    await pair.deaf(TWO.vm, INTERNET, PORT, source="10.9.9.9")
    assert told == [], "forged senders are not heard"
    assert (await pair.probe(TWO.vm, METADATA_ADDRESS, 80))[0] == 0, "the honest address still works"
    second_wall = Path(f"/proc/sys/net/ipv6/conf/{instance.tap(2)}/disable_ipv6")
    assert second_wall.read_text() == "1\n", "the host speaks no IPv6 on taps"
    second_wall.write_text("0")  # and if it did, the rules would not let it in
    assert await pair.says(ONE.vm, IPV6_FRAME) == (0, ""), "sent, and counted below as dropped"
    _counters_moved(instance.table)
    await _resolver(pair)


async def _resolver(pair: Pair) -> None:
    """A guest's question reaches the server that the host asks; a silent server is said to be failing."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as upstream:
        upstream.bind(("127.0.0.1", 0))
        upstream.setblocking(False)
        servers = [upstream.getsockname()]
        port = pair.node.instance.dns_port
        forwarder = asyncio.create_task(Forwarder(facing.udp(port), facing.tcp(port), lambda: servers).run())
        asked = asyncio.create_task(pair.probe(ONE.vm, GATEWAY, 53, "SOCK_DGRAM"))
        query, who = await asyncio.get_running_loop().sock_recvfrom(upstream, 600)
        upstream.sendto(query[:2] + b"\x81\x80" + query[4:] + b"answer!", who)
        status, said = await asked
        assert (status, said.endswith("answer!")) == (0, True), said
        servers.clear()
        status, said = await pair.probe(ONE.vm, GATEWAY, 53, "SOCK_DGRAM")
        assert (status, said.encode("latin1")[2:4]) == (0, b"\x81\x82"), "SERVFAIL"
        forwarder.cancel()
        await asyncio.gather(forwarder, return_exceptions=True)


def _counters_moved(table: str) -> None:
    """The rules did it, not a broken path."""
    listed = subprocess.run(["nft", "list", "table", "inet", table], capture_output=True, text=True, check=True).stdout
    for comment in ("anti-spoof", "no host services", "no vm to vm", "no private networks", "no ipv6"):
        line = next(line for line in listed.splitlines() if f'"{comment}"' in line)
        assert "packets 0 " not in line, line


def _ping(address: str) -> str:
    """A ping from Python: the minimal image has no ping program."""
    return f"""python3 -c '
import socket, struct
s = socket.socket(socket.AF_INET, socket.SOCK_RAW, 1); s.settimeout(2)
body = struct.pack(">BBHHH", 8, 0, 0, 7, 1); total = sum(struct.unpack(">4H", body))
s.sendto(struct.pack(">BBHHH", 8, 0, 0xFFFF - total, 7, 1), ("{address}", 0))
while s.recv(200)[20] != 0: pass'"""


def _host_service() -> socket.socket:
    service = socket.create_server(("0.0.0.0", PORT))
    service.setblocking(False)
    return service


async def _who_asks(listening: socket.socket, told: list[str]) -> None:
    """Answer every connection with its source address, as the world's server does."""
    loop = asyncio.get_running_loop()
    with listening:
        while True:
            connection, (host, _) = await loop.sock_accept(listening)
            told.append(host)
            await loop.sock_sendall(connection, f"you are {host}".encode())
            connection.close()
