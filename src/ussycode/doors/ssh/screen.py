"""What a session is shown: text, failures, and a progress line that erases itself."""
from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from ussycode.base.errors import Failure
from ussycode.cmdline.render import Style, failure_text
from ussycode.doors.ssh.session import Key, Pasted, Session
from ussycode.ports import CUT_OFF, Undo

QUIET_SECONDS = 0.5
"""How long a command may take before a progress line appears."""
TICK_SECONDS = 0.12
SPINNER = "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏"
ERASE = "\r\x1b[K"
_DOUBTFUL = re.compile("[^\n\t -~]")
"""Anything but plain ASCII text is looked at character by character."""
_COLOURS = re.compile("(\x1b\\[[0-9;]*m)")


def tame(text: str, colour: bool) -> str:
    """`text` that can only print: no control characters but line ends and, with `colour`, colours."""
    if not _DOUBTFUL.search(text):
        return text
    parts = _COLOURS.split(text)
    plain = ["".join(c if c.isprintable() or c in "\n\t" else "?" for c in part) for part in parts[::2]]
    kept = [*parts[1::2], ""] if colour else [""] * len(plain)
    return "".join(p + k for p, k in zip(plain, kept, strict=True))


class Screen:
    """The client's screen; also the `Talk` that commands are given."""

    def __init__(self, session: Session) -> None:
        self.session = session
        terminal = session.terminal
        self.fancy = terminal is not None and terminal.fancy
        self.colour = self.fancy and not session.env.get(b"NO_COLOR")
        self.undo: Undo | None = None
        """What Ctrl-C means for the command that runs; see `Talk.undone_by`."""
        self._progress = ""

    @property
    def tty(self) -> bool:
        """A person sits in front."""
        return self.session.terminal is not None

    @property
    def style(self) -> Style:
        """How text may look here, at the width of this moment."""
        width = self.session.size[0] if self.tty else 80
        return Style(min(max(width, 20), 500) if width else 80, self.colour, self.tty)

    async def say(self, text: str, end: str = "\n") -> None:
        """Show `text` on standard output."""
        tamed = tame(text, self.colour) + end
        if self.session.editing:
            if not self.session.gone:
                self.session.chan.write(tamed)
            await self.session.write(b"")
            return
        await self.session.write(self._bytes(tamed))

    async def fail(self, failure: Failure) -> None:
        """Show a failure: on standard error, or among the rest for somebody at the lobby's prompt."""
        await self.complain(failure_text(failure, self.style))

    async def complain(self, text: str) -> None:
        """Show `text` on standard error."""
        if self.session.editing:
            await self.say(text)
            return
        await self.session.write(self._bytes(tame(text, self.colour) + "\n"), stderr=True)

    def _bytes(self, text: str) -> bytes:
        # No terminal driver sits between us and a client's raw terminal, so we are the ones to add CR.
        return (text.replace("\n", "\r\n") if self.tty else text).encode(errors="replace")

    async def progress(self, text: str) -> None:
        """What the progress line says from now on."""
        self._progress = text

    def undone_by(self, undo: Undo) -> None:
        """What takes back what the command began, should the person in front press Ctrl-C."""
        self.undo = undo

    async def read_stdin(self, limit: int) -> bytes:
        """Piped input to its end, or one line typed at the lobby's prompt; at most `limit` bytes."""
        if not self.session.editing:
            return b"" if self.tty else await self.session.read_all(limit)
        self.session.echo(True)
        line = await self.session.read_line()
        self.session.echo(False)
        if isinstance(line, Pasted):
            return "\n".join(line.lines).encode()[:limit]
        return b"" if isinstance(line, Key) else line.text.encode()[:limit]

    def incoming(self) -> AsyncIterator[bytes] | None:
        """What the client's standard input holds, as it comes; None for somebody at a terminal."""
        return None if self.tty else self._pieces()

    async def _pieces(self) -> AsyncIterator[bytes]:
        while piece := await self.session.read():
            yield piece
        if self.session.gone:
            raise CUT_OFF()

    @asynccontextmanager
    async def waiting(self, text: str) -> AsyncIterator[None]:
        """While the block runs: nothing is echoed, and after QUIET_SECONDS a line tells what it does."""
        self._progress = text
        self.session.echo(False)
        task = asyncio.create_task(self._spin()) if self.fancy else None
        try:
            yield
        finally:
            if task is not None:
                task.cancel()
                await asyncio.wait({task})
            self.session.echo(True)

    async def _spin(self) -> None:
        loop = asyncio.get_running_loop()
        begun, drawn, turn = loop.time(), False, 0
        try:
            await asyncio.sleep(QUIET_SECONDS)
            while True:
                drawn, turn = True, turn + 1
                line = f"{SPINNER[turn % len(SPINNER)]} {tame(self._progress, False)} {loop.time() - begun:.0f} s"
                await self.session.write((ERASE + line[: self.style.width - 1]).encode())
                await asyncio.sleep(TICK_SECONDS)
        finally:
            if drawn:
                # Not awaited: the line is erased even when the wait was cut short.
                self._erase()

    def _erase(self) -> None:
        if self.session.gone:
            return
        try:
            self.session.raw.write(ERASE if self.session.editing else ERASE.encode())
        except OSError:
            self.session.gone = True
