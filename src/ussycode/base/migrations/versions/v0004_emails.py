"""Addresses, passkeys and outgoing mail."""
from __future__ import annotations

revision = "0004"


def upgrade() -> None:
    """Nothing yet."""
