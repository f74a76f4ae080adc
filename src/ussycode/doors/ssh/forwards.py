"""Ports and sockets forwarded through a connection. Names are always mapped; the host itself is never dialled."""
from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import asyncssh

from ussycode.base import ids
from ussycode.base.errors import INTERNAL, ErrorCode, Failure, Kind
from ussycode.doors.ssh import backward, limits, routes
from ussycode.doors.ssh.backward import GuestListener
from ussycode.doors.ssh.ends import End, Room, TcpEnd, UnixEnd, relay
from ussycode.doors.ssh.visits import Visits
from ussycode.ports import App, Attach
from ussycode.runtime.guest.listeners import Listener
from ussycode.runtime.guest.streams import Stream

LOBBY_DIALS = ErrorCode(
    "ssh.lobby_dials", Kind.FORBIDDEN, "the lobby forwards only to port 22 of a VM (ssh -J); "
    "name the VM as the user for anything else",
)
LOBBY_LISTENS = ErrorCode("ssh.lobby_listens", Kind.FORBIDDEN, "the lobby listens on nothing; name a VM as the user")
TOO_MANY = ErrorCode("ssh.too_many", Kind.TOO_MANY, "this connection has too many forwards open")
JUMP_PORT = 22
Resolve = Callable[[str | None], Awaitable[Attach]]
"""The VM by name, or that of the connection's own user name when None. Raises what `ssh VM` would."""


@dataclass
class Forwards:
    """Forwarding of one connection. `route` is where its user name leads."""

    app: App
    conn: asyncssh.SSHServerConnection
    room: Room
    visits: Visits
    key: Callable[[], str]
    resolve: Resolve
    route: Callable[[], routes.Route]
    ends: set[End]
    listeners: int = 0

    async def tcp(self, host: str, port: int) -> TcpEnd:
        """Open what `-L`, `-D`, `-W` and `-J` ask for. Raises ChannelOpenError with the reason."""
        end = TcpEnd(self.room, self.ends.discard)
        await self._open(end, lambda: self._dial(host, port))
        return end

    async def unix(self, path: str) -> UnixEnd:
        """Open a unix socket inside the VM. Raises ChannelOpenError with the reason."""
        end = UnixEnd(self.room, self.ends.discard)
        await self._open(end, lambda: self._dial_path(path))
        return end

    async def _open(self, end: End, dial: Callable[[], Awaitable[tuple[Attach, Stream]]]) -> None:
        self.ends.add(end)
        try:
            if len(self.ends) > limits.MAX_CHANNELS:
                raise TOO_MANY()
            where, stream = await dial()
        except Exception as error:
            self.ends.discard(end)
            raise refused(self.app, error) from None
        if self.conn.is_closed():
            await stream.close()

        def begin() -> None:
            end.work = asyncio.create_task(self._relayed(where, end, stream))

        end.started = begin

    async def _relayed(self, where: Attach, end: End, stream: Stream) -> None:
        try:
            await _quietly(self.visits.during(where, self.key(), relay(end, stream)))
        finally:  # also when it was not allowed to begin
            end.close()
            await stream.close()

    async def _dial(self, host: str, port: int) -> tuple[Attach, Stream]:
        if isinstance(self.route(), routes.Lobby):
            name = routes.jump_target(host, self.app.config.domain) if port == JUMP_PORT else None
            if name is None:
                raise LOBBY_DIALS()
            where = await self.resolve(name)
            return where, await self.app.link.dial(where.vm, JUMP_PORT)
        where = await self.resolve(None)
        return where, await self.app.link.dial(
            where.vm, port, routes.inside(host, where.name, self.app.config.domain)
        )

    async def _dial_path(self, path: str) -> tuple[Attach, Stream]:
        where = await self._own()
        return where, await self.app.link.dial_path(where.vm, path, where.user)

    async def _own(self) -> Attach:
        if isinstance(self.route(), routes.Lobby):
            raise LOBBY_LISTENS()
        return await self.resolve(None)

    async def listen(self, host: str, port: int, path: str | None = None) -> GuestListener | bool:
        """Listen inside the VM for `-R`; False when it cannot be."""
        if self.listeners >= limits.MAX_LISTENERS:
            return False
        self.listeners += 1
        try:
            where = await self._own()
            address = "0.0.0.0" if host in ("", "*") else "127.0.0.1" if host == "localhost" else host  # noqa: S104
            listener = await self.app.link.listen(where.vm, where.user, address, port, path)
        except Exception as error:
            self.listeners -= 1
            self.app.telemetry.log.info("no forward", why=str(refused(self.app, error)))
            return False

        async def opener(stream: Stream) -> End:
            end = UnixEnd(self.room, self.ends.discard) if path is not None else TcpEnd(self.room, self.ends.discard)
            if path is not None:
                await self.conn.create_unix_connection(lambda: end, path)  # type: ignore[arg-type, return-value]
            else:
                await self.conn.create_connection(lambda: end, host, port or listener.port)  # type: ignore[arg-type, return-value]
            self.ends.add(end)
            return end

        return GuestListener(listener.port, self._listening(where, listener, opener), self._closed)

    async def _listening(self, where: Attach, listener: Listener, opener: backward.Opener) -> None:
        try:
            await _quietly(self.visits.during(where, self.key(), backward.serve(listener, opener)))
        finally:
            await listener.close()

    def _closed(self) -> None:
        self.listeners -= 1


def refused(app: App, error: Exception) -> asyncssh.ChannelOpenError:
    """An error as the reason a client is shown; what was not declared stays in the log."""
    if not isinstance(error, Failure):
        number = ids.request_id()
        app.telemetry.log.error("forward failed", request_id=number, exc_info=error)
        error = INTERNAL(request_id=number)
    forbidden = error.kind in (Kind.FORBIDDEN, Kind.NOT_FOUND, Kind.TOO_MANY)
    code = asyncssh.OPEN_ADMINISTRATIVELY_PROHIBITED if forbidden else asyncssh.OPEN_CONNECT_FAILED
    return asyncssh.ChannelOpenError(code, error.sentence)


async def _quietly(visit: Awaitable[None]) -> None:
    try:
        await visit
    except Failure:
        return  # the VM or the key is gone; what was open for it is closed where it was copied
