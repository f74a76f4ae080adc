"""How much one address and one account may ask of one edge process; more is answered with 429, never dropped.

    Limits    everybody who is known at present
      Payer   one address or account: connections open, and requests it may still make now
"""
from __future__ import annotations

import functools
import ipaddress
from collections import OrderedDict

from ussycode.doors.edge.settings import EdgeSettings

BURST_SECONDS = 5.0
"""What may be used at once, as seconds of the rate: a page with hundreds of parts is no attack."""
MAX_KEPT = 65_536
"""Addresses and accounts remembered each; beyond it the one unseen for longest starts afresh."""
NETWORK6 = 64
"""Bits of an IPv6 address that count: whoever has one has all of the network below."""


class Payer:
    """A token bucket without a clock of its own, and a count of connections."""

    __slots__ = ("_at", "_burst", "_left", "_rate", "open")

    def __init__(self, rate: float, now: float) -> None:
        self.open = 0
        self._rate, self._burst = rate, rate * BURST_SECONDS
        self._left, self._at = self._burst, now

    def spend(self, now: float) -> bool:
        """Take one of what is allowed; False when there is none left. A rate of 0 is no limit."""
        if now != self._at:
            self._left = min(self._burst, self._left + (now - self._at) * self._rate)
            self._at = now
        if self._left < 1 and self._rate:
            return False
        self._left -= 1
        return True


class Limits:
    """Payers by address and by account."""

    def __init__(self, settings: EdgeSettings) -> None:
        self._settings = settings
        self._exempt = [ipaddress.ip_network(text) for text in settings.limit_exempt]
        self._requests: OrderedDict[bytes, Payer] = OrderedDict()
        self._arrivals: OrderedDict[bytes, Payer] = OrderedDict()
        self._accounts: OrderedDict[bytes, Payer] = OrderedDict()
        self._free = Payer(0, 0.0)
        self._key = functools.lru_cache(MAX_KEPT)(self._read)

    @property
    def known(self) -> int:
        """Addresses remembered."""
        return len(self._requests)

    def of_requests(self, address: bytes, now: float) -> Payer:
        """Who pays for requests from `address`."""
        return self._of(self._requests, self._key(address), self._settings.limit_requests, now)

    def of_arrivals(self, address: bytes, now: float) -> Payer:
        """Who pays for new connections from `address`, and counts those that are open."""
        return self._of(self._arrivals, self._key(address), self._settings.limit_handshakes, now)

    def of_account(self, user: str, now: float) -> Payer:
        """Who pays for requests in the name of an account, whatever address they come from."""
        return self._of(self._accounts, user.encode(), self._settings.limit_account, now)

    def too_many(self, payer: Payer) -> bool:
        """Whether its latest connection is one too many."""
        limit = self._settings.limit_connections
        return bool(limit) and payer is not self._free and payer.open > limit

    def _of(self, kept: OrderedDict[bytes, Payer], key: bytes, rate: float, now: float) -> Payer:
        if not key:
            return self._free
        payer = kept.get(key)
        if payer is None:
            payer = kept[key] = Payer(rate, now)
            if len(kept) > MAX_KEPT:
                kept.popitem(last=False)
        else:
            kept.move_to_end(key)
        return payer

    def _read(self, address: bytes) -> bytes:
        """What an address is remembered by; empty for those without limits."""
        try:
            found = ipaddress.ip_address(address.decode("ascii").partition("%")[0])
        except ValueError:
            return b""  # a unix socket has none
        if any(found in network for network in self._exempt):
            return b""
        if isinstance(found, ipaddress.IPv6Address):
            return ipaddress.ip_network((found, NETWORK6), strict=False).network_address.packed
        return found.packed
