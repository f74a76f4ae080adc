"""Firewalls of the host that would swallow guests' packets, said as sentences for `doctor`."""
from __future__ import annotations

from typing import Any

import msgspec


def forward_blockers(ruleset: bytes, tap_prefix: str) -> list[str]:
    """Sentences about chains that drop what is forwarded by default; empty when nothing is in the way.

    `ruleset` is the output of `nft -j list chains`. An accept in our own table does not help against
    another table's drop, so the operator has to allow the taps there.
    """
    listed = msgspec.json.decode(ruleset).get("nftables", [])
    chains = [entry["chain"] for entry in listed if "chain" in entry]
    return [_sentence(chain, chains, tap_prefix) for chain in chains if _drops(chain)]


def _drops(chain: dict[str, Any]) -> bool:
    return (
        chain.get("policy") == "drop"
        and chain.get("hook") in ("forward", "input")
        and not str(chain.get("table", "")).startswith("ussycode_")
        and chain.get("family") in ("ip", "inet")
    )


def _sentence(chain: dict[str, Any], chains: list[dict[str, Any]], tap_prefix: str) -> str:
    taps, names = f"{tap_prefix}+", {str(other.get("name")) for other in chains}
    if "DOCKER-USER" in names and chain["hook"] == "forward":
        return (
            "Docker drops forwarded packets, so guests have no internet: "
            f"iptables -I DOCKER-USER -i {taps} -j ACCEPT; iptables -I DOCKER-USER -o {taps} -j ACCEPT"
        )
    if any(name.startswith("ufw-") for name in names):
        verb = "route allow" if chain["hook"] == "forward" else "allow"
        return f"ufw drops packets of guests by default ({chain['hook']}): ufw {verb} in on {tap_prefix}<n>"
    where = f"{chain['family']} {chain['table']} {chain['name']}"
    return f"the firewall chain {where} drops by default ({chain['hook']}): let interfaces {tap_prefix}* through there"
