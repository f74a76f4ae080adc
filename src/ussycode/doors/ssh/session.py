"""One session channel of a client: what it asked for, its terminal, and lines or bytes from it."""
from __future__ import annotations

import asyncio
import enum
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import asyncssh

from ussycode.base.errors import printable
from ussycode.cmdline.lex import MAX_LINE
from ussycode.doors.ssh.ends import End, Room

Ended = int | str
"""How a session ended: an exit status, or the name of a signal without SIG."""
DUMB = frozenset({"dumb", "unknown", ""})
"""Terminal types that are sent no escapes."""
MAX_PASTED = 200
"""Lines of one paste that are taken."""
SIGNALS_HELD = 16
"""Signals kept for a program that is slow to take them; more are dropped."""


@dataclass(frozen=True)
class Asked:
    """What the client wants of the session: a shell when both are None."""

    command: str | None = None
    subsystem: str | None = None


@dataclass(frozen=True)
class Terminal:
    """The client's terminal as it was when the session began."""

    term: str
    cols: int
    rows: int

    @property
    def fancy(self) -> bool:
        """It understands escapes."""
        return self.term not in DUMB


class Key(enum.Enum):
    """What can come instead of a line."""

    EOF = "Ctrl-D"
    BREAK = "Ctrl-C"


@dataclass(frozen=True)
class Line:
    """A line from the editor. `shown` is false when it was typed while echo was off."""

    text: str
    shown: bool


@dataclass
class Pasted:
    """Lines that came in one paste; `cut` when there were more than are taken."""

    lines: list[str] = field(default_factory=list)
    cut: bool = False

    def add(self, line: str) -> None:
        """One more line, while there is room."""
        if len(self.lines) < MAX_PASTED and sum(map(len, self.lines)) + len(line) <= MAX_LINE:
            self.lines.append(line)
        else:
            self.cut = True


