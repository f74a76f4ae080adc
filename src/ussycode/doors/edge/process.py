"""One edge process: takes inherited sockets and a feed, serves until it is told to stop."""
from __future__ import annotations

import asyncio
import gc
import os
import signal
import socket
import ssl
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import uvloop

from ussycode.base.clock import Clock, SystemClock
from ussycode.base.errors import ErrorCode, Kind
from ussycode.base.pki import Intermediate, Issuer
from ussycode.doors.edge.accesslog import FLUSH_EVERY, AccessLog
from ussycode.doors.edge.alternate import AlternateConnection
from ussycode.doors.edge.degraded import Following
from ussycode.doors.edge.edge import Edge
from ussycode.doors.edge.feed import follow
from ussycode.doors.edge.front import FrontConnection
from ussycode.doors.edge.operator import OperatorDoor
from ussycode.doors.edge.redirect import RedirectConnection
from ussycode.doors.edge.settings import EdgeSettings
from ussycode.doors.edge.tls import Given, Minted
from ussycode.doors.edge.visitor import VisitorConnection
from ussycode.doors.edge.websocket import GOING_AWAY, RESTART

BACKLOG = 4096
HANDSHAKE_TIMEOUT = 10.0
"""Seconds for a TLS handshake."""
GARBAGE = 20_000
"""Allocations between collections: requests leave no cycles, so looking often only costs."""
PROBE_AFTER = 60
"""Seconds of silence after which TCP asks whether a visitor is still there; a minute later it counts as gone."""
SHUTDOWN_TIMEOUT = 3.0
"""Seconds for the end of a TLS connection."""
LOOK_EVERY = 0.1
"""Seconds between two looks at whether anybody is left."""
DRAIN = 5.0
"""Seconds that requests under way, and clients of WebSockets, get at the end; more than a connection lingers."""

NO_CERTIFICATE = ErrorCode(
    "edge.no_certificate", Kind.FAILED, "the edge was given neither a signer nor certificate files",
)


def main(settings: EdgeSettings) -> int:
    """Serve until SIGTERM or SIGINT; the exit code. Raises NO_CERTIFICATE before anything is served.

    SIGUSR1 says that another process has taken over: nobody new is served, and it ends when nobody is left.
    """
    uvloop.run(_until_told(settings))
    return 0


async def _until_told(settings: EdgeSettings) -> None:
    end = Ending()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, end.now)
    loop.add_signal_handler(signal.SIGUSR1, end.told.set)
    await serve(settings, SystemClock(), end)


@dataclass
class Ending:
    """How a process is told to end: `told` alone, in its own time; with `hurry` as well, soon."""

    told: asyncio.Event = field(default_factory=asyncio.Event)
    hurry: asyncio.Event = field(default_factory=asyncio.Event)

    def now(self) -> None:
        """The platform stops."""
        self.told.set()
        self.hurry.set()


async def serve(settings: EdgeSettings, clock: Clock, end: Ending) -> None:
    """Serve until told to end; then accept nothing more.

    In a hurry, requests under way get DRAIN seconds; else everything gets `settings.retire`. What is left are
    WebSockets, which end with a close frame, and streams, which break off.
    """
    log = AccessLog(settings.log_path, settings.log_level)
    edge = Edge(settings, clock, log)
    following = Following(edge)
    tls = _certificates(edge).context() if settings.https_fds else None
    async with asyncio.TaskGroup() as group:
        background = [
            group.create_task(follow(settings.feed_socket, following, edge.questions)),
            group.create_task(_every_second(edge, following)),
            group.create_task(_flush(log)),
        ]
        if settings.ready_fd >= 0:  # who takes over serves nobody before it knows what the one before did
            await _either(edge.informed, end.told)
        servers = await _listen(edge, tls)
        _say_ready(settings.ready_fd)
        gc.collect()
        gc.freeze()
        gc.set_threshold(GARBAGE)
        await end.told.wait()
        for server in servers:
            server.close()
        edge.quiet(patient=not end.hurry.is_set())
        await _until_empty(edge, settings.retire, end.hurry)
        edge.quiet(patient=False)
        edge.farewell(GOING_AWAY if end.hurry.is_set() else RESTART)
        await _until_empty(edge, DRAIN)
        for task in background:
            task.cancel()
    edge.verdicts.shut()
    edge.platform.shut()
    log.close()


