"""OpenSSH public keys as text: reading a pasted line, naming it, its fingerprint."""
from __future__ import annotations

import base64
import binascii
import hashlib
from dataclasses import dataclass

from ussycode.base.errors import printable

TYPES = {
    "ssh-ed25519": 2, "ssh-rsa": 3, "ecdsa-sha2-nistp256": 3, "ecdsa-sha2-nistp384": 3, "ecdsa-sha2-nistp521": 3,
    "sk-ssh-ed25519@openssh.com": 3, "sk-ecdsa-sha2-nistp256@openssh.com": 4,
}
"""Key types that may be registered, and of how many fields each consists."""
MAX_LINE = 16 << 10
"""Longest authorised-keys line in characters; an 16,384-bit RSA key is about 2,800."""


@dataclass(frozen=True)
class PublicKey:
    """A public key. `line` is `type base64`."""

    line: str
    fingerprint: str
    comment: str


def read_public_key(text: str) -> PublicKey:
    """The key in an authorised-keys line without options. Raises ValueError with what is wrong."""
    if len(text) > MAX_LINE:
        raise ValueError("that is too long for a public key")
    words = text.strip().split(None, 2)
    if "PRIVATE" in text:
        raise ValueError("that is a private key; paste the line of the .pub file")
    if len(words) < 2 or words[0] not in TYPES:
        raise ValueError("it must begin with a key type such as ssh-ed25519")
    try:
        blob = base64.b64decode(words[1], validate=True)
    except binascii.Error:
        raise ValueError("the part after the key type is not base64") from None
    size = int.from_bytes(blob[:4], "big")
    if blob[4 : 4 + size] != words[0].encode():
        raise ValueError("the key does not match its type")
    if _fields(blob) != TYPES[words[0]]:
        raise ValueError("the key is cut short, or something follows it")
    return PublicKey(f"{words[0]} {words[1]}", fingerprint(blob), printable(words[2], 60) if len(words) > 2 else "")


def _fields(blob: bytes) -> int:
    """How many length-prefixed fields `blob` consists of; -1 when it does not end with one."""
    count = 0
    while blob:
        end = 4 + int.from_bytes(blob[:4], "big")
        if len(blob) < max(end, 5):
            return -1
        count, blob = count + 1, blob[end:]
    return count


def fingerprint(blob: bytes) -> str:
    """`SHA256:…` of a public key's binary form, as `ssh-keygen -l` prints it."""
    return "SHA256:" + base64.b64encode(hashlib.sha256(blob).digest()).decode().rstrip("=")
