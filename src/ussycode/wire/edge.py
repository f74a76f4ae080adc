"""The feed from control to edges: a snapshot, then changes in order; every frame is acknowledged.

A frame is a 4-byte big-endian length (at most 64 MiB) and one msgpack document. Control sends `Snapshot`
first, then `Change`s whose `seq` grows by exactly one; an edge that sees a gap closes and connects again.
The edge answers each with `Ack`. A commit's change is acknowledged by every live edge before the command
that made it answers, so a revocation bites on the next request.

An edge may ask on the same connection (`CheckToken`, `Wake`); the answer carries the question's `number` and
may come after any number of changes.
"""
from __future__ import annotations

import msgspec

MAX_FRAME = 64 << 20


class EdgeGrant(msgspec.Struct, frozen=True):
    """What the owner of a VM gave to `user`: `level` web or shell, `port` 0 for the primary one, whichever it is.

    `expires` in unix seconds, 0 for never; `link` says that it came through a share link.
    """

    user: str
    level: str
    port: int
    link: bool
    expires: float


class EdgeVm(msgspec.Struct, frozen=True):
    """One VM as an edge needs it. `address` is empty while it does not run; `secret` authenticates dials."""

    vm: str
    name: str
    owner: str
    phase: str
    address: str
    secret: str
    primary_port: int
    public_ports: tuple[int, ...] = ()
    wakes: bool = False
    """It sleeps, and a visitor who may open it starts it."""
    grants: tuple[EdgeGrant, ...] = ()
    tags: tuple[str, ...] = ()


class EdgeUser(msgspec.Struct, frozen=True):
    """Identity that apps behind the edge are told. `email` is verified or empty."""

    user: str
    handle: str
    role: str
    email: str = ""


class EdgeSession(msgspec.Struct, frozen=True):
    """A browser session on one host. `digest` is SHA-256 hex of the cookie; `expires` in unix seconds."""

    digest: str
    user: str
    host: str
    expires: float


class EdgeSigner(msgspec.Struct, frozen=True):
    """A key for assertions to apps. `seed` is an Ed25519 private key, used from `signs_from` in unix seconds."""

    name: str
    seed: bytes
    signs_from: float


class EdgeDomain(msgspec.Struct, frozen=True):
    """A domain that DNS has proven. `patterns` are host names, and `*.NAME` for every name one label below.

    `chain` and `key` are PEM; empty while there is no certificate, or where somebody else ends TLS.
    """

    domain: str
    vm: str
    patterns: tuple[str, ...]
    chain: bytes = b""
    key: bytes = b""


class Snapshot(msgspec.Struct, frozen=True, tag="snapshot"):
    """Everything, at sequence number `seq`."""

    seq: int
    vms: list[EdgeVm]
    users: list[EdgeUser]
    sessions: list[EdgeSession]
    signers: list[EdgeSigner] = []
    domains: list[EdgeDomain] = []


class Change(msgspec.Struct, frozen=True, tag="change"):
    """What one commit changed. Dropped things cut their live connections."""

    seq: int
    put_vms: list[EdgeVm] = []
    drop_vms: list[str] = []
    put_users: list[EdgeUser] = []
    drop_users: list[str] = []
    put_sessions: list[EdgeSession] = []
    drop_sessions: list[str] = []
    forget_tokens: list[str] = []
    """Users whose tokens must be checked again."""
    signers: list[EdgeSigner] = []
    """All of them, when one of them changed."""
    put_domains: list[EdgeDomain] = []
    drop_domains: list[str] = []


class Ack(msgspec.Struct, frozen=True, tag="ack"):
    """The edge has applied everything up to `seq`."""

    seq: int


class CheckToken(msgspec.Struct, frozen=True, tag="check_token"):
    """Whose token is this, for requests to the VM called `name`?"""

    number: int
    name: str
    token: str


class EdgeToken(msgspec.Struct, frozen=True, tag="token"):
    """A token's holder for one VM; `user` is empty when it is refused, and `refused` says why in one word.

    Times in unix seconds, 0 for no limit. `ctx` is the token's own JSON text, byte for byte; empty without one.
    An edge keeps it until a change names the user in `forget_tokens`.
    """

    number: int
    user: str = ""
    ctx: str = ""
    not_before: float = 0
    expires: float = 0
    refused: str = ""
    sentence: str = ""
    tag: str = ""
    """It opens VMs with this tag only; empty for no such limit."""


class Visitor(msgspec.Struct, frozen=True):
    """Requests of one visitor that were decided alike: who (empty for nobody), from which address, and why."""

    vm: str
    port: int
    user: str
    address: str
    allowed: bool
    reason: str
    requests: int


class Visitors(msgspec.Struct, frozen=True, tag="visitors"):
    """What an edge decided within the last seconds. Not answered; what does not arrive is lost."""

    visitors: list[Visitor]


class Wake(msgspec.Struct, frozen=True, tag="wake"):
    """A visitor waits for a VM that sleeps. Only VMs marked to be woken are."""

    number: int
    vm: str


class Woken(msgspec.Struct, frozen=True, tag="woken"):
    """The VM runs now, or `why` it does not, as a sentence for its owner."""

    number: int
    running: bool
    why: str = ""


Question = CheckToken | Wake
Answer = EdgeToken | Woken
Up = Ack | CheckToken | Wake | Visitors
Down = Snapshot | Change | EdgeToken | Woken
