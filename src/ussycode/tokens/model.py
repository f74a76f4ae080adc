"""Tokens that the platform keeps: opaque handles, by the digest of their secret."""
from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Handle:
    """A `usy1` token. The token itself is shown once and never kept."""

    id: str
    user: str
    digest: str
    """SHA-256 hex of the whole token."""
    label: str
    vm: str
    """Id of the one VM it opens over HTTPS; empty for a token of the API."""
    payload: str
    """The permissions as JSON text."""
    key: str
    """Fingerprint of the SSH key it dies with; empty for one made in a browser."""
    tag: str
    """It reaches VMs with this tag only; empty for no such limit."""
    created_at: float
    last_used: float
    """0 until it is used."""

    @property
    def fingerprint(self) -> str:
        """What it is listed and removed by."""
        return f"token:{self.digest[:16]}"
