"""Tokens made by the real ssh-keygen."""
from __future__ import annotations

import base64
import hashlib
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

from ussycode.identity.keys import PublicKey, read_public_key

KINDS = {
    "ed25519": ("-t", "ed25519"), "ecdsa-256": ("-t", "ecdsa", "-b", "256"), "ecdsa-384": ("-t", "ecdsa", "-b", "384"),
    "ecdsa-521": ("-t", "ecdsa", "-b", "521"), "rsa": ("-t", "rsa", "-b", "2048"),
}
"""Key types that everybody's ssh-keygen makes without a device."""


def b64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


@dataclass(frozen=True)
class Signer:
    """A key pair in files."""

    file: Path
    public: PublicKey

    @classmethod
    def make(cls, folder: Path, kind: str = "ed25519") -> Signer:
        file = folder / f"key-{kind}"
        command = ["ssh-keygen", "-q", *KINDS[kind], "-N", "", "-C", kind, "-f", str(file)]
        subprocess.run(command, check=True, timeout=30)
        return cls(file, read_public_key(file.with_suffix(".pub").read_text()))

    def signature(self, message: bytes, namespace: str = "v0@localhost", hash_name: str = "sha512") -> bytes:
        command = ["ssh-keygen", "-q", "-Y", "sign", "-f", str(self.file), "-n", namespace]
        command += ["-O", f"hashalg={hash_name}"]
        done = subprocess.run(command, input=message, capture_output=True, check=True, timeout=30)
        return base64.b64decode(b"".join(done.stdout.strip().split(b"\n")[1:-1]))

    def token(self, payload: str = "{}", namespace: str = "v0@localhost", hash_name: str = "sha512") -> str:
        return f"usy0.{b64(payload.encode())}.{b64(self.signature(payload.encode(), namespace, hash_name))}"


TOUCHED, VERIFIED = 1, 4
"""Flags of a security key's signature (PROTOCOL.u2f of OpenSSH)."""


def _field(data: bytes) -> bytes:
    return len(data).to_bytes(4, "big") + data


def _mpint(number: int) -> bytes:
    return _field(number.to_bytes(number.bit_length() // 8 + 1, "big"))


@dataclass
class SecurityKey:
    """A security key in software, `ed25519` or `ecdsa`; it says what `flags` tell it to say."""

    kind: str
    flags: int = TOUCHED
    count: int = 0
    ed: ed25519.Ed25519PrivateKey = field(default_factory=ed25519.Ed25519PrivateKey.generate)
    nist: ec.EllipticCurvePrivateKey = field(default_factory=lambda: ec.generate_private_key(ec.SECP256R1()))

    @property
    def blob(self) -> bytes:
        """The public key as SSH writes it; its application is `ssh:`."""
        if self.kind == "ed25519":
            raw = self.ed.public_key().public_bytes_raw()
            return _field(b"sk-ssh-ed25519@openssh.com") + _field(raw) + _field(b"ssh:")
        point = self.nist.public_key().public_bytes(
            serialization.Encoding.X962, serialization.PublicFormat.UncompressedPoint)
        kind = _field(b"sk-ecdsa-sha2-nistp256@openssh.com") + _field(b"nistp256")
        return kind + _field(point) + _field(b"ssh:")

    @property
    def line(self) -> str:
        """The line of a `.pub` file."""
        kind = self.blob[4 : 4 + int.from_bytes(self.blob[:4], "big")].decode()
        return f"{kind} {base64.b64encode(self.blob).decode()} {self.kind}-key"

    def token(self, payload: str = "{}", namespace: str = "v0@localhost") -> str:
        """A signed token, as `ssh-keygen -Y sign` makes one with a device."""
        self.count += 1
        about = (_field(namespace.encode()), _field(b""), _field(b"sha512"))
        message = b"SSHSIG" + b"".join(about) + _field(hashlib.sha512(payload.encode()).digest())
        tail = bytes([self.flags]) + self.count.to_bytes(4, "big")
        signature = self._sign(hashlib.sha256(b"ssh:").digest() + tail + hashlib.sha256(message).digest())
        made = b"SSHSIG" + (1).to_bytes(4, "big") + _field(self.blob) + b"".join(about) + _field(signature + tail)
        return f"usy0.{b64(payload.encode())}.{b64(made)}"

    def _sign(self, message: bytes) -> bytes:
        if self.kind == "ed25519":
            return _field(b"sk-ssh-ed25519@openssh.com") + _field(self.ed.sign(message))
        r, s = decode_dss_signature(self.nist.sign(message, ec.ECDSA(hashes.SHA256())))
        return _field(b"sk-ecdsa-sha2-nistp256@openssh.com") + _field(_mpint(r) + _mpint(s))
