"""The text of a signed token: `usy0`, payload and signature, joined by dots."""
from __future__ import annotations

import base64
import hashlib
import re

from ussycode.tokens import refusals, sshsig
from ussycode.tokens.payload import Payload, parse

PREFIXES = frozenset({"usy0", "exe0"})
"""Ours, and the spelling of clients written for exe.dev; both mean the same."""
HANDLE_PREFIX = ("usy1.", "exe1.")
_OURS = {"exe0": "usy0", "exe1": "usy1"}
_BASE64URL = re.compile(r"[A-Za-z0-9_-]+")


def digest(token: str) -> str:
    """What a token is known by, the same in both spellings: who revokes one revokes it in the other too."""
    kind, dot, rest = token.partition(".")
    spelled = f"{_OURS.get(kind, kind)}{dot}{rest}"
    return hashlib.sha256(spelled.encode(errors="replace")).hexdigest()


def statement(raw: bytes, key: str, namespace: str) -> str:
    """What a signed token is revoked by: what it says, who signed it and for where, not the signature.

    Of an ECDSA signature anybody makes a second one that holds as well.
    """
    return hashlib.sha256(b"\0".join((key.encode(), namespace.encode(), raw))).hexdigest()


def parts(token: str) -> tuple[bytes, bytes]:
    """Payload and signature of a token. Raises MALFORMED."""
    words = token.split(".")
    if len(words) != 3 or words[0] not in PREFIXES:
        raise refusals.MALFORMED()
    return _decoded(words[1]), _decoded(words[2])


def read(blob: bytes, namespace: str) -> sshsig.SshSig:
    """The parts of a signature that should be for `namespace`. Raises SIGNATURE."""
    try:
        return sshsig.parse(blob)
    except ValueError as why:
        raise refusals.SIGNATURE(why=why, namespace=namespace) from None


def payload(raw: bytes) -> Payload:
    """What a token says. Raises PAYLOAD."""
    try:
        return parse(raw)
    except ValueError as why:
        raise refusals.PAYLOAD(why=why) from None


def _decoded(text: str) -> bytes:
    # Exactly one spelling of every token: padding, other letters and stray last bits are refused.
    if not _BASE64URL.fullmatch(text) or len(text) % 4 == 1:
        raise refusals.MALFORMED()
    data = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
    if base64.urlsafe_b64encode(data).rstrip(b"=") != text.encode():
        raise refusals.MALFORMED()
    return data
