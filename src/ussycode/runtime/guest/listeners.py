"""Listening inside a guest: what `ssh -R` and agent forwarding need."""
from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass

from ussycode.base.errors import Failure
from ussycode.runtime.guest import errors
from ussycode.runtime.guest.protocol import Op, Pairs
from ussycode.runtime.guest.streams import OPEN_SECONDS, GuestAddress, Stream, open_stream, read_op


@dataclass(frozen=True)
class Listener:
    """A socket that listens inside the guest. Iterate it for accepted connections; close it to end it."""

    addr: GuestAddress
    stream: Stream

    @property
    def port(self) -> int:
        """The bound TCP port; 0 for a unix socket."""
        return int(port) if (port := self.stream.fields.get("port", "0")).isdecimal() else 0

    @property
    def path(self) -> str:
        """The unix socket's path; empty for TCP."""
        return self.stream.fields.get("path", "")

    async def __aiter__(self) -> AsyncIterator[Stream]:
        """Accepted connections; `fields` may tell the peer. Ends when the guest or `close` ends the listener."""
        while True:
            try:
                op, data = await read_op(self.stream.reader)
            except Failure:
                return
            if op != Op.ACCEPTED or len(data) != 8:
                raise errors.PROTOCOL(why="an unknown listen frame")
            if (stream := await self._take(int.from_bytes(data, "big"))) is not None:
                yield stream

    async def _take(self, number: int) -> Stream | None:
        try:
            return await open_stream(self.addr, (("verb", "accept"), ("id", str(number))))
        except Failure:
            return None  # that connection went away before it was taken; others may follow

    async def close(self) -> None:
        """Stop listening; a unix socket's path is removed. Connections already accepted live on."""
        await self.stream.close()


async def listen_tcp(
    addr: GuestAddress, port: int, *, host: str = "127.0.0.1", user: str = "", timeout: float = OPEN_SECONDS
) -> Listener:
    """Listen on a TCP port as `user` (0: any free port). Raises IN_USE, DENIED, NO_USER, …"""
    return await _listen(addr, (("port", str(port)), ("host", host)), user, timeout)


async def listen_unix(
    addr: GuestAddress, path: str = "", *, user: str = "", timeout: float = OPEN_SECONDS
) -> Listener:
    """Listen on a unix socket as `user` (empty path: one of its own in a private folder under /tmp)."""
    return await _listen(addr, (("path", path),), user, timeout)


async def _listen(addr: GuestAddress, where: Pairs, user: str, timeout: float) -> Listener:
    who = (("user", user),) if user else ()
    return Listener(addr, await open_stream(addr, (("verb", "listen"), *where, *who), timeout=timeout))
