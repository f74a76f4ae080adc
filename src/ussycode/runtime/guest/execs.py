"""Programs run inside a guest: a shell on a terminal, or a command with three pipes."""
from __future__ import annotations

import asyncio
import struct
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

from ussycode.runtime.guest import errors
from ussycode.runtime.guest.protocol import MAX_DATA, STDIN_WINDOW, Op, Pairs, encode_op
from ussycode.runtime.guest.streams import OPEN_SECONDS, GuestAddress, Stream, open_stream, read_op

MAX_STATUS_NAME = 16
"""Characters of a signal's name that are believed."""


@dataclass(frozen=True)
class ExecSpec:
    """What to run. Empty `cmd`: an interactive login shell; empty `user`: the VM's login user."""

    cmd: str = ""
    user: str = ""
    pty: bool = False
    term: str = "xterm-256color"
    rows: int = 24
    cols: int = 80
    env: tuple[tuple[str, str], ...] = ()
    cwd: str = ""
    tree: bool = False
    """End every process the command started when the client goes away."""
    login: bool = False
    """Run `cmd` in a login shell (reads the profile). Without `cmd` the shell is always one."""

    def header(self) -> Pairs:
        """The stream header that asks for it."""
        flags = [(name, "1") for name in ("pty", "tree", "login") if getattr(self, name)]
        texts = [(name, getattr(self, name)) for name in ("cmd", "user", "cwd") if getattr(self, name)]
        size = [("term", self.term), ("rows", str(self.rows)), ("cols", str(self.cols))] if self.pty else []
        env = [("env", f"{name}={value}") for name, value in self.env]
        return (("verb", "exec"), *texts, *flags, *size, *env)


@dataclass(frozen=True)
class Stdout:
    """Bytes of standard output, or of the terminal."""

    data: bytes


@dataclass(frozen=True)
class Stderr:
    """Bytes of standard error; never with a terminal."""

    data: bytes


@dataclass(frozen=True)
class Exit:
    """The program ended with this status, 0..255."""

    status: int


@dataclass(frozen=True)
class ExitSignal:
    """The program was ended by the signal of this name (without SIG)."""

    name: str


Event = Stdout | Stderr | Exit | ExitSignal


@dataclass
class ExecStream:
    """A running program. Iterate it for its events; iteration also lets `write` go on, so never stop early."""

    stream: Stream
    _credit: int = STDIN_WINDOW
    _more: asyncio.Event = field(default_factory=asyncio.Event)
    _over: bool = False

    async def __aiter__(self) -> AsyncIterator[Event]:
        """Events in order, `Exit` or `ExitSignal` last. Raises GONE when the VM vanishes before that."""
        try:
            while True:
                op, data = await read_op(self.stream.reader)
                if op == Op.CREDIT:
                    self._grant(data)
                    continue
                yield _event(op, data)
                if op in (Op.EXIT, Op.EXIT_SIGNAL):
                    return
        finally:
            self._over = True
            self._more.set()

    def _grant(self, data: bytes) -> None:
        if len(data) != 4:
            raise errors.PROTOCOL(why="a credit has four bytes")
        self._credit = min(STDIN_WINDOW, self._credit + int.from_bytes(data, "big"))
        self._more.set()

    async def write(self, data: bytes) -> None:
        """Send to standard input; waits while the program does not read. Silent once the program ended."""
        rest = memoryview(data)
        while rest and await self._have_credit():
            part = rest[: min(self._credit, MAX_DATA)]
            self._credit -= len(part)
            rest = rest[len(part) :]
            await self._send(Op.STDIN, bytes(part))

    async def _have_credit(self) -> bool:
        while not self._over and self._credit == 0:
            self._more.clear()
            await self._more.wait()
        return not self._over

    async def write_eof(self) -> None:
        """End standard input (on a terminal: the end-of-file key)."""
        await self._send(Op.STDIN, b"")

    async def resize(self, rows: int, cols: int, xpixel: int = 0, ypixel: int = 0) -> None:
        """Tell the terminal its size; numbers are cut to 16 bits."""
        sizes = (min(max(n, 0), 0xFFFF) for n in (rows, cols, xpixel, ypixel))
        await self._send(Op.WINDOW, struct.pack(">4H", *sizes))

    async def signal(self, name: str) -> None:
        """Send a signal, named without SIG, to the foreground process group; unknown names are ignored."""
        await self._send(Op.SIGNAL, name.encode()[:MAX_STATUS_NAME])

    async def _send(self, op: Op, payload: bytes) -> None:
        if self._over:
            return
        try:
            self.stream.writer.write(encode_op(op, payload))
            await self.stream.writer.drain()
        except ConnectionError:
            return  # whoever iterates learns it as GONE

    async def close(self) -> None:
        """Hang up: a terminal's session gets SIGHUP, `tree` ends everything. Idempotent."""
        self._over = True
        self._more.set()
        await self.stream.close()


def _event(op: int, data: bytes) -> Event:
    if op == Op.STDOUT:
        return Stdout(data)
    if op == Op.STDERR:
        return Stderr(data)
    if op == Op.EXIT and len(data) == 4:
        return Exit(int.from_bytes(data, "big") & 0xFF)
    if op == Op.EXIT_SIGNAL:
        name = data[:MAX_STATUS_NAME].decode("ascii", "replace")
        return ExitSignal(name if name.isalnum() else "KILL")
    raise errors.PROTOCOL(why="an unknown exec frame")


async def open_exec(addr: GuestAddress, spec: ExecSpec, *, timeout: float = OPEN_SECONDS) -> ExecStream:
    """Start a program; returns once it runs. Raises NO_USER, NO_SHELL, AUTH, TIMEOUT, GONE, FAILED."""
    return ExecStream(await open_stream(addr, spec.header(), timeout=timeout))


@dataclass(frozen=True)
class Finished:
    """A program that ended: status as a shell shows it (128 + n would be a signal, named in `signal`)."""

    status: int
    stdout: bytes
    stderr: bytes
    signal: str = ""


MAX_OUTPUT = 1024 * 1024
"""Bytes of stdout and of stderr that `run` keeps; the rest is read and dropped."""


async def run(
    addr: GuestAddress, spec: ExecSpec, stdin: bytes = b"", *, timeout: float = 60.0, limit: int = MAX_OUTPUT
) -> Finished:
    """Run to the end and collect at most `limit` bytes of each output. Raises TIMEOUT and what `open_exec` does."""
    try:
        async with asyncio.timeout(timeout):
            return await _run(addr, spec, stdin, limit)
    except TimeoutError:
        raise errors.TIMEOUT() from None


async def _run(addr: GuestAddress, spec: ExecSpec, stdin: bytes, limit: int) -> Finished:
    program = await open_exec(addr, spec)
    feeder = asyncio.create_task(_feed(program, stdin))
    try:
        return await _collect(program, limit)
    finally:
        feeder.cancel()
        await program.close()


async def _feed(program: ExecStream, stdin: bytes) -> None:
    await program.write(stdin)
    await program.write_eof()


async def _collect(program: ExecStream, limit: int) -> Finished:
    out, err = bytearray(), bytearray()
    async for event in program:
        match event:
            case Stdout(data):
                out += data[: limit - len(out)]
            case Stderr(data):
                err += data[: limit - len(err)]
            case Exit(status):
                return Finished(status, bytes(out), bytes(err))
            case ExitSignal(name):
                return Finished(255, bytes(out), bytes(err), name)
    raise errors.GONE()
