"""The nftables table of one instance, as text that is loaded in one atomic transaction."""
from __future__ import annotations

from collections.abc import Iterable

from ussycode.runtime.instance import GATEWAY, GATEWAY6, METADATA_ADDRESS, Instance
from ussycode.runtime.net import wall
from ussycode.runtime.net.policy import (
    NOWHERE,
    PRIVATE_RANGES,
    PRIVATE_RANGES6,
    USUAL,
    Network,
    Policy,
    Surroundings,
    merged,
)

PINGS_PER_SECOND = 10
"""Pings to the gateway that one guest gets answered."""
QUERIES_PER_SECOND = 200
"""DNS packets per second of one guest; above it they are dropped and the guest asks again."""
REMEMBERED = 16_384
"""Guests whose rates are counted at once: as many as there are numbers."""
NONE: tuple[int, ...] = ()


def table(
    instance: Instance, guests: tuple[int, ...] = NONE, policy: Policy = USUAL,
    around: Surroundings = NOWHERE, confined: tuple[int, ...] = NONE,
) -> str:
    """Text for `nft -f -` that replaces the instance's table; `guests` are the VM numbers let in at once.

    `confined` are those of them with `egress integrations`. Only traffic of this instance's taps is ever dropped:
    every chain's policy is accept, because a drop policy would cut off whatever else the operator's machine forwards.
    """
    body = _sets(instance, guests, confined, policy, around) + _chains(instance, policy, around)
    walls = "".join(wall.build(instance, number, policy, around.ipv6) for number in guests)
    return f"{_gone(instance.table)}table inet {instance.table} {{\n{body}}}\n{walls}"


def remove(instance: Instance, guests: Iterable[int] = NONE) -> str:
    """Text that removes the table whether or not it exists, and the walls of `guests`."""
    return _gone(instance.table) + "".join(wall.remove(instance, number) for number in guests)


def admit(
    instance: Instance, number: int, policy: Policy = USUAL, *, ipv6: bool = False, confined: bool = False,
) -> str:
    """Text that lets VM `number` speak, from its own addresses on its own tap only. The tap must exist."""
    return (
        wall.build(instance, number, policy, ipv6) + _elements("add", instance, number)
        + confine(instance, number, confined)
    )


def expel(instance: Instance, number: int) -> str:
    """Text that undoes `admit`; adding first makes the removal of an unknown guest no error."""
    return (
        _elements("add", instance, number) + _elements("delete", instance, number) + confine(instance, number, False)
        + wall.remove(instance, number)
    )


def confine(instance: Instance, number: int, confined: bool) -> str:
    """Text that leaves a guest nothing but metadata, resolver and integrations, or gives it the internet back."""
    element = f'element inet {instance.table} confined {{ "{instance.tap(number)}" }}\n'
    return f"add {element}" + ("" if confined else f"delete {element}")


def _elements(verb: str, instance: Instance, number: int) -> str:
    table = instance.table
    return (
        f"{verb} element inet {table} guests {{ {_guest(instance, number)} }}\n"
        f"{verb} element inet {table} guests6 {{ {_guest6(instance, number)} }}\n"
    )


def _gone(name: str) -> str:
    return f"table inet {name} {{ }}\ndelete table inet {name}\n"


def _guest(instance: Instance, number: int) -> str:
    return f'"{instance.tap(number)}" . {instance.address(number)}'


def _guest6(instance: Instance, number: int) -> str:
    return f'"{instance.tap(number)}" . {instance.address6(number)}'


def _set(name: str, kind: str, elements: Iterable[str]) -> str:
    listed = ", ".join(elements)
    return f"  set {name} {{ type {kind}{f'; elements = {{ {listed} }}' if listed else ''}\n  }}\n"


def _networks(name: str, networks: tuple[Network, ...]) -> str:
    return "".join(
        _set(name + end, f"{kind}; flags interval", merged(networks, version))
        for end, kind, version in (("", "ipv4_addr", 4), ("6", "ipv6_addr", 6))
    )


def _rates(name: str) -> str:
    return f"  set {name} {{ type ifname; flags dynamic,timeout; timeout 1m; size {REMEMBERED}\n  }}\n"


def _sets(
    instance: Instance, guests: tuple[int, ...], confined: tuple[int, ...], policy: Policy, around: Surroundings,
) -> str:
    return (
        _set("guests", "ifname . ipv4_addr", (_guest(instance, n) for n in guests))
        + _set("guests6", "ifname . ipv6_addr", (_guest6(instance, n) for n in guests))
        + _set("confined", "ifname", (f'"{instance.tap(n)}"' for n in confined))
        + _networks("integrations", policy.integrations) + _networks("neighbours", around.neighbours)
        + "".join(_rates(name) for name in ("births", "queries", "pings", "uploads", "downloads"))
        + f"  set tracked {{ type ifname; flags dynamic; size {REMEMBERED}\n  }}\n"
    )


