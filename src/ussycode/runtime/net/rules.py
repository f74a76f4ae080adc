"""The nftables table of one instance, as text that is loaded in one atomic transaction."""
from __future__ import annotations

from ussycode.runtime.instance import GATEWAY, METADATA_ADDRESS, Instance

PRIVATE_RANGES = (
    "0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12",
    "192.168.0.0/16", "198.18.0.0/15", "224.0.0.0/3",
)
"""Where a guest may never go: other guests, the operator's own networks, clouds' metadata, multicast."""
PINGS_PER_SECOND = 10
QUERIES_PER_SECOND = 500
"""DNS packets per second from all guests together; above it they are dropped and the guest asks again."""


def table(instance: Instance, guests: tuple[int, ...] = ()) -> str:
    """Text for `nft -f -` that replaces the instance's table; `guests` are the VM numbers let in at once.

    Only traffic of this instance's taps is ever dropped: every chain's policy is accept, because a drop
    policy would cut off whatever else the operator's machine forwards.
    """
    name = instance.table
    return f"table inet {name} {{ }}\ndelete table inet {name}\ntable inet {name} {{\n{_body(instance, guests)}}}\n"


def remove(instance: Instance) -> str:
    """Text that removes the table whether or not it exists."""
    return f"table inet {instance.table} {{ }}\ndelete table inet {instance.table}\n"


def admit(instance: Instance, number: int) -> str:
    """Text that lets VM `number` speak from its own address on its own tap."""
    return f"add element inet {instance.table} guests {{ {_guest(instance, number)} }}\n"


def expel(instance: Instance, number: int) -> str:
    """Text that undoes `admit`; adding first makes the removal of an unknown guest no error."""
    return admit(instance, number) + f"delete element inet {instance.table} guests {{ {_guest(instance, number)} }}\n"


def _guest(instance: Instance, number: int) -> str:
    return f'"{instance.tap(number)}" . {instance.address(number)}'


def _elements(instance: Instance, guests: tuple[int, ...]) -> str:
    listed = ", ".join(_guest(instance, number) for number in guests)
    return f"; elements = {{ {listed} }}" if listed else ""


def _body(instance: Instance, guests: tuple[int, ...]) -> str:
    taps, metadata, dns = f'"{instance.tap_prefix}*"', instance.metadata_port, instance.dns_port
    return f"""\
  set guests {{ type ifname . ipv4_addr{_elements(instance, guests)}
  }}
  chain from_guest {{ type filter hook prerouting priority raw; policy accept;
    iifname {taps} meta nfproto ipv6 counter drop comment "no ipv6"
    iifname {taps} iifname . ip saddr != @guests counter drop comment "anti-spoof"
    iifname != {taps} ip daddr {GATEWAY} meta l4proto {{ tcp, udp }} th dport {{ {metadata}, {dns} }} drop
  }}
  chain redirects {{ type nat hook prerouting priority dstnat; policy accept;
    iifname {taps} ip daddr {METADATA_ADDRESS} tcp dport 80 redirect to :{metadata}
    iifname {taps} ip daddr {GATEWAY} meta l4proto {{ tcp, udp }} th dport 53 redirect to :{dns}
  }}
  chain to_host {{ type filter hook input priority filter; policy accept;
    iifname {taps} ct state established,related accept
    iifname {taps} ct status dnat tcp dport {metadata} accept
    iifname {taps} ct status dnat th dport {dns} limit rate {QUERIES_PER_SECOND}/second accept
    iifname {taps} ip daddr {GATEWAY} icmp type echo-request limit rate {PINGS_PER_SECOND}/second accept
    iifname {taps} counter drop comment "no host services"
  }}
  chain through {{ type filter hook forward priority filter; policy accept;
    iifname {taps} oifname "uy*" counter drop comment "no vm to vm"
    iifname {taps} ip daddr {{ {", ".join(PRIVATE_RANGES)} }} counter drop comment "no private networks"
    iifname {taps} accept
    oifname {taps} ct state established,related accept
    oifname {taps} counter drop comment "nothing new from outside"
  }}
  chain sources {{ type nat hook postrouting priority srcnat; policy accept;
    ip saddr {instance.pool} oifname != "uy*" masquerade
  }}
"""
