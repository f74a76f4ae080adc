"""Signed statements to apps of who is asking, which they check without calling us."""
from __future__ import annotations

import math
import re
from base64 import urlsafe_b64encode
from collections.abc import Sequence

import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from ussycode.access.facts import Caller
from ussycode.wire.edge import EdgeSigner

LIFE_SECONDS = 300
"""How long an app may believe a statement."""
RENEW_SECONDS = 50
"""Age at which a new one is made, so that none is a minute old when it leaves here."""
MAX_KEPT = 4096
"""Statements kept, one for each visitor and host; past that all are forgotten and made again."""
PLAIN = re.compile(r"[!-~]{1,320}")
"""What of a person may stand in a header."""


class Assertions:
    """Makes statements and keeps them while they are fresh: signing costs as much as several requests."""

    def __init__(self, issuer: str) -> None:
        """`issuer` is the platform's address; its keys are at `/.well-known/jwks.json` below it."""
        self._issuer = issuer
        self._signers: Sequence[EdgeSigner] = ()
        self._kept: dict[tuple[str, str, str], tuple[bytes, float]] = {}

    def take(self, signers: Sequence[EdgeSigner]) -> None:
        """Sign with the newest of these whose time has come."""
        if signers != self._signers:
            self._signers = signers
            self._kept.clear()

    def line(self, caller: Caller, host: str, now: float) -> tuple[bytes, float]:
        """The header line about `caller` for the app at `host`, and when to ask again; empty without a key."""
        kept = self._kept.get((caller.user, caller.email, host))
        if kept is not None and kept[1] > now:
            return kept
        signer = max((s for s in self._signers if s.signs_from <= now), key=lambda s: s.signs_from, default=None)
        if signer is None:
            return b"", math.inf  # the feed brings one, and every verdict is looked at then
        if len(self._kept) >= MAX_KEPT:
            self._kept.clear()
        token = _signed(signer, self._claims(caller, host, int(now)))
        made = b"X-Ussycode-Assertion: %b\r\n" % token, now + RENEW_SECONDS
        self._kept[caller.user, caller.email, host] = made
        return made

    def _claims(self, caller: Caller, host: str, now: int) -> dict[str, str | int]:
        claims: dict[str, str | int] = {
            "iss": self._issuer, "aud": host, "sub": caller.user, "iat": now, "exp": now + LIFE_SECONDS,
        }
        if PLAIN.fullmatch(caller.email) is not None:
            claims["email"] = caller.email
        return claims


def _signed(signer: EdgeSigner, claims: dict[str, str | int]) -> bytes:
    head = {"alg": "EdDSA", "kid": signer.name, "typ": "JWT"}
    said = _text(msgspec.json.encode(head)) + b"." + _text(msgspec.json.encode(claims))
    return said + b"." + _text(Ed25519PrivateKey.from_private_bytes(signer.seed).sign(said))


def _text(data: bytes) -> bytes:
    return urlsafe_b64encode(data).rstrip(b"=")
