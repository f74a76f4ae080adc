"""SSHSIG: the detached signatures of `ssh-keygen -Y sign`, parsed and checked."""
from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass

from asyncssh.public_key import KeyImportError, decode_ssh_public_key

MAGIC = b"SSHSIG"
VERSION = 1
MIN_RSA_BITS = 2048
"""Smallest RSA modulus that counts; what ssh-keygen makes has 3072."""
HASHES = {b"sha256": hashlib.sha256, b"sha512": hashlib.sha512}
ALGORITHMS: Mapping[bytes, frozenset[bytes]] = {
    b"ssh-ed25519": frozenset({b"ssh-ed25519"}),
    b"ssh-rsa": frozenset({b"rsa-sha2-256", b"rsa-sha2-512"}),
    b"ecdsa-sha2-nistp256": frozenset({b"ecdsa-sha2-nistp256"}),
    b"ecdsa-sha2-nistp384": frozenset({b"ecdsa-sha2-nistp384"}),
    b"ecdsa-sha2-nistp521": frozenset({b"ecdsa-sha2-nistp521"}),
    b"sk-ssh-ed25519@openssh.com": frozenset({b"sk-ssh-ed25519@openssh.com"}),
    b"sk-ecdsa-sha2-nistp256@openssh.com": frozenset({b"sk-ecdsa-sha2-nistp256@openssh.com"}),
}
"""Signature algorithms by key type. SHA-1 (`ssh-rsa`) and WebAuthn spellings are left out on purpose."""


class OtherNamespace(ValueError):
    """The signature is for something else."""


@dataclass(frozen=True)
class SshSig:
    """A parsed signature. `key` is the public key in binary form; `signature` names its own algorithm."""

    key: bytes
    namespace: bytes
    reserved: bytes
    hash_name: bytes
    signature: bytes


def parse(blob: bytes) -> SshSig:
    """The parts of a signature. Raises ValueError with a phrase that says what is wrong."""
    if blob[:6] != MAGIC:
        raise ValueError("it is not an SSH signature")
    if blob[6:10] != VERSION.to_bytes(4, "big"):
        raise ValueError("its version is unknown")
    parts: list[bytes] = []
    rest = blob[10:]
    for _ in range(5):
        part, rest = _take(rest)
        parts.append(part)
    if rest:
        raise ValueError("bytes follow after its end")
    return SshSig(*parts)


def verify(sig: SshSig, namespace: str, message: bytes) -> None:
    """Return when `sig` is this key's signature of `message` for `namespace`; raise ValueError with a phrase.

    Raises OtherNamespace, a ValueError too, when it was made for another. Security keys must have been touched.
    """
    if sig.namespace != namespace.encode():
        raise OtherNamespace(f"it was made for another namespace than {namespace}")
    if sig.hash_name not in HASHES:
        raise ValueError("its hash is neither sha256 nor sha512")
    key_type, _ = _take(sig.key)
    algorithm, _ = _take(sig.signature)
    if algorithm not in ALGORITHMS.get(key_type, ()):
        raise ValueError("its algorithm is not accepted")
    try:
        key = decode_ssh_public_key(sig.key)
    except (KeyImportError, ValueError):
        raise ValueError("its key cannot be read") from None
    if key_type == b"ssh-rsa" and _rsa_bits(sig.key) < MIN_RSA_BITS:
        raise ValueError(f"its RSA key has fewer than {MIN_RSA_BITS} bits")
    key.set_touch_required(True)
    if not key.verify(_signed(sig, message), sig.signature):
        raise ValueError("it does not fit the text and the key")


def _rsa_bits(key: bytes) -> int:
    _, rest = _take(key)
    _, rest = _take(rest)
    return int.from_bytes(_take(rest)[0], "big").bit_length()


def _signed(sig: SshSig, message: bytes) -> bytes:
    digest = HASHES[sig.hash_name](message).digest()
    return MAGIC + b"".join(_string(part) for part in (sig.namespace, sig.reserved, sig.hash_name, digest))


def _take(data: bytes) -> tuple[bytes, bytes]:
    end = 4 + int.from_bytes(data[:4], "big")
    if len(data) < 4 or len(data) < end:
        raise ValueError("it is cut short")
    return data[4:end], data[end:]


def _string(data: bytes) -> bytes:
    return len(data).to_bytes(4, "big") + data
