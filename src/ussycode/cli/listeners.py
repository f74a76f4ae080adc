"""The platform's listening sockets: bound once by the supervisor, inherited by whoever serves them."""
from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from ussycode.base.errors import ErrorCode, Kind
from ussycode.config import Config
from ussycode.runtime.instance import Instance

PORT_IN_USE = ErrorCode(
    "up.port_in_use", Kind.CONFLICT, "cannot listen on {address} port {port} ({what}): {why}",
    hint="stop what uses it (ss -ltnp), or choose another: {option}",
)
BACKLOG = 1024


@dataclass(frozen=True)
class Listeners:
    """Bound sockets by what they are for; `https` holds one list for each edge process."""

    ssh: list[socket.socket]
    https: list[list[socket.socket]]
    http: list[socket.socket]
    metrics: socket.socket
    web: socket.socket
    feed: socket.socket

    def all(self) -> list[socket.socket]:
        """Every one of them."""
        return [*self.ssh, *(s for one in self.https for s in one), *self.http, self.metrics, self.web, self.feed]


def bind(config: Config, instance: Instance) -> Listeners:
    """All sockets, listening. Raises PORT_IN_USE naming the one that is taken."""
    return Listeners(
        ssh=[_tcp(a, config.ssh_port, "SSH", "--ssh-port") for a in config.listen],
        https=[
            [_tcp(a, config.https_port, "HTTPS", "--https-port", shared=True) for a in config.listen]
            for _ in range(config.edge_processes)
        ],
        http=[_tcp(a, config.http_port, "HTTP", "--http-port") for a in config.listen],
        metrics=_tcp("127.0.0.1", config.metrics_port, "metrics", "--metrics-port"),
        web=_unix(instance.run / "web.sock", instance.edge_uid),
        feed=_unix(instance.run / "feed.sock", instance.edge_uid),
    )


def _tcp(address: str, port: int, what: str, option: str, shared: bool = False) -> socket.socket:
    made = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_STREAM)
    with _closing_on_failure(made):
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if shared:
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if made.family == socket.AF_INET6:
            made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        try:
            made.bind((address, port))
            made.listen(BACKLOG)
        except OSError as why:
            raise PORT_IN_USE(address=address, port=port, what=what, why=why.strerror, option=option) from None
    return made


def _unix(path: Path, uid: int) -> socket.socket:
    path.unlink(missing_ok=True)
    made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    made.bind(str(path))
    os.chown(path, uid, uid)
    path.chmod(0o600)
    made.listen(BACKLOG)
    return made


@contextmanager
def _closing_on_failure(made: socket.socket) -> Iterator[None]:
    try:
        yield
    except BaseException:
        made.close()
        raise