class Session(End, asyncssh.SSHServerSession[Any]):
    """A channel in one of two modes: bytes, or lines through asyncssh's editor when `edits` says so.

    `serve` runs once the client said what it wants; its result ends the session, its failure only the session.
    """

    def __init__(
        self, raw: asyncssh.SSHServerChannel[Any], room: Room, edits: Callable[[Asked], bool],
        serve: Callable[[Session], Awaitable[Ended]], closed: Callable[[End], object],
    ) -> None:
        super().__init__(room, closed)
        self.raw = raw
        self.asked = Asked()
        self.terminal: Terminal | None = None
        self.editing = False
        self.pasted: Pasted | None = None
        """A paste that is under way."""
        self.on_interrupt: Callable[[], object] | None = None
        self.on_resize: Callable[[], object] | None = None
        self.on_signal: Callable[[str], object] | None = None
        self.env: Mapping[bytes, bytes] = {}
        self._edits, self._serve = edits, serve
        self._echo = True
        self._task: asyncio.Task[None] | None = None

    # What asyncssh calls ------------------------------------------------------------------------------------------

    def pty_requested(self, term_type: str, term_size: tuple[int, int, int, int], term_modes: object) -> bool:
        """The client sits at a terminal."""
        self.terminal = Terminal(printable(term_type, 64), *term_size[:2])
        return True

    def shell_requested(self) -> bool:
        """The client wants no particular command."""
        return self._begin(Asked())

    def exec_requested(self, command: str) -> bool:
        """The client wants one command run."""
        return self._begin(Asked(command=command))

    def subsystem_requested(self, subsystem: str) -> bool:
        """The client speaks a protocol of its own, such as sftp."""
        return self._begin(Asked(subsystem=subsystem))

    def _begin(self, asked: Asked) -> bool:
        self.asked = asked
        self.editing = self.terminal is not None and asked.subsystem is None and self._edits(asked)
        if not self.editing:
            self.raw.set_encoding(None)
        return True

    def session_started(self) -> None:
        """Everything is agreed: go."""
        self._task = asyncio.get_running_loop().create_task(self._run())

    async def _run(self) -> None:
        ended = await self._serve(self)
        if isinstance(ended, str):
            self.raw.exit_with_signal(ended)
        else:
            self.raw.exit(ended)

    def data_received(self, data: Any, datatype: object) -> None:
        """Keep a line of the editor, or bytes."""
        if self.editing and isinstance(data, str):
            if self.pasted is not None:
                self.pasted.add(data.rstrip("\n"))
                return
            data = Line(data.rstrip("\n"), self._echo)
        elif self.terminal is not None and self.on_interrupt is not None and b"\x03" in data:
            self.on_interrupt()
        self._put(data.encode(errors="replace") if isinstance(data, str) else data)

    def end_paste(self, rest: str) -> bool:
        """A paste is over, `rest` of it being on the line still; whether it was more than one line."""
        pasted, self.pasted = self.pasted, None
        if pasted is None or not pasted.lines:
            return False
        if rest.strip():
            pasted.add(rest)
        self._put(pasted)
        return True

    def soft_eof_received(self) -> None:
        """Ctrl-D on an empty line."""
        self._put(Key.EOF)

    def break_received(self, msec: int) -> bool:
        """Ctrl-C in the editor, or a break sent by the client."""
        self._interrupt()
        return True

    def signal_received(self, signal: str) -> None:
        """The client sent a signal."""
        if self.on_signal is not None:
            self.on_signal(printable(signal, 16))
        elif signal == "INT":
            self._interrupt()

    def _interrupt(self) -> None:
        if self.on_interrupt is not None:
            self.on_interrupt()
        elif self.editing:
            self.chan.clear_input()
            self._put(Key.BREAK)

    def terminal_size_changed(self, width: int, height: int, pixwidth: int, pixheight: int) -> None:
        """The client's window was resized."""
        if self.on_resize is not None:
            self.on_resize()

    def connection_lost(self, exc: Exception | None) -> None:
        """The client left: whatever was running for it ends."""
        super().connection_lost(exc)
        if self._task is not None:
            self._task.cancel()

    # What serves it calls -----------------------------------------------------------------------------------------

    async def read_line(self) -> Line | Key | Pasted:
        """Next line, key or paste from the editor. `Key.EOF` once the client left."""
        item = await self._take()
        if isinstance(item, bytes):
            return Line(item.decode(errors="replace").rstrip("\n"), False)
        return item if isinstance(item, Line | Key | Pasted) else Key.EOF

    async def read(self) -> bytes:
        """Next bytes; what was typed as lines before the editor was left counts too."""
        item = await self._take()
        if isinstance(item, Line):
            return item.text.encode(errors="replace") + b"\n"
        if isinstance(item, Pasted):
            return "\n".join(item.lines).encode(errors="replace") + b"\n"
        return b"\x04" if item is Key.EOF else b"\x03" if item is Key.BREAK else item or b""

    async def read_all(self, limit: int) -> bytes:
        """Everything up to the end of input, at most `limit` bytes."""
        data = bytearray()
        while len(data) < limit and (more := await self.read()):
            data += more
        return bytes(data[:limit])

    async def read_piped_line(self) -> bytes | None:
        """Next line of piped input, without its end and at most MAX_LINE + 1 bytes; None at the end."""
        data = bytearray()
        while b"\n" not in data and len(data) <= MAX_LINE and (more := await self.read()):
            data += more
        if not data:
            return None
        line, newline, rest = bytes(data).partition(b"\n")
        if not newline and len(line) > MAX_LINE:
            rest = await self._after_the_line()
        if rest:
            self._items.appendleft(rest)
            self._held += len(rest)
        return line[: MAX_LINE + 1]

    async def _after_the_line(self) -> bytes:
        """Drop the rest of a line that is too long, so that no part of it is taken for a command."""
        while more := await self.read():
            _, newline, rest = more.partition(b"\n")
            if newline:
                return rest
        return b""

    def _send(self, data: bytes, stderr: bool) -> None:
        sent: Any = data.decode(errors="replace") if self.editing else data
        self.raw.write(sent, asyncssh.EXTENDED_DATA_STDERR if stderr else None)

    def type_raw(self) -> None:
        """Leave the editor: from now on bytes, for a program that has the terminal to itself."""
        if self.editing:
            self.chan.set_line_mode(False)
            self.raw.set_encoding(None)
            self.editing = False

    def type_lines(self) -> None:
        """Back to the editor after `type_raw`."""
        self.raw.set_encoding("utf-8", "replace")
        self.editing = True
        self.chan.set_line_mode(True)

    def echo(self, on: bool) -> None:
        """Show or hide what is typed in the editor."""
        if self.editing and not self.gone and on is not self._echo:
            self._echo = on
            self.chan.set_echo(on)

    @property
    def size(self) -> tuple[int, int, int, int]:
        """Columns, rows and pixels of the terminal now."""
        return self.raw.get_terminal_size()
