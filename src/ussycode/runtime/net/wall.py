"""The wall at one guest's tap: which frames get in at all. One table per guest, replaced in one transaction."""
from __future__ import annotations

from ussycode.runtime.instance import GATEWAY, GATEWAY6, Instance
from ussycode.runtime.net.policy import Policy

DISCOVERIES_PER_SECOND = 50
"""ARP and neighbour discovery frames that one guest may send."""
_ROUTER_GROUP = "ff02::1:ff00:1"
"""Multicast address on which GATEWAY6 is asked for its MAC."""


def name(instance: Instance, number: int) -> str:
    """Name of the guest's table of family netdev."""
    return f"{instance.table}_{number}"


def build(instance: Instance, number: int, policy: Policy, ipv6: bool) -> str:
    """Text that replaces the guest's wall; its tap must exist, and takes the wall along when it goes.

    What is not let in here never reaches the host's ARP table, its routing or its connection table. The guest's
    MAC must be `instance.mac(number)`.
    """
    address, mac = instance.address(number), instance.mac(number)
    return f"""{remove(instance, number)}table netdev {name(instance, number)} {{
  chain frames {{ type filter hook ingress device "{instance.tap(number)}" priority -500; policy drop
    limit rate over {policy.packets}/second burst {policy.packets} packets counter drop comment "too many packets"
    ether saddr != {mac} counter drop comment "forged mac"
    ip saddr {address} accept
    ether type arp limit rate over {DISCOVERIES_PER_SECOND}/second drop
    arp saddr ether {mac} arp saddr ip {address} arp daddr ip {{ {GATEWAY}, {address} }} accept
    ether type arp counter drop comment "forged arp"
{_ipv6(instance.address6(number)) if ipv6 else ""}\
    counter drop comment "forged sender"
  }}
}}
"""


def remove(instance: Instance, number: int) -> str:
    """Text that takes the wall away; no error when there is none."""
    return f"table netdev {name(instance, number)} {{ }}\ndelete table netdev {name(instance, number)}\n"


def _ipv6(address: str) -> str:
    ask = f"icmpv6 type {{ nd-neighbor-solicit, nd-neighbor-advert }} ip6 daddr {{ {GATEWAY6}, {_ROUTER_GROUP} }}"
    return f"""\
    {ask} limit rate over {DISCOVERIES_PER_SECOND}/second drop
    {ask} ip6 saddr fe80::/10 accept
    ip6 saddr {address} accept
"""
