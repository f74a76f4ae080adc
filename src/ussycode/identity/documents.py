"""What commands about accounts answer as JSON; the names are the wire contract. Times are RFC 3339."""
from __future__ import annotations

from typing import Literal, NotRequired, TypedDict


class KeyDocument(TypedDict):
    """One SSH key; `current` is the one this call came with."""

    name: str
    public_key: str
    fingerprint: str
    current: bool
    tag: NotRequired[str]
    last_used_at: NotRequired[str]


class KeysDocument(TypedDict):
    """`ssh-key add`, `rename`, `tag` and `remove`: the keys concerned."""

    ssh_keys: list[KeyDocument]


class WhoDocument(TypedDict):
    """`whoami`; `email` is empty until an address is verified."""

    email: str
    region: str
    region_display: str
    ssh_keys: list[KeyDocument]
    handle: str
    trust_level: Literal["guest", "newbie", "citizen", "operator", "admin"]
    user_id: str


class LinkDocument(TypedDict):
    """`browser`; seconds until the link is worth nothing."""

    url: str
    expires_in: int


class SessionDocument(TypedDict):
    """One browser that is signed in."""

    id: str
    created_at: str
    last_used_at: str
    expires_at: str
    agent: str


class SessionsDocument(TypedDict):
    """`browser --list` and `logout`."""

    sessions: list[SessionDocument]


class AddressDocument(TypedDict):
    """One e-mail address."""

    address: str
    verified: bool
    primary: bool


class AddressesDocument(TypedDict):
    """`email`."""

    email: str
    addresses: list[AddressDocument]


class InvitedDocument(TypedDict):
    """`invite`."""

    status: Literal["invited"]
    email: str


class PasskeyDocument(TypedDict):
    """One passkey; `blocked` since a copy of it was seen, `synced` when it lives on several devices."""

    name: str
    created_at: str
    last_used_at: NotRequired[str]
    synced: bool
    blocked: bool


class PasskeysDocument(TypedDict):
    """`passkey`; `sessions_ended` after a removal."""

    passkeys: list[PasskeyDocument]
    sessions_ended: NotRequired[int]
