"""The SSH door itself: listening, the algorithms it speaks, and what events end."""
from __future__ import annotations

import asyncio
import socket
from collections.abc import Sequence

import asyncssh

from ussycode.base.events import Event
from ussycode.doors.ssh import limits
from ussycode.doors.ssh.connection import Connection, House
from ussycode.doors.ssh.hostkey import load_host_key
from ussycode.doors.ssh.visits import Visits
from ussycode.ports import App

__all__ = ["SshDoor", "load_host_key"]
ENCRYPTION = (
    "aes128-gcm@openssh.com", "aes256-gcm@openssh.com", "aes128-ctr", "aes192-ctr", "aes256-ctr",
)
"""Ciphers on offer. The client's order decides, and OpenSSH's begins with chacha20-poly1305, which costs this
process 1.6 times the CPU of AES-GCM; every client has AES, so leaving chacha20 out is the only way to steer."""
CLOSE_SECONDS = 2.0
"""How long `close` waits for clients to take their last bytes."""


class SshDoor:
    """Serves SSH on sockets that already listen. Register `heard` with the database."""

    def __init__(self, app: App, host_keys: Sequence[asyncssh.SSHKey]) -> None:
        """`host_keys` are what clients remember the platform by."""
        clock = asyncio.get_running_loop().time
        self._keys = list(host_keys)
        self._house = House(app, limits.Admission(), limits.UnknownKeys(clock), Visits(app), set())
        self._acceptors: list[asyncssh.SSHAcceptor] = []

    async def serve(self, sockets: Sequence[socket.socket]) -> None:
        """Accept connections on `sockets` until `close`."""
        # asyncssh's own log would repeat what people type.
        asyncssh.set_log_level("ERROR")
        self._acceptors = [await self._listen(one) for one in sockets]
        await asyncio.gather(*(a.wait_closed() for a in self._acceptors))

    async def _listen(self, one: socket.socket) -> asyncssh.SSHAcceptor:
        return await asyncssh.listen(
            sock=one, server_factory=lambda: Connection(self._house), server_host_keys=self._keys,
            server_version="ussycode", encryption_algs=list(ENCRYPTION), compression_algs=["none"],
            password_auth=False, kbdint_auth=False, host_based_auth=False, gss_host=None, agent_forwarding=True,
            x11_forwarding=False, line_editor=True, line_echo=True, line_history=limits.HISTORY,
            max_line_length=limits.EDIT_LINE, login_timeout=limits.LOGIN_SECONDS,
            keepalive_interval=limits.KEEPALIVE_SECONDS, keepalive_count_max=limits.KEEPALIVE_MISSES,
        )

    async def heard(self, events: Sequence[Event]) -> None:
        """End the visits that are not allowed any more; the lobby asks by itself before each command."""
        await self._house.visits.heard(events)

    async def close(self) -> None:
        """Accept no more, end every session. Idempotent."""
        for acceptor in self._acceptors:
            acceptor.close()
        open_now = [c.conn for c in self._house.connections]
        for conn in open_now:
            conn.close()
        if open_now:
            await asyncio.wait([asyncio.ensure_future(c.wait_closed()) for c in open_now], timeout=CLOSE_SECONDS)
        for conn in open_now:
            conn.abort()
