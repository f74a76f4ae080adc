"""SSH host keys for a machine whose disk came with those of another one."""
from __future__ import annotations

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

_NAME = "ssh_host_ed25519_key"


def fresh() -> tuple[tuple[str, str], ...]:
    """A new key pair, as files under /etc/ssh by name."""
    key = Ed25519PrivateKey.generate()
    private = key.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption()).decode()
    public = key.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()
    return (_NAME, private), (f"{_NAME}.pub", f"{public}\n")