def _chains(instance: Instance, policy: Policy, around: Surroundings) -> str:
    taps, metadata, dns = f'"{instance.tap_prefix}*"', instance.metadata_port, instance.dns_port
    rate = f"{policy.mbit * 1_000_000 // 8 // 1024} kbytes/second burst {policy.mbit * 1_000_000 // 32 // 1024} kbytes"
    return f"""\
  chain from_guest {{ type filter hook prerouting priority raw; policy accept;
    {_ipv6_at_the_door(taps, around.ipv6)}
    iifname {taps} meta nfproto ipv4 iifname . ip saddr != @guests counter drop comment "anti-spoof"
    iifname != {taps} ip daddr {GATEWAY} meta l4proto {{ tcp, udp }} th dport {{ {metadata}, {dns} }} drop
  }}
  chain measure {{ type filter hook prerouting priority mangle; policy accept;
    iifname {taps} ct state untracked accept
    iifname {taps} ct state invalid counter drop comment "no stray packets"
    iifname {taps} ip daddr != {GATEWAY} fib daddr type local counter drop comment "no host addresses"
    iifname {taps} ip6 daddr != {GATEWAY6} fib daddr type local counter drop comment "no host addresses"
    iifname {taps} ct status & confirmed == confirmed accept
    iifname {taps} update @births {{ iifname limit rate over {policy.connections}/second \
burst {policy.connections * 5} packets }} counter drop comment "too many new connections"
    iifname {taps} add @tracked {{ iifname ct count over {policy.tracked} }} counter drop \
comment "too many connections"
  }}
  chain redirects {{ type nat hook prerouting priority dstnat; policy accept;
    iifname {taps} ip daddr {METADATA_ADDRESS} tcp dport 80 redirect to :{metadata}
    iifname {taps} ip daddr {GATEWAY} meta l4proto {{ tcp, udp }} th dport 53 redirect to :{dns}
  }}
  chain to_host {{ type filter hook input priority filter; policy accept;
    iifname {taps} icmpv6 type {{ nd-neighbor-solicit, nd-neighbor-advert }} accept
    iifname {taps} ct status dnat th dport {dns} update @queries {{ iifname limit rate over \
{QUERIES_PER_SECOND}/second burst {QUERIES_PER_SECOND} packets }} counter drop comment "too many questions"
    iifname {taps} icmp type echo-request update @pings {{ iifname limit rate over \
{PINGS_PER_SECOND}/second burst {PINGS_PER_SECOND} packets }} counter drop comment "too many pings"
    iifname {taps} ct state established,related accept
    iifname {taps} ct status dnat tcp dport {metadata} accept
    iifname {taps} ct status dnat th dport {dns} accept
    iifname {taps} icmp type echo-request ip daddr {GATEWAY} accept
    iifname {taps} counter drop comment "no host services"
  }}
  chain through {{ type filter hook forward priority filter; policy accept;
    iifname {taps} oifname "uy*" counter drop comment "no vm to vm"
    iifname {taps} update @uploads {{ iifname limit rate over {rate} }} counter drop comment "upload limit"
    iifname {taps} ip daddr @integrations accept
    iifname {taps} ip6 daddr @integrations6 accept
    iifname {taps} iifname @confined counter drop comment "egress integrations"
    iifname {taps} ip daddr {{ {", ".join(PRIVATE_RANGES)} }} counter drop comment "no private networks"
    iifname {taps} ip6 daddr {{ {", ".join(PRIVATE_RANGES6)} }} counter drop comment "no private networks"
    iifname {taps} ip daddr @neighbours counter drop comment "no neighbours of the host"
    iifname {taps} ip6 daddr @neighbours6 counter drop comment "no neighbours of the host"
    iifname {taps} accept
    oifname {taps} update @downloads {{ oifname limit rate over {rate} }} counter drop comment "download limit"
    oifname {taps} ct state established,related accept
    oifname {taps} counter drop comment "nothing new from outside"
  }}
  chain sources {{ type nat hook postrouting priority srcnat; policy accept;
    ip saddr {instance.pool} oifname != "uy*" masquerade
    ip6 saddr {instance.pool6} oifname != "uy*" masquerade
  }}
"""


def _ipv6_at_the_door(taps: str, ipv6: bool) -> str:
    if not ipv6:
        return f'iifname {taps} meta nfproto ipv6 counter drop comment "no ipv6"'
    discovery = f"iifname {taps} icmpv6 type {{ nd-neighbor-solicit, nd-neighbor-advert }} accept"
    own = f'iifname {taps} meta nfproto ipv6 iifname . ip6 saddr != @guests6 counter drop comment "anti-spoof"'
    return f"{discovery}\n    {own}"
