"""A session inside a VM: a shell, a command or sftp, with the client's terminal, signals and key agent."""
from __future__ import annotations

import asyncio
import re
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass

from ussycode.base.errors import Failure
from ussycode.doors.ssh import backward
from ussycode.doors.ssh.answers import show_failure
from ussycode.doors.ssh.ends import End, copy_down, copy_up
from ussycode.doors.ssh.screen import Screen
from ussycode.doors.ssh.session import SIGNALS_HELD, Ended, Session
from ussycode.doors.ssh.visits import Visits
from ussycode.ports import App, Attach
from ussycode.runtime.guest import errors
from ussycode.runtime.guest.execs import ExecSpec, ExecStream, Exit, ExitSignal, Stderr, Stdout
from ussycode.runtime.guest.streams import Stream

ENV_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,63}")
OURS = frozenset({"SSH_AUTH_SOCK", "TERM"})
"""Variables that a client cannot send: the platform sets them."""
DEFAULT_TERM = "xterm"
LARGEST = 0xFFFF
"""Largest number of rows or columns a terminal has."""

Pairs = tuple[tuple[str, str], ...]


@dataclass
class Agent:
    """The client's key agent. `open` connects to it."""

    open: Callable[[], Awaitable[End]]
    wanted: bool = False
    """The client asked for its agent to be forwarded (`ssh -A`)."""


@dataclass(frozen=True)
class Guests:
    """The way into VMs for the sessions of one connection. `key` is the fingerprint it signed in with."""

    app: App
    visits: Visits
    agent: Agent
    key: str

    async def attach(self, session: Session, screen: Screen, where: Attach) -> Ended:
        """Run what `where` says until it ends or the client leaves."""
        was_editing = session.editing
        session.type_raw()
        try:
            return await self.visits.during(where, self.key, self._run(session, where))
        except Failure as failure:
            shown = failure
        finally:
            if was_editing:
                session.type_lines()
        return await show_failure(shown, screen)

    async def sftp(self, session: Session, screen: Screen, where: Attach) -> Ended:
        """Serve sftp from inside the VM until either side ends."""
        try:
            return await self.visits.during(where, self.key, self._sftp(session, where))
        except Failure as failure:
            return await show_failure(failure, screen)

    async def _sftp(self, session: Session, where: Attach) -> Ended:
        stream = await self.app.link.open_sftp(where.vm, where.user)
        feeding = asyncio.create_task(_quietly(copy_up(session, stream)))
        try:
            await copy_down(session, stream)
        except OSError:
            raise errors.GONE() from None
        finally:
            feeding.cancel()
            await stream.close()
        return 0

    async def _run(self, session: Session, where: Attach) -> Ended:
        async with self._agent_socket(where) as env:
            program = await self.app.link.open_exec(where.vm, spec(session, where, env))
            steering = Steering(session)
            helpers = [asyncio.create_task(_feed(session, program)), asyncio.create_task(steering.follow(program))]
            try:
                return await _show(program, session)
            finally:
                steering.stop()
                for helper in helpers:
                    helper.cancel()
                await program.close()

    @asynccontextmanager
    async def _agent_socket(self, where: Attach) -> AsyncIterator[Pairs]:
        if not self.agent.wanted:
            yield ()
            return
        try:
            listener = await self.app.link.listen(where.vm, where.user, path="")
        except Failure as failure:
            # A shell without the agent beats no shell at all, as with any other server.
            self.app.telemetry.log.warning("no agent socket in the VM", vm=where.vm, code=failure.code)
            yield ()
            return
        task = asyncio.create_task(backward.serve(listener, self._open_agent))
        try:
            yield (("SSH_AUTH_SOCK", listener.path),)
        finally:
            task.cancel()

    async def _open_agent(self, _stream: Stream) -> End:
        return await self.agent.open()


def spec(session: Session, where: Attach, extra: Pairs) -> ExecSpec:
    """What to run in the guest for this session."""
    env = (*environment(session.env), *extra)
    if session.terminal is None:
        return ExecSpec(cmd=where.command or "", user=where.user, env=env)
    cols, rows = (min(max(n, 1), LARGEST) for n in session.size[:2])
    return ExecSpec(
        cmd=where.command or "", user=where.user, pty=True, term=session.terminal.term or DEFAULT_TERM,
        rows=rows, cols=cols, env=env,
    )


def environment(sent: Mapping[bytes, bytes]) -> Pairs:
    """Variables of a client that make sense in a guest; the rest is left out."""
    pairs = ((name.decode(errors="replace"), value.decode(errors="replace")) for name, value in sent.items())
    return tuple((n, v) for n, v in pairs if ENV_NAME.fullmatch(n) and n not in OURS and "\0" not in v)


class Steering:
    """Window changes and signals of a client on their way into a guest: the latest size, a few signals."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._changed = asyncio.Event()
        self._resized = False
        self._signals: deque[str] = deque(maxlen=SIGNALS_HELD)
        session.on_resize, session.on_signal = self._resize, self._signal

    def _resize(self) -> None:
        self._resized = True
        self._changed.set()

    def _signal(self, name: str) -> None:
        self._signals.append(name)
        self._changed.set()

    async def follow(self, program: ExecStream) -> None:
        """Pass on what happens until cancelled."""
        while True:
            await self._changed.wait()
            self._changed.clear()
            if self._resized:
                self._resized = False
                cols, rows, width, height = self._session.size
                await program.resize(rows, cols, width, height)
            while self._signals:
                await program.signal(self._signals.popleft())

    def stop(self) -> None:
        """Hear no more."""
        self._session.on_resize = self._session.on_signal = None


async def _feed(session: Session, program: ExecStream) -> None:
    while data := await session.read():
        await program.write(data)
    if not session.gone:
        await program.write_eof()


async def _show(program: ExecStream, session: Session) -> Ended:
    async for event in program:
        match event:
            case Stdout(data):
                await session.write(data)
            case Stderr(data):
                await session.write(data, stderr=True)
            case Exit(status):
                return status
            case ExitSignal(name):
                return name
    raise errors.GONE()


async def _quietly(work: Awaitable[None]) -> None:
    try:
        await work
    except OSError:
        return  # the other direction tells how it ended
