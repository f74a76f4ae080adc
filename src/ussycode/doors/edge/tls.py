"""Certificates by the name that a client asks for: minted and kept, or given as files."""
from __future__ import annotations

import os
import ssl
from collections import OrderedDict
from pathlib import Path

from cryptography import x509

from ussycode.base.clock import Clock
from ussycode.base.pki import Issuer, Leaf
from ussycode.doors.edge.counters import Counters
from ussycode.doors.edge.hosts import HostKind, Hosts

MAX_KEPT = 4096
"""Certificates kept ready, about 28 KiB each; the one unused for longest goes first."""
MINT_RATE = 50.0
"""New certificates per second in the long run. One takes about a millisecond, like the handshake it serves."""
MINT_BURST = 500.0
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
    """Exact-name certificates for every well-formed host, whether or not a VM has it."""

    def __init__(self, issuer: Issuer, hosts: Hosts, clock: Clock, counters: Counters) -> None:
        self._issuer, self._hosts, self._clock, self._counters = issuer, hosts, clock, counters
        self._budget = Budget(MINT_RATE, MINT_BURST, clock)
        self._kept: OrderedDict[str, tuple[ssl.SSLContext, float]] = OrderedDict()
        self._main = issuer.leaf(hosts.domain)

    def context(self) -> ssl.SSLContext:
        """The context of a listener; each handshake moves on to the one of its name."""
        context = context_of(self._main)
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
        if self._hosts.target(name).kind is HostKind.NOWHERE or not self._budget.spend():
            self._counters.add("certificates_refused")
            return None
        return self._mint(name)

    def _mint(self, name: str) -> ssl.SSLContext:
        leaf = self._issuer.leaf(name)
        context = context_of(leaf)
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

    def __init__(self, pairs: list[tuple[str, str]]) -> None:
        self._pairs = [(_names(Path(chain)), _with_files(chain, key)) for chain, key in pairs]

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
        return None  # the default certificate: the client says what it thinks of it


def context_of(leaf: Leaf) -> ssl.SSLContext:
    """A server context for `leaf`, through a file in memory: `ssl` takes certificates from files only."""
    fd = os.memfd_create("leaf", os.MFD_CLOEXEC)
    try:
        os.write(fd, leaf.key + leaf.chain)
        return _with_files(f"/proc/self/fd/{fd}", None)
    finally:
        os.close(fd)


def _with_files(chain: str, key: str | None) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_COMPRESSION
    context.set_alpn_protocols(["http/1.1"])
    context.load_cert_chain(chain, key)
    return context


def _names(chain: Path) -> frozenset[str]:
    certificate = x509.load_pem_x509_certificate(chain.read_bytes())
    found = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    return frozenset(name.lower() for name in found.value.get_values_for_type(x509.DNSName))