def _certificates(edge: Edge) -> Minted | Given:
    settings = edge.settings
    if settings.certificate_files:
        return Given(settings.certificate_files, edge.domains.context)
    if not settings.ca_certificate or not settings.ca_key:
        raise NO_CERTIFICATE()
    signer = Intermediate(settings.ca_certificate.encode(), settings.ca_key.encode())
    return Minted(Issuer(signer, edge.clock), edge.hosts, edge.clock, edge.counters, edge.domains.context)


async def _listen(edge: Edge, tls: ssl.SSLContext | None) -> list[asyncio.AbstractServer]:
    loop = asyncio.get_running_loop()
    servers: list[asyncio.AbstractServer] = []
    secure: list[tuple[int, Callable[[], VisitorConnection]]] = [
        *((fd, partial(VisitorConnection, edge)) for fd in edge.settings.https_fds),
        *((fd, partial(AlternateConnection, edge, port)) for fd, port in edge.settings.alternate_fds),
    ]
    for fd, made in secure:
        servers.append(await loop.create_server(
            made, sock=_probing(socket.socket(fileno=fd)), ssl=tls, backlog=BACKLOG,
            ssl_handshake_timeout=HANDSHAKE_TIMEOUT, ssl_shutdown_timeout=SHUTDOWN_TIMEOUT,
        ))
    for fd in edge.settings.http_fds:
        sock = socket.socket(fileno=fd)
        servers.append(await loop.create_server(lambda: RedirectConnection(edge), sock=sock, backlog=BACKLOG))
    for fd in edge.settings.front_fds:
        sock = socket.socket(fileno=fd)
        servers.append(await loop.create_unix_server(lambda: FrontConnection(edge), sock=sock, backlog=BACKLOG))
    if edge.settings.operator_socket:
        servers.append(await _operator(edge))
    return servers


def _probing(listener: socket.socket) -> socket.socket:
    """The listener, whose connections are asked for a sign of life when silent: a stream may be silent for hours,
    and a visitor whose network is gone never says goodbye. Linux hands these options on to accepted connections."""
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in ((socket.TCP_KEEPIDLE, PROBE_AFTER), (socket.TCP_KEEPINTVL, 15), (socket.TCP_KEEPCNT, 4)):
        listener.setsockopt(socket.IPPROTO_TCP, option, value)
    return listener


async def _operator(edge: Edge) -> asyncio.AbstractServer:
    path = Path(edge.settings.operator_socket)
    path.unlink(missing_ok=True)
    server = await asyncio.start_unix_server(OperatorDoor(edge).serve, path)
    path.chmod(0o660)  # the folder decides who that is: the supervisor gives it control's group
    return server


async def _every_second(edge: Edge, following: Following) -> None:
    while True:
        await asyncio.sleep(1)
        edge.tick()
        following.tick()


async def _flush(log: AccessLog) -> None:
    while True:
        await asyncio.sleep(FLUSH_EVERY)
        log.flush()


async def _until_empty(edge: Edge, seconds: float, hurry: asyncio.Event | None = None) -> None:
    """Wait until nobody is connected any more, `seconds` at most, or until there is a hurry.

    Where there may be one, there is time for those whose handshake is under way as well.
    """
    for _ in range(int(seconds / LOOK_EVERY)):
        arriving = hurry is not None and bool(edge.arriving)
        if not (edge.deadlines.members or arriving) or (hurry is not None and hurry.is_set()):
            return
        await asyncio.sleep(LOOK_EVERY)


async def _either(*events: asyncio.Event) -> None:
    waiting = [asyncio.ensure_future(event.wait()) for event in events]
    await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
    for one in waiting:
        one.cancel()


def _say_ready(fd: int) -> None:
    if fd >= 0:
        os.write(fd, b"1")
        os.close(fd)
