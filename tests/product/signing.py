"""Tokens made by the real ssh-keygen."""
from __future__ import annotations

import base64
import subprocess
from dataclasses import dataclass
from pathlib import Path

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
