"""Certificates by the name that a client asks for: minted and kept, or given as files."""
from __future__ import annotations

import ssl
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path

from cryptography import x509

from ussycode.base.clock import Clock
from ussycode.base.pki import Issuer, Leaf
from ussycode.doors.edge.contexts import context_of, with_files
from ussycode.doors.edge.counters import Counters
from ussycode.doors.edge.hosts import HostKind, Hosts

MAX_KEPT = 4096
"""Certificates kept ready, about 28 KiB each; the one unused for longest goes first."""
MINT_RATE = 50.0
"""New certificates per second in the long run. One takes about a millisecond, like the handshake it serves."""
MINT_BURST = 500.0
Elsewhere = Callable[[str], ssl.SSLContext | None]
"""The context of a name outside our domain."""
RENEW_BEFORE = 10 * 86400.0
"""Seconds before its end at which a kept certificate is replaced."""


class Budget:
    """A token bucket: `rate` per second, at most `burst` saved up."""

    def __init__(self, rate: float, burst: float, clock: Clock) -> None:
        self._rate, self._burst, self._clock = rate, burst, clock
        self._left, self._at = burst, clock.now()

    def spend(self) -> bool:
        """Take one; False when there is none."""
        now = self._clock.now()
        self._left = min(self._burst, self._left + max(0.0, now - self._at) * self._rate)
        self._at = now
        if self._left < 1:
            return False
        self._left -= 1
        return True


class Minted:
    """Exact-name certificates for every well-formed host of ours, whether or not a VM has it.

    Names outside our domain are served with what `elsewhere` knows: the signer here may not sign for them.
    """

    def __init__(self, issuer: Issuer, hosts: Hosts, clock: Clock, counters: Counters, elsewhere: Elsewhere) -> None:
        self._issuer, self._hosts, self._clock, self._counters = issuer, hosts, clock, counters
        self._elsewhere = elsewhere
        self._budget = Budget(MINT_RATE, MINT_BURST, clock)
        self._kept: OrderedDict[str, tuple[ssl.SSLContext, float]] = OrderedDict()
        self._main = issuer.leaf(hosts.domain)

    def context(self) -> ssl.SSLContext:
        """The context of a listener; each handshake moves on to the one of its name."""
        context = _of_leaf(self._main)
        context.sni_callback = self._choose
        return context

    def _choose(self, connection: ssl.SSLObject, name: str | None, _: ssl.SSLContext) -> int | None:
        if name is None:
            return None
        found = self._for(name.lower())
        if found is None:
            return ssl.ALERT_DESCRIPTION_UNRECOGNIZED_NAME
        connection.context = found
        return None

    def _for(self, name: str) -> ssl.SSLContext | None:
        kept = self._kept.get(name)
        if kept is not None and kept[1] > self._clock.now():
            self._kept.move_to_end(name)
            return kept[0]
        ours = self._hosts.own(name).kind is not HostKind.NOWHERE
        if not ours and (found := self._elsewhere(name)) is not None:
            return found
        if not ours or not self._budget.spend():
            self._counters.add("certificates_refused")
            return None
        return self._mint(name)

    def _mint(self, name: str) -> ssl.SSLContext:
        leaf = self._issuer.leaf(name)
        context = _of_leaf(leaf)
        # An intermediate near its own end gives leaves that are due at once: keep those until they end.
        due = leaf.expires - RENEW_BEFORE
        self._kept[name] = (context, due if due > self._clock.now() else leaf.expires)
        self._kept.move_to_end(name)
        if len(self._kept) > MAX_KEPT:
            self._kept.popitem(last=False)
        self._counters.add("certificates_minted")
        return context


class Given:
    """Certificate files of the operator, chosen by the names inside them; the first is the default."""

    def __init__(self, pairs: list[tuple[str, str]], elsewhere: Elsewhere) -> None:
        self._elsewhere = elsewhere
        self._pairs = [(_names(Path(chain)), with_files(chain, key)) for chain, key in pairs]

    def context(self) -> ssl.SSLContext:
        """The context of a listener."""
        context = self._pairs[0][1]
        context.sni_callback = self._choose
        return context

    def _choose(self, connection: ssl.SSLObject, name: str | None, _: ssl.SSLContext) -> int | None:
        wanted = (name or "").lower()
        wildcard = "*." + wanted.partition(".")[2]
        for names, context in self._pairs:
            if wanted in names or wildcard in names:
                connection.context = context
                return None
        if (found := self._elsewhere(wanted)) is not None:
            connection.context = found
        return None  # else the default certificate: the client says what it thinks of it


def _of_leaf(leaf: Leaf) -> ssl.SSLContext:
    return context_of(leaf.chain, leaf.key)


def _names(chain: Path) -> frozenset[str]:
    certificate = x509.load_pem_x509_certificate(chain.read_bytes())
    found = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    return frozenset(name.lower() for name in found.value.get_values_for_type(x509.DNSName))
