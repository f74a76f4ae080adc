"""The certificate of STARTTLS: the operator's, or one that the local authority's signer renews."""
from __future__ import annotations

import os
import ssl

from ussycode.base.clock import Clock
from ussycode.base.pki import Intermediate, Issuer

RENEW_BEFORE = 10 * 86400.0
"""Seconds before its end at which a certificate is replaced."""


class GivenCertificate:
    """PEM chain and key of the operator's, as they were when the platform started."""

    def __init__(self, chain: bytes, key: bytes) -> None:
        self._context = context_of(chain, key)

    def context(self) -> ssl.SSLContext:
        """What the next handshake goes on with."""
        return self._context


class MintedCertificate:
    """One for the base domain, made by `signer` and made anew in time."""

    def __init__(self, signer: Intermediate, domain: str, clock: Clock) -> None:
        self._issuer, self._domain, self._clock = Issuer(signer, clock), domain, clock
        self._mint()

    def context(self) -> ssl.SSLContext:
        """What the next handshake goes on with."""
        if self._due <= self._clock.now():
            self._mint()
        return self._context

    def _mint(self) -> None:
        leaf = self._issuer.leaf(self._domain)
        self._context = context_of(leaf.chain, leaf.key)
        # A signer near its own end gives leaves that are due at once: keep those until they end.
        due = leaf.expires - RENEW_BEFORE
        self._due = due if due > self._clock.now() else leaf.expires


Certificate = GivenCertificate | MintedCertificate


def context_of(chain: bytes, key: bytes) -> ssl.SSLContext:
    """A server context from PEM, through a file in memory: `ssl` takes certificates from files only."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_COMPRESSION
    fd = os.memfd_create("mail", os.MFD_CLOEXEC)
    try:
        os.write(fd, key + b"\n" + chain)
        context.load_cert_chain(f"/proc/self/fd/{fd}")
    finally:
        os.close(fd)
    return context
