"""A security key in software: what a browser and a device make of WebAuthn's options, and what a cheat would."""
from __future__ import annotations

import hashlib
import json
import secrets
from base64 import urlsafe_b64decode, urlsafe_b64encode
from dataclasses import dataclass, field
from typing import Any

import cbor2
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256

PRESENT, VERIFIED, SYNCABLE, SYNCED, ATTESTED = 1, 4, 8, 16, 64
"""Flags of authenticator data (WebAuthn section 6.1)."""


def text(data: bytes) -> str:
    return urlsafe_b64encode(data).rstrip(b"=").decode()


def data(text: str) -> bytes:
    return urlsafe_b64decode(text + "=" * (-len(text) % 4))


@dataclass
class Authenticator:
    """One credential of one device. `flags` and `origin` are what an honest one says; a test may change them."""

    origin: str = "https://localhost:8443"
    flags: int = PRESENT | VERIFIED
    step: int = 1
    """What its counter grows by; 0 for devices that do not count."""
    count: int = 0
    key: ec.EllipticCurvePrivateKey = field(default_factory=lambda: ec.generate_private_key(ec.SECP256R1()))
    credential: bytes = field(default_factory=lambda: secrets.token_bytes(32))
    handle: bytes = b""
    rp_id: str = "localhost"

    def make(self, options: dict[str, Any], kind: str = "webauthn.create") -> dict[str, Any]:
        """What `navigator.credentials.create(…).toJSON()` gives."""
        self.handle = data(options["user"]["id"])
        point = self.key.public_key().public_numbers()
        public = cbor2.dumps({1: 2, 3: -7, -1: 1, -2: point.x.to_bytes(32), -3: point.y.to_bytes(32)})
        attested = bytes(16) + len(self.credential).to_bytes(2) + self.credential + public
        said = self._said(self.flags | ATTESTED) + attested
        return self._answer(
            clientDataJSON=text(self._client(kind, options["challenge"])),
            attestationObject=text(cbor2.dumps({"fmt": "none", "attStmt": {}, "authData": said})),
        )

    def show(self, options: dict[str, Any], kind: str = "webauthn.get") -> dict[str, Any]:
        """What `navigator.credentials.get(…).toJSON()` gives."""
        client, said = self._client(kind, options["challenge"]), self._said(self.flags)
        signature = self.key.sign(said + hashlib.sha256(client).digest(), ec.ECDSA(SHA256()))
        return self._answer(
            clientDataJSON=text(client), authenticatorData=text(said), signature=text(signature),
            userHandle=text(self.handle),
        )

    def _said(self, flags: int) -> bytes:
        self.count += self.step
        return hashlib.sha256(self.rp_id.encode()).digest() + bytes([flags]) + self.count.to_bytes(4)

    def _client(self, kind: str, challenge: str) -> bytes:
        return json.dumps({"type": kind, "challenge": challenge, "origin": self.origin, "crossOrigin": False}).encode()

    def _answer(self, **response: str) -> dict[str, Any]:
        name = text(self.credential)
        return {"id": name, "rawId": name, "type": "public-key", "clientExtensionResults": {}, "response": response}
