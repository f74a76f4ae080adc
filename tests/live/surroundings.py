"""What lies around a node in network tests: an internet, a LAN, neighbours, a bridge as Docker makes it.

The host's own network plays the host; a namespace behind a veth pair plays everything beyond it.
"""
from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from ussycode.runtime.publish import locked

LOCK = Path("/run/lock/ussycode-test-surroundings")
FAR = "uytest"
PORT = 8377
INTERNET, INTERNET6 = "198.51.100.7", "2001:db8:99::7"
HOST_SIDE, HOST_SIDE6 = "203.0.113.2", "2001:db8:77::2"
NEIGHBOUR, NEIGHBOUR6 = "203.0.113.1", "2001:db8:77::1"
"""A public address on the same wire as the host."""
LISTED = "10.99.1.2"
"""A private address that the operator lists as an integration."""
PRIVATE = (
    "10.99.1.1", "172.31.255.5", "192.168.77.7", "100.64.9.9", "169.254.77.7", "198.18.0.5", "240.0.0.5",
)
PRIVATE6 = "fd12:3456::5"
BRIDGE, ON_BRIDGE = "172.30.99.1", "198.51.100.200"
"""The host's address on a bridge like Docker's, and a container of public address behind another one."""
OTHER_TAP, OTHER_GUEST = "uy99-2", "10.254.0.2"
"""A guest of another instance on the same host."""

TELLS_WHO = f"""
import asyncio, json, socket, subprocess
async def tell(r, w):
    w.write(("you are " + w.get_extra_info("peername")[0]).encode()); await w.drain()
    if await r.read(1) and w.get_extra_info("sockname"): w.close()
class Udp(asyncio.DatagramProtocol):
    def connection_made(self, t): self.t = t
    def datagram_received(self, d, who):
        if d == b"flood":
            for _ in range(2000): self.t.sendto(bytes(1400), who)
        elif len(d) < 100: self.t.sendto(("you are " + who[0]).encode(), who)
async def main():
    loop = asyncio.get_running_loop()
    links = json.loads(subprocess.check_output(["ip", "-j", "addr"]))
    found = [info for link in links for info in link["addr_info"]]
    # Each its own socket, so that the answer comes from the address asked; taps of all VMs share one.
    for address in {{info["local"] for info in found if info["scope"] != "link"}}:
        await loop.create_datagram_endpoint(Udp, (address, {PORT}))
    s = await asyncio.start_server(tell, ["0.0.0.0", "::"], {PORT}, backlog=1000)
    print("ready", flush=True)
    await s.serve_forever()
asyncio.run(main())
"""
"""A server on every address that says who asks, over TCP and UDP."""


def ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True, timeout=10)


@contextmanager
def around_the_host() -> Iterator[None]:
    """Everything above, with a server listening on each address of the host and beyond it.

    There is one host: whoever else wants to play it, in another process, waits.
    """
    with locked(LOCK), ExitStack() as made:
        _remove()
        made.callback(_remove)
        ip("netns", "add", FAR)
        _uplink()
        _bridges()
        _other_instance()
        made.enter_context(_server("ip", "netns", "exec", FAR))
        made.enter_context(_server())
        yield


def _uplink() -> None:
    ip("link", "add", "uplink0", "type", "veth", "peer", "name", "uplink1", "netns", FAR)
    ip("addr", "add", f"{HOST_SIDE}/24", "dev", "uplink0")
    ip("addr", "add", f"{HOST_SIDE6}/64", "dev", "uplink0", "nodad")
    ip("link", "set", "uplink0", "up")
    for words in (("link", "set", "lo", "up"), ("addr", "add", f"{NEIGHBOUR}/24", "dev", "uplink1"),
                  ("addr", "add", f"{NEIGHBOUR6}/64", "dev", "uplink1", "nodad"), ("link", "set", "uplink1", "up")):
        ip("-n", FAR, *words)
    for address in (INTERNET, LISTED, *PRIVATE):
        ip("-n", FAR, "addr", "add", f"{address}/32", "dev", "lo")
        ip("route", "add", f"{address}/32", "via", NEIGHBOUR)
    for address in (INTERNET6, PRIVATE6):
        ip("-n", FAR, "addr", "add", f"{address}/128", "dev", "lo", "nodad")
        ip("-6", "route", "add", f"{address}/128", "via", NEIGHBOUR6)
    # The host "has IPv6" by this, and prefers any route it really has.
    ip("-6", "route", "add", "default", "via", NEIGHBOUR6, "metric", "9000")


def _bridges() -> None:
    ip("link", "add", "dockr99", "type", "bridge")
    ip("addr", "add", f"{BRIDGE}/24", "dev", "dockr99")
    ip("link", "set", "dockr99", "up")
    ip("link", "add", "public0", "type", "veth", "peer", "name", "public1", "netns", FAR)
    ip("addr", "add", "198.51.100.193/26", "dev", "public0")
    ip("link", "set", "public0", "up")
    ip("-n", FAR, "addr", "add", f"{ON_BRIDGE}/26", "dev", "public1")
    ip("-n", FAR, "link", "set", "public1", "up")


def _other_instance() -> None:
    ip("link", "add", OTHER_TAP, "type", "veth", "peer", "name", "other1", "netns", FAR)
    ip("link", "set", OTHER_TAP, "up")
    ip("route", "add", f"{OTHER_GUEST}/32", "dev", OTHER_TAP)
    ip("-n", FAR, "addr", "add", f"{OTHER_GUEST}/32", "dev", "other1")
    ip("-n", FAR, "link", "set", "other1", "up")


def _remove() -> None:
    for words in (("netns", "del", FAR), ("link", "del", "dockr99"), ("link", "del", "uplink0"),
                  ("link", "del", "public0"), ("link", "del", OTHER_TAP)):
        with suppress(subprocess.CalledProcessError):
            ip(*words)


@contextmanager
def _server(*where: str) -> Iterator[None]:
    server = subprocess.Popen([*where, sys.executable, "-c", TELLS_WHO], stdout=subprocess.PIPE)
    assert server.stdout is not None
    assert server.stdout.readline() == b"ready\n"
    try:
        yield
    finally:
        server.kill()
        server.wait(10)
        server.stdout.close()


@dataclass(frozen=True)
class Counters:
    """Dropped packets so far, by the words beside each rule."""

    table: str

    def __call__(self, comment: str) -> int:
        """Packets that all rules with this comment dropped."""
        listed = json.loads(subprocess.run(["nft", "-j", "list", "ruleset"], capture_output=True, check=True).stdout)
        rules = [entry["rule"] for entry in listed["nftables"] if "rule" in entry]
        ours = [r for r in rules if r["table"].startswith(self.table) and r.get("comment") == comment]
        assert ours != [], f"there is a rule that says {comment}"
        return sum(part["counter"]["packets"] for r in ours for part in r["expr"] if "counter" in part)
