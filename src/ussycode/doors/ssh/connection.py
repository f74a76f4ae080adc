"""One client's connection: its key, its user name, and what it opens."""
from __future__ import annotations

import asyncio
import ipaddress
from collections.abc import Awaitable
from dataclasses import dataclass, replace
from typing import Any

import asyncssh

from ussycode.access.facts import Caller
from ussycode.base import ids
from ussycode.base.errors import INTERNAL, ErrorCode, Failure, Kind
from ussycode.dispatch import SSH_NO_VM, Call, Outcome, run
from ussycode.doors.ssh import answers, limits, routes
from ussycode.doors.ssh.answers import Stopped, show_failure
from ussycode.doors.ssh.arrivals import NOT_REGISTERED, Arrival
from ussycode.doors.ssh.attach import Agent, Guests
from ussycode.doors.ssh.backward import GuestListener
from ussycode.doors.ssh.ends import End, Room, UnixEnd
from ussycode.doors.ssh.forwards import Forwards
from ussycode.doors.ssh.lobby import STATUS_STOPPED, Lobby
from ussycode.doors.ssh.screen import Screen
from ussycode.doors.ssh.session import Asked, Ended, Session
from ussycode.doors.ssh.visits import Visits
from ussycode.identity import ops as identity
from ussycode.identity.keys import PublicKey, read_public_key
from ussycode.identity.model import User
from ussycode.ports import App, Attach
from ussycode.vms.ops import NO_SUCH_VM

FULL = "too many connections; try again in a moment"
"""What a client is told for whom there is no room."""
REFUSE_WITHIN = 2.0
"""Seconds a connection without room may stay until it is told so: the time of a slow client's key exchange."""
NO_SUBSYSTEM = ErrorCode("ssh.subsystem", Kind.USAGE, "VMs have no {name} over SSH", hint="sftp is there")


@dataclass(frozen=True)
class House:
    """What all connections of a door share."""

    app: App
    admission: limits.Admission
    unknown: limits.UnknownKeys
    visits: Visits
    connections: set[Connection]


