"""Accounts and what proves them."""
from __future__ import annotations

from dataclasses import dataclass

from ussycode.access.facts import Role


@dataclass(frozen=True)
class User:
    """An account. `handle_chosen` is false while the handle is only the login name of a first script."""

    id: str
    handle: str
    role: Role
    email: str
    login_name: str
    handle_chosen: bool
    created_at: float


@dataclass(frozen=True)
class SshKey:
    """A registered public key. `public_key` is `type base64`, without a comment."""

    id: str
    user: str
    fingerprint: str
    public_key: str
    name: str
    created_at: float
    tag: str = ""
    """It reaches VMs with this tag only; empty for no such limit."""
    last_used: float = 0.0
    """Unix seconds, to the minute; 0 until it is used."""


@dataclass(frozen=True)
class Session:
    """A browser session on one host. `parent` is the digest of the sign-in it came from, or empty."""

    digest: str
    user: str
    host: str
    parent: str
    created_at: float
    expires: float
    agent: str = ""
    """The browser's own name, cleaned and cut."""
    last_used: float = 0.0
    passkey: str = ""
    """Id of the passkey it began with, or empty."""

    @property
    def name(self) -> str:
        """What it is listed and revoked by."""
        return self.digest[:12]


@dataclass(frozen=True)
class Link:
    """A one-time code by its digest. `parent` is the digest of the sign-in it carries on, empty for a new one."""

    digest: str
    user: str
    host: str
    parent: str
    expires: float
