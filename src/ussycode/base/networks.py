"""Who counts as one client: an IPv4 address, or the network that whoever has an IPv6 address has all of."""
from __future__ import annotations

import ipaddress
from collections.abc import Sequence

NETWORK6 = 64
"""Bits of an IPv6 address that count."""


class Clients:
    """Tells clients apart by address; those in `exempt` networks have no limits."""

    def __init__(self, exempt: Sequence[str]) -> None:
        self._exempt = [ipaddress.ip_network(text) for text in exempt]

    def key(self, address: str) -> str:
        """What to count a client by; empty for one without limits, and for what is no address."""
        try:
            found = ipaddress.ip_address(address.partition("%")[0])
        except ValueError:
            return ""
        if any(found in network for network in self._exempt):
            return ""
        whole = ipaddress.ip_network((found, NETWORK6), strict=False) if found.version == 6 else found
        return str(whole)
