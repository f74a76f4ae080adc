"""Challenges that passkeys sign: made without keeping anything, good once, for a while and in one browser.

A challenge says when it ends and carries a code over that and over what it is bound to, so that asking for one costs
no row and nobody can push out another's. Only those that were used well are kept, until they would have ended.
"""
from __future__ import annotations

import hmac
import secrets
from collections.abc import Iterable

import sqlalchemy as sa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from ussycode.base.db import Tx, metadata
from ussycode.identity import signing

CHALLENGE_SECONDS = 300
"""Time to touch a key or to find the phone; WebAuthn recommends 5 to 10 minutes where a person is verified."""
NONCE, MOMENT, CODE = 16, 8, 32
"""Bytes of chance, of the end (unix seconds) and of the code. WebAuthn section 13.4.3 asks for 16 of chance."""

spent_challenges = sa.Table(
    "spent_challenges", metadata,
    sa.Column("nonce", sa.String, primary_key=True),
    sa.Column("expires", sa.Float, nullable=False),
)


def make(tx: Tx, binding: str) -> bytes:
    """A challenge that only who brings `binding` (a session's or a cookie's digest, and a purpose) can use."""
    head = secrets.token_bytes(NONCE) + int(tx.now + CHALLENGE_SECONDS).to_bytes(MOMENT, "big")
    return head + _code(signing.keys(tx)[-1].seed, head, binding)


def holds(tx: Tx, challenge: bytes, binding: str) -> bool:
    """We made it, for this binding, it has not ended, and nobody used it."""
    head, code = challenge[: NONCE + MOMENT], challenge[NONCE + MOMENT :]
    if len(challenge) != NONCE + MOMENT + CODE or int.from_bytes(head[NONCE:], "big") <= tx.now:
        return False
    seeds = (key.seed for key in signing.keys(tx))
    return _any_code(seeds, head, binding, code) and not _is_spent(tx, head)


def spend(tx: Tx, challenge: bytes) -> None:
    """It is used up; those that have ended are swept on the way."""
    tx.conn.execute(spent_challenges.delete().where(spent_challenges.c.expires <= tx.now))
    row = {"nonce": challenge[:NONCE].hex(), "expires": float(int.from_bytes(challenge[NONCE : NONCE + MOMENT], "big"))}
    tx.conn.execute(spent_challenges.insert(), row)


def _is_spent(tx: Tx, head: bytes) -> bool:
    found = sa.select(spent_challenges.c.nonce).where(spent_challenges.c.nonce == head[:NONCE].hex())
    return tx.conn.execute(found).first() is not None


def _any_code(seeds: Iterable[bytes], head: bytes, binding: str, code: bytes) -> bool:
    return any([hmac.compare_digest(_code(seed, head, binding), code) for seed in seeds])


def _code(seed: bytes, head: bytes, binding: str) -> bytes:
    # A key of its own, so that no signature of the seed's other use is ever a code here.
    key = HKDF(SHA256(), 32, None, b"ussycode passkey challenge").derive(seed)
    return hmac.digest(key, head + binding.encode(), "sha256")
