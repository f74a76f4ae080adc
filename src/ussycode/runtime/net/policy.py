"""What guests may do on the network: where they may go, and how much of it; pure data."""
from __future__ import annotations

import ipaddress
from dataclasses import dataclass

Network = ipaddress.IPv4Network | ipaddress.IPv6Network

PRIVATE_RANGES = (
    "0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12", "192.0.0.0/24",
    "192.168.0.0/16", "198.18.0.0/15", "224.0.0.0/3",
)
"""Where a guest may never go: other guests, the operator's own networks, clouds' metadata, multicast, reserved."""
PRIVATE_RANGES6 = (
    "::/8", "64:ff9b::/96", "64:ff9b:1::/48", "100::/64", "2001::/32", "2002::/16", "fc00::/7", "fe80::/9",
    "ff00::/8",
)
"""The same of IPv6, with the tunnels (NAT64, Teredo, 6to4) whose addresses carry IPv4 addresses inside."""
SHORTEST_NEIGHBOURHOOD = {4: 8, 6: 32}
"""Routes shorter than this are a tunnel's way to everywhere and no neighbourhood of the host."""


@dataclass(frozen=True)
class Policy:
    """The operator's limits, each for one VM. A guest that exceeds one loses packets, nobody else does."""

    mbit: int = 1000
    """Megabits per second to the internet, and as many from it. The way to the platform itself is not counted."""
    packets: int = 50_000
    """Frames per second that a guest may send at all, to anybody."""
    connections: int = 200
    """New connections (or UDP flows) per second."""
    tracked: int = 2048
    """Connections at once: the host's connection table is shared by all."""
    integrations: tuple[Network, ...] = ()
    """Networks that every guest may reach, private or not, also with `egress integrations`."""
    ipv6: bool = True
    """Give guests IPv6 when the host has it."""


@dataclass(frozen=True)
class Surroundings:
    """What the host's network looks like now: the subnets it shares a link with, and whether IPv6 leads out."""

    neighbours: tuple[Network, ...] = ()
    ipv6: bool = False


USUAL = Policy()
"""The limits when the operator says nothing else."""
NOWHERE = Surroundings()
"""A host without any network."""


def merged(networks: tuple[Network, ...], version: int) -> list[str]:
    """The networks of one IP version, without overlaps: nft refuses sets with overlapping intervals."""
    if version == 4:
        return [str(n) for n in ipaddress.collapse_addresses(n for n in networks if n.version == 4)]
    return [str(n) for n in ipaddress.collapse_addresses(n for n in networks if n.version == 6)]
