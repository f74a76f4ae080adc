"""Connections to one destination: a port of a VM through its agent, or the platform's own web server."""
from __future__ import annotations

import asyncio
from dataclasses import dataclass

from ussycode.doors.edge.upstream import Upstream
from ussycode.runtime.guest.protocol import STREAM_PORT, dial_hello

CONNECT_TIMEOUT = 5.0
"""Seconds until a destination counts as not answering."""
MAX_IDLE = 64
"""Connections kept open for the next request, per destination."""
MAX_OPEN = 1024
"""Connections to one destination at a time, as many as the agent of a VM carries; more visitors get 503."""
IDLE_LIFE = 30.0
"""Seconds an unused connection is kept."""


class Unreachable(Exception):
    """No connection could be made; `reason` is a word for the log."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


@dataclass(frozen=True)
class Guest:
    """A TCP port inside a VM of one boot."""

    address: str
    secret: str
    port: int
    agent_port: int = STREAM_PORT


class Pool:
    """Open connections to one destination. Shut once it must not be reached any more."""

    def __init__(self, destination: Guest | str) -> None:
        self.destination = destination
        self._open = 0
        self._dialling = 0
        self._idle: list[Upstream] = []
        self._shut = False
        self._hello = dial_hello(destination.secret, destination.port) if isinstance(destination, Guest) else b""

    @property
    def unused(self) -> bool:
        """No connection at all is open."""
        return self._open + self._dialling == 0

    def take(self, since: float) -> Upstream | None:
        """A connection that served a request before and became idle at `since` or later, if there is one."""
        if not self._idle or self._idle[-1].idle_since < since:
            return None
        return self._idle.pop()

    async def connect(self) -> Upstream:
        """A new connection; for a guest the hello travels with the first request. Raises Unreachable."""
        if self._shut or self._open + self._dialling >= MAX_OPEN:
            raise Unreachable("shut" if self._shut else "too_many")
        self._dialling += 1
        try:
            return await asyncio.wait_for(self._dial(), CONNECT_TIMEOUT)
        except TimeoutError:
            raise Unreachable("connect_timeout") from None
        except OSError as error:
            raise Unreachable("connect_refused") from error
        finally:
            self._dialling -= 1

    async def _dial(self) -> Upstream:
        loop = asyncio.get_running_loop()
        if isinstance(self.destination, str):
            _, upstream = await loop.create_unix_connection(lambda: Upstream(self, b""), self.destination)
        else:
            guest = self.destination
            _, upstream = await loop.create_connection(
                lambda: Upstream(self, self._hello), guest.address, guest.agent_port,
            )
        return upstream

    def release(self, upstream: Upstream, now: float) -> None:
        """Take back a connection whose exchange ended cleanly."""
        if self._shut or len(self._idle) >= MAX_IDLE:
            upstream.abort()
            return
        upstream.idle_since = now
        self._idle.append(upstream)

    def made(self) -> None:
        """A connection is open."""
        self._open += 1

    def lost(self, upstream: Upstream) -> None:
        """A connection ended, whoever ended it."""
        self._open -= 1
        if upstream in self._idle:
            self._idle.remove(upstream)

    def prune(self, now: float) -> None:
        """End connections unused for IDLE_LIFE; `now` as given to `release`."""
        for upstream in [u for u in self._idle if now - u.idle_since > IDLE_LIFE]:
            upstream.abort()

    def shut(self) -> None:
        """Make and keep no more connections; those at work end when their exchange does."""
        self._shut = True
        for upstream in list(self._idle):
            upstream.abort()
