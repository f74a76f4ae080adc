"""What the supervisor tells an edge process, as one JSON document on an inherited descriptor."""
from __future__ import annotations

import os

import msgspec

from ussycode.runtime.guest.protocol import STREAM_PORT

MAX_SETTINGS = 1 << 20
"""Largest settings document in bytes."""


class EdgeSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Everything an edge needs; it opens no port and reads no configuration itself.

    Certificates: either the intermediate (`ca_certificate`, `ca_key`, PEM) that mints exact names, or
    `certificate_files`, pairs of PEM chain and key; the first pair also serves clients that name no host.
    """

    domain: str
    https_fds: list[int]
    http_fds: list[int] = []
    front_fds: list[int] = []
    """Unix sockets of a TLS terminator in front; requests on them tell their visitor's address and scheme."""
    alternate_fds: list[tuple[int, int]] = []
    """Listening sockets of alternate ports, each with its port."""
    control_socket: str
    feed_socket: str
    operator_socket: str = ""
    """Unix socket for `GET /__edge/metrics`; empty for none."""
    ca_certificate: str = ""
    ca_key: str = ""
    certificate_files: list[tuple[str, str]] = []
    grace: float = 600.0
    """Seconds that private hosts are served while control is unreachable."""
    head_timeout: float = 10.0
    """Seconds for a request head, from its first byte; also for the first byte of a new connection."""
    lobby: str = "ssh localhost"
    """Command that leads to the lobby, as owners are told it."""
    limit_requests: float = 0
    """Requests per second of one address, with a burst of five seconds' worth; 0 for no limit."""
    limit_connections: int = 0
    """Connections of one address at a time; 0 for no limit."""
    limit_handshakes: float = 0
    """New connections per second of one address."""
    limit_account: float = 0
    """Requests per second in the name of one account."""
    limit_exempt: list[str] = []
    """Networks without limits by address."""
    retire: float = 600.0
    """Seconds that open WebSockets and streams go on after another process has taken over."""
    ready_fd: int = -1
    """Where to write a byte once requests can be served, for who replaces another process by this one."""
    log_path: str = ""
    """Access log; empty for none."""
    log_level: str = "info"
    """`info` logs every request, `warning` only refusals of malformed requests and failures (status 5xx, 400)."""
    public_port: int = 443
    """Port that visitors use for HTTPS; part of redirects unless it is 443."""
    worker: int = 0
    agent_port: int = STREAM_PORT
    """TCP port of the agent on every VM address."""

    @property
    def issuer(self) -> str:
        """Address of the base domain, as assertions name it."""
        return f"https://{self.domain}" + ("" if self.public_port == 443 else f":{self.public_port}")


def read(fd: int) -> EdgeSettings:
    """Settings from descriptor `fd`, read to its end. Raises msgspec.DecodeError when they are not valid."""
    with open(fd, "rb", closefd=False) as source:
        return msgspec.json.decode(source.read(MAX_SETTINGS), type=EdgeSettings)


def write(settings: EdgeSettings) -> int:
    """A descriptor from which `read` takes `settings`; kept in memory only, since they hold a key."""
    fd = os.memfd_create("ussycode-edge", 0)
    os.write(fd, msgspec.json.encode(settings))
    os.lseek(fd, 0, os.SEEK_SET)
    return fd
