"""Keys that assertions to apps are signed with: made, published, used, replaced and forgotten by the clock.

A key is published LEAD_SECONDS before it signs, signs until the next one does, and is published for KEPT_SECONDS
after that, so that an app which keeps the published keys for an hour never meets one that it does not know.
"""
from __future__ import annotations

from base64 import urlsafe_b64encode
from dataclasses import dataclass
from itertools import pairwise
from typing import TypedDict

import sqlalchemy as sa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from ussycode.base import ids
from ussycode.base.db import Tx, metadata
from ussycode.base.events import SYSTEM, Event
from ussycode.ports import App

ROTATE_SECONDS = 7 * 86_400.0
"""How long one key signs."""
LEAD_SECONDS = 86_400.0
"""How long a key is published before it signs; the first one signs at once."""
KEPT_SECONDS = 86_400.0
"""How long a key is published after its last signature."""

signing_keys = sa.Table(
    "signing_keys", metadata,
    sa.Column("id", sa.String, primary_key=True),
    sa.Column("seed", sa.LargeBinary, nullable=False),
    sa.Column("signs_from", sa.Float, nullable=False),
)


@dataclass(frozen=True)
class SigningKey:
    """An Ed25519 key that signs from `signs_from` (unix seconds) until the next one does."""

    id: str
    seed: bytes
    signs_from: float


class KeyDocument(TypedDict):
    """One public key as RFC 7517 and RFC 8037 write it."""

    kty: str
    crv: str
    alg: str
    use: str
    kid: str
    x: str


class KeySet(TypedDict):
    """`/.well-known/jwks.json`."""

    keys: list[KeyDocument]


def keys(tx: Tx) -> list[SigningKey]:
    """Every key that is published, in the order of their use."""
    return [SigningKey(**row._mapping) for row in tx.conn.execute(
        sa.select(signing_keys).order_by(signing_keys.c.signs_from, signing_keys.c.id))]


async def rotate(app: App) -> None:
    """Make the next key when it is due, and forget those whose time is over. Cheap when nothing is due."""
    known = await app.db.read(keys)
    if _due(known, app.clock.now()) or _over(known, app.clock.now()):
        await app.db.write(_turn)


async def key_set(app: App) -> KeySet:
    """The public halves, for apps that check assertions."""
    return {"keys": [_document(key) for key in await app.db.read(keys)]}


def _turn(tx: Tx) -> None:
    known = keys(tx)
    for old in _over(known, tx.now):
        tx.conn.execute(signing_keys.delete().where(signing_keys.c.id == old.id))
        tx.emit(Event("signing.forgotten", SYSTEM, old.id, {}))
    if _due(known, tx.now):
        begins = max(tx.now, known[-1].signs_from + ROTATE_SECONDS) if known else tx.now
        made = SigningKey(ids.new("sig"), Ed25519PrivateKey.generate().private_bytes_raw(), begins)
        tx.conn.execute(signing_keys.insert(), vars(made))
        tx.emit(Event("signing.made", SYSTEM, made.id, {"signs_from": begins}))


def _due(known: list[SigningKey], now: float) -> bool:
    return not known or now >= known[-1].signs_from + ROTATE_SECONDS - LEAD_SECONDS


def _over(known: list[SigningKey], now: float) -> list[SigningKey]:
    return [old for old, new in pairwise(known) if new.signs_from + KEPT_SECONDS <= now]


def _document(key: SigningKey) -> KeyDocument:
    public = Ed25519PrivateKey.from_private_bytes(key.seed).public_key().public_bytes_raw()
    text = urlsafe_b64encode(public).rstrip(b"=").decode()
    return {"kty": "OKP", "crv": "Ed25519", "alg": "EdDSA", "use": "sig", "kid": key.id, "x": text}