class Connection(asyncssh.SSHServer):
    """Any key signs in that is registered or may register: who it is decides itself afterwards.

    A client offers its keys one after another and we cannot know what follows, so an unknown first key leads
    to registration where that is open to it, even if a later key were registered. Where registration is
    closed to it an unknown key is refused, and the client tries its next one.
    """

    def __init__(self, house: House) -> None:
        self.house, self.app = house, house.app
        self.room = Room()
        self.username = ""
        self._address = ""
        self._entered = self._proven = self._counted = False
        self._offered: dict[str, bool] = {}
        self._owners: dict[str, User] = {}
        self._key = PublicKey("", "", "")
        self._user: User | None = None
        self._refusal: asyncio.TimerHandle | None = None
        self._ends: set[End] = set()
        self.agent = Agent(self._open_agent)
        self.conn: asyncssh.SSHServerConnection
        self.forwards: Forwards

    # Beginning and end --------------------------------------------------------------------------------------------

    def connection_made(self, conn: asyncssh.SSHServerConnection) -> None:
        """Let it in, or close it shortly with the reason."""
        self.conn = conn
        self._address = source(conn.get_extra_info("peername"))
        self._entered = self.house.admission.enter(self._address)
        if not self._entered:
            # What a client has sent and we have not read would reset the connection and lose the reason: it is said
            # when the client has listened and asks to sign in, or after a bound when it never does.
            self._refusal = asyncio.get_running_loop().call_later(REFUSE_WITHIN, self._refuse)
            return
        self.house.connections.add(self)
        self.forwards = Forwards(
            self.app, conn, self.room, self.house.visits, lambda: self.fingerprint, self._resolve, self._route,
            self._ends,
        )
        made: Any = conn
        # asyncssh does nothing when its socket is full; we must, or a client that stops reading fills our memory.
        made.pause_writing, made.resume_writing = self.room.full, self.room.free
        # Its own listener would put the agent's socket on this host; ours is made inside the VM.
        made.create_agent_listener = self._agent_asked

    def connection_lost(self, exc: Exception | None) -> None:
        """It is gone."""
        self.room.free()
        if self._refusal is not None:
            self._refusal.cancel()
        if self._entered:
            self.house.admission.leave(self._address, self._proven, self._key.fingerprint if self._counted else "")
            self.house.connections.discard(self)

    # Signing in ---------------------------------------------------------------------------------------------------

    def begin_auth(self, username: str) -> bool:
        """Everybody must prove a key."""
        self.username = username
        if not self._entered:
            self._refuse()
        return True

    def _refuse(self) -> None:
        """Close a connection there is no room for, with the reason."""
        self.conn.disconnect(asyncssh.DISC_TOO_MANY_CONNECTIONS, FULL)

    def public_key_auth_supported(self) -> bool:
        """The only way in."""
        return True

    async def validate_public_key(self, username: str, key: asyncssh.SSHKey) -> bool:
        """Whether this key may sign in; the proof that it is theirs is checked by asyncssh after this."""
        try:
            read = read_public_key(key.export_public_key().decode())
        except ValueError:
            return False
        if read.fingerprint not in self._offered:
            if len(self._offered) >= limits.MAX_OFFERS:
                return False
            self._offered[read.fingerprint] = await self._welcome(read)
        # The key offered last is the one whose signature asyncssh verifies next, with no await in between.
        # What it opens may arrive before anything awaited after the sign-in has come back.
        self._key, self._user = read, self._owners.get(read.fingerprint)
        return self._offered[read.fingerprint]

    async def _welcome(self, key: PublicKey) -> bool:
        try:
            found = await identity.recognise(self.app, key.fingerprint)
            if found is not None:
                self._owners[key.fingerprint] = found[1]
                return True
            may = await identity.may_register(self.app, key.fingerprint) is not None
            return self.house.unknown.take(self._address) and may
        except Exception:
            self.app.telemetry.log.exception("sign-in failed", address=self._address)
            return False

    def auth_completed(self) -> None:
        """It signed in."""
        self._proven = True
        self.house.admission.proven(self._address)
        self._counted = self.house.admission.join(self._key.fingerprint)
        if self._key.fingerprint in self._owners:
            self.app.uses.note(f"key:{self._key.fingerprint}")
        if not self._counted:
            self.conn.disconnect(asyncssh.DISC_TOO_MANY_CONNECTIONS, "too many connections with this key")

    async def caller(self) -> Caller | None:
        """Who holds the key now; None for a stranger or a removed key."""
        found = await identity.recognise(self.app, self._key.fingerprint)
        if found is None:
            return None
        self._user = found[1]
        return found[0]

    @property
    def fingerprint(self) -> str:
        """Fingerprint of the key it signed in with."""
        return self._key.fingerprint

    # Sessions -----------------------------------------------------------------------------------------------------

    def session_requested(self) -> Any:
        """A shell, a command or a subsystem is about to be asked for."""
        if len(self._ends) >= limits.MAX_CHANNELS:
            return False
        raw = self.conn.create_server_channel("utf-8", "replace", limits.WINDOW, limits.PACKET)
        session = Session(raw, self.room, self._edits, self._serve, self._ends.discard)
        session.env = sent = limits.Environment()
        any_raw: Any = raw
        any_raw._env = sent  # asyncssh would keep any number of variables of any size
        self._ends.add(session)
        return raw, session

    def _edits(self, asked: Asked) -> bool:
        return self._user is None or not self._user.handle_chosen or isinstance(self._route(), routes.Lobby)

    def _route(self) -> routes.Route:
        user = self._user
        return routes.route(self.username, user.handle if user else "", user.login_name if user else "")

    async def _serve(self, session: Session) -> Ended:
        screen = Screen(session)
        try:
            return await self._visit(session, screen)
        except Failure as failure:
            return await show_failure(failure, screen)
        except Exception:  # the outermost frame: whatever goes wrong ends this session and no other channel
            number = ids.request_id()
            self.app.telemetry.log.exception("session failed", request_id=number)
            return await show_failure(INTERNAL(request_id=number), screen)

    async def _visit(self, session: Session, screen: Screen) -> Ended:
        known = await Arrival(self.app, screen, self._key, self.username).who()
        if known is None:
            return 1
        caller, self._user = known
        guests = Guests(self.app, self.house.visits, self.agent, self.fingerprint)
        match self._route():
            case routes.Lobby():
                return await Lobby(self.app, session, screen, self.caller, guests).serve()
            case routes.ToVm() as there:
                return await self._enter(session, screen, caller, there, guests)
            case routes.Refuse(name):
                raise NO_SUCH_VM(name=name)

    async def _enter(
        self, session: Session, screen: Screen, caller: Caller, there: routes.ToVm, guests: Guests
    ) -> Ended:
        asked = session.asked
        outcome = await answers.execute(self.app, caller, ("ssh", there.target), screen)
        if isinstance(outcome, Stopped):
            return STATUS_STOPPED
        where = attached(outcome, there.name)
        if asked.subsystem == "sftp":
            return await guests.sftp(session, screen, where)
        if asked.subsystem is not None:
            raise NO_SUBSYSTEM(name=asked.subsystem)
        return await guests.attach(session, screen, replace(where, command=asked.command))

    # Forwarding ---------------------------------------------------------------------------------------------------

    def connection_requested(self, dest_host: str, dest_port: int, orig_host: str, orig_port: int) -> Any:
        """`-L`, `-D`, `-W`, `-J`."""
        return self.conn.create_tcp_channel(window=limits.WINDOW), self.forwards.tcp(dest_host, dest_port)

    def unix_connection_requested(self, dest_path: str) -> Any:
        """`-L` to a unix socket."""
        return self.conn.create_unix_channel(window=limits.WINDOW), self.forwards.unix(dest_path)

    def server_requested(self, listen_host: str, listen_port: int) -> Awaitable[GuestListener | bool]:
        """`-R`."""
        return self.forwards.listen(listen_host, listen_port)

    def unix_server_requested(self, listen_path: str) -> Awaitable[GuestListener | bool]:
        """`-R` from a unix socket."""
        return self.forwards.listen("", 0, listen_path)

    async def _resolve(self, name: str | None) -> Attach:
        caller = await self.caller()
        if caller is None:
            raise NOT_REGISTERED(command=self.app.config.ssh_command())
        route = routes.ToVm(name) if name is not None else self._route()
        if isinstance(route, routes.Refuse):
            raise NO_SUCH_VM(name=route.name)
        assert isinstance(route, routes.ToVm), "the lobby resolves by name only"
        where = attached(await run(self.app, Call(caller, ("ssh", route.target), "ssh")), route.name)
        if await self.caller() is None:  # removed while the VM was booting
            raise NOT_REGISTERED(command=self.app.config.ssh_command())
        return where

    async def _agent_asked(self) -> bool:
        self.agent.wanted = True
        return True

    async def _open_agent(self) -> End:
        end = UnixEnd(self.room, self._ends.discard)
        await self.conn.create_agent_channel(limits.WINDOW, limits.PACKET).open(lambda: end)
        self._ends.add(end)
        return end


def attached(outcome: Outcome, name: str) -> Attach:
    """Where a run of `ssh VM` leads. Raises its failure; a VM that is not the caller's reads like none at all."""
    if outcome.failure is not None:
        raise NO_SUCH_VM(name=name) if outcome.failure.error is SSH_NO_VM else outcome.failure
    assert outcome.attach is not None
    return outcome.attach


def source(peer: object) -> str:
    """What counts as one source: an IPv4 address, or the /64 of an IPv6 address, which one host can fill."""
    text = str(peer[0]).partition("%")[0] if isinstance(peer, tuple) and peer else "0.0.0.0"  # noqa: S104
    address = ipaddress.ip_address(text)
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is None:
        return str(ipaddress.ip_network((address, 64), strict=False))
    return text
