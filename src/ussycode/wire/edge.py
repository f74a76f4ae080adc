"""The feed from control to edges: a snapshot, then changes in order; every frame is acknowledged.

A frame is a 4-byte big-endian length (at most 64 MiB) and one msgpack document. Control sends `Snapshot`
first, then `Change`s whose `seq` grows by exactly one; an edge that sees a gap closes and connects again.
The edge answers each with `Ack`. A commit's change is acknowledged by every live edge before the command
that made it answers, so a revocation bites on the next request.
"""
from __future__ import annotations

import msgspec

MAX_FRAME = 64 << 20


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


class Snapshot(msgspec.Struct, frozen=True, tag="snapshot"):
    """Everything, at sequence number `seq`."""

    seq: int
    vms: list[EdgeVm]
    users: list[EdgeUser]
    sessions: list[EdgeSession]


class Change(msgspec.Struct, frozen=True, tag="change"):
    """What one commit changed. Dropped things cut their live connections."""

    seq: int
    put_vms: list[EdgeVm] = []
    drop_vms: list[str] = []
    put_users: list[EdgeUser] = []
    drop_users: list[str] = []
    put_sessions: list[EdgeSession] = []
    drop_sessions: list[str] = []


class Ack(msgspec.Struct, frozen=True, tag="ack"):
    """The edge has applied everything up to `seq`."""

    seq: int


Down = Snapshot | Change
