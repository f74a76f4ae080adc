"""The platform's listening sockets: bound once by the supervisor, inherited by whoever serves them."""
from __future__ import annotations

import grp
import os
import resource
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from ussycode.base.errors import ErrorCode, Failure, Kind
from ussycode.config import Config
from ussycode.runtime.instance import Instance

PORT_IN_USE = ErrorCode(
    "up.port_in_use", Kind.CONFLICT, "cannot listen on {address} port {port} ({what}): {why}",
    hint="stop what uses it (ss -ltnp), or choose another: {option}",
)
NO_GROUP = ErrorCode(
    "up.no_group", Kind.USAGE, "there is no group {group}, which the front in front_group should belong to",
    hint="install haproxy, or set front_group",
)
TOO_FEW_FILES = ErrorCode(
    "up.too_few_files", Kind.USAGE, "these alternate_ports need {needed} open files, and the host allows {limit}",
    hint="choose a shorter range, or raise the limit (LimitNOFILE, ulimit -Hn)",
)
BACKLOG = 1024
FILES_BESIDE = 4096
"""Open files that must remain for visitors beside the alternate ports: two for each."""


@dataclass(frozen=True)
class Listeners:
    """Bound sockets by what they are for; `https` holds one list for each edge process.

    With a front, `https` holds one list for it, or none when it opens its own, and `front` is the edges' socket.
    """

    ssh: list[socket.socket]
    https: list[list[socket.socket]]
    http: list[socket.socket]
    metrics: socket.socket
    web: socket.socket
    feed: socket.socket
    quic: list[socket.socket]
    """UDP sockets of the caddy in front, for HTTP/3."""
    front: socket.socket | None
    dns_udp: list[socket.socket]
    dns_tcp: list[socket.socket]
    """Of the name server for our own zone."""
    mail: list[socket.socket]
    alternate: list[tuple[int, socket.socket]]
    """Alternate ports, shared by all edges."""
    taken: list[int]
    """Alternate ports that another program has."""

    def all(self) -> list[socket.socket]:
        """Every one of them."""
        several = (
            self.ssh, *self.https, self.http, self.quic, [self.front] if self.front else [], self.dns_udp, self.dns_tcp,
            self.mail, [one for _, one in self.alternate],
        )
        return [*(s for group in several for s in group), self.metrics, self.web, self.feed]


def bind(config: Config, instance: Instance) -> Listeners:
    """All sockets, listening. Raises PORT_IN_USE naming the one that is taken, or NO_GROUP."""
    ours = config.front != "own"  # it opens its own
    alternate, taken = _alternate(config) if config.front == "none" else ([], [])
    each = {"none": config.edge_processes, "caddy": 1, "own": 0}[config.front]
    return Listeners(
        ssh=[_tcp(a, config.ssh_port, "SSH", "--ssh-port") for a in config.listen],
        https=[
            [_tcp(a, config.https_port, "HTTPS", "--https-port", shared=each > 1) for a in config.listen]
            for _ in range(each)
        ],
        http=[_tcp(a, config.http_port, "HTTP", "--http-port") for a in config.listen if ours],
        metrics=_tcp("127.0.0.1", config.metrics_port, "metrics", "--metrics-port"),
        web=_unix(instance.run / "web.sock", instance.edge_uid),
        feed=_unix(instance.run / "feed.sock", instance.edge_uid),
        quic=[_udp(a, config.https_port, "HTTP/3", "--https-port") for a in config.listen if config.front == "caddy"],
        front=None if config.front == "none" else bind_front(config, instance), alternate=alternate, taken=taken,
        dns_udp=[_udp(a, config.dns_port, "DNS", "--dns-port") for a in config.listen if config.dns_port],
        dns_tcp=[_tcp(a, config.dns_port, "DNS", "--dns-port") for a in config.listen if config.dns_port],
        mail=[_tcp(a, config.mail_port, "mail", "--mail-port") for a in config.listen if config.mail_port],
    )


def _alternate(config: Config) -> tuple[list[tuple[int, socket.socket]], list[int]]:
    """Sockets of all alternate ports; those in use are left to who has them. Raises TOO_FEW_FILES."""
    ports = config.alternate_listeners
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    needed = len(ports) * len(config.listen) + FILES_BESIDE
    if ports and limit != resource.RLIM_INFINITY and needed > limit:
        raise TOO_FEW_FILES(needed=needed, limit=limit)
    made: list[tuple[int, socket.socket]] = []
    taken: list[int] = []
    for port in ports:
        try:
            made += [(port, _tcp(address, port, "alternate", "--alternate-ports")) for address in config.listen]
        except Failure:
            taken.append(port)
    return made, taken


def front_socket(instance: Instance) -> Path:
    """Where the edges take requests from the terminator in front."""
    return instance.run / "front" / "edge.sock"


def bind_front(config: Config, instance: Instance) -> socket.socket:
    """Whoever may connect here is believed about addresses: the front's group, and nobody else."""
    group = instance.front_uid if config.front == "caddy" else group_id(config.front_group)
    path = front_socket(instance)
    path.parent.mkdir(mode=0o750, exist_ok=True)
    os.chown(path.parent, 0, group)
    path.parent.chmod(0o750)
    return _unix(path, 0, group, 0o660)


def group_id(name: str) -> int:
    """The number of a group of this host. Raises NO_GROUP."""
    try:
        return grp.getgrnam(name).gr_gid
    except KeyError:
        raise NO_GROUP(group=name) from None


def _tcp(address: str, port: int, what: str, option: str, shared: bool = False) -> socket.socket:
    made = _socket(address, socket.SOCK_STREAM)
    with _closing_on_failure(made):
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if shared:
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        _bind(made, address, port, what, option)
        made.listen(BACKLOG)
    return made


def _udp(address: str, port: int, what: str, option: str) -> socket.socket:
    made = _socket(address, socket.SOCK_DGRAM)
    with _closing_on_failure(made):
        _bind(made, address, port, what, option)
    return made


def _socket(address: str, kind: socket.SocketKind) -> socket.socket:
    made = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, kind)
    if made.family == socket.AF_INET6:
        made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    return made


def _bind(made: socket.socket, address: str, port: int, what: str, option: str) -> None:
    try:
        made.bind((address, port))
    except OSError as why:
        raise PORT_IN_USE(address=address, port=port, what=what, why=why.strerror, option=option) from None


def _unix(path: Path, uid: int, group: int | None = None, mode: int = 0o600) -> socket.socket:
    path.unlink(missing_ok=True)
    made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    with _closing_on_failure(made):
        made.bind(str(path))
        os.chown(path, uid, uid if group is None else group)
        path.chmod(mode)
        made.listen(BACKLOG)
    return made


@contextmanager
def _closing_on_failure(made: socket.socket) -> Iterator[None]:
    try:
        yield
    except BaseException:
        made.close()
        raise
