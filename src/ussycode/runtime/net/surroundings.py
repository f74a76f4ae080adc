"""The host's own networks, read from its routes: nobody's guests may knock there."""
from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Iterator
from typing import Any

import msgspec

from ussycode.runtime.net.policy import SHORTEST_NEIGHBOURHOOD, Network, Surroundings
from ussycode.runtime.net.taps import run

MAX_NEIGHBOURHOODS = 1024
"""Subnets of the host that are taken into the rules; a router with a full table has no more links than this."""


def look() -> Surroundings:
    """The host's surroundings now. Raises subprocess.CalledProcessError when `ip` refuses."""
    routes4, routes6 = (_routes(family) for family in ("-4", "-6"))
    neighbours = tuple(sorted({*_on_link(routes4, 4), *_on_link(routes6, 6)}, key=str))
    return Surroundings(neighbours[:MAX_NEIGHBOURHOODS], ipv6=any(map(_leads_out, routes6)))


def guests(tap_prefix: str) -> frozenset[tuple[str, str]]:
    """Tap and address of every guest that the host has a route to."""
    return frozenset(
        (route["dev"], route["dst"]) for route in _routes("-4") if str(route.get("dev", "")).startswith(tap_prefix)
    )


def _routes(family: str) -> list[dict[str, Any]]:
    return list(msgspec.json.decode(run("ip", "-j", family, "route", "show", "table", "main", text="") or "[]"))


def _on_link(routes: Iterable[dict[str, Any]], version: int) -> Iterator[Network]:
    """Destinations without a next hop, those of taps left out: guests are kept apart by other rules."""
    for route in routes:
        if "gateway" in route or "nexthops" in route or "via" in route or route.get("dst") == "default":
            continue
        if str(route.get("dev", "")).startswith("uy") or ("type" in route and route["type"] != "unicast"):
            continue
        network = ipaddress.ip_network(route["dst"], strict=False)
        if network.prefixlen >= SHORTEST_NEIGHBOURHOOD[version] and not network.is_link_local:
            yield network


def _leads_out(route: dict[str, Any]) -> bool:
    return (
        route.get("dst") == "default" and route.get("dev") not in (None, "lo")
        and route.get("type", "unicast") == "unicast" and "linkdown" not in route.get("flags", [])
    )
