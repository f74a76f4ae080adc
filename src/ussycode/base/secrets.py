"""Secrets: values that do not print, tokens that are stored only as digests."""
from __future__ import annotations

import hashlib
import secrets
from dataclasses import dataclass


@dataclass(frozen=True, repr=False)
class Secret:
    """A value that shows as `***` everywhere except through `reveal`."""

    value: str

    def __repr__(self) -> str:
        return "***"

    __str__ = __repr__

    def reveal(self) -> str:
        """The value itself."""
        return self.value


def token(nbytes: int = 32) -> str:
    """Random URL-safe text carrying `nbytes` bytes of chance."""
    return secrets.token_urlsafe(nbytes)


def digest(value: str) -> str:
    """SHA-256 of a random token as 64 hex characters; random tokens need no slow hash."""
    return hashlib.sha256(value.encode()).hexdigest()
