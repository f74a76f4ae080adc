"""A client's whole terminal: what is drawn on it, and keys as names. It is given back as it was."""
from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from ussycode.doors.ssh.screen import Screen, tame

ENTER, LEAVE = "\x1b[?1049h\x1b[?25l", "\x1b[?25h\x1b[?1049l"
"""The other screen without a cursor, and back."""
KEYS = {
    b"\x1b[A": "up", b"\x1bOA": "up", b"\x1b[B": "down", b"\x1bOB": "down", b"\x1b[5~": "back", b"\x1b[6~": "forth",
    b"\x1b[H": "first", b"\x1b[1~": "first", b"\x1b[F": "last", b"\x1b[4~": "last", b"\r": "enter", b"\n": "enter",
    b"\x03": "quit", b"\x04": "quit", b"\x1b": "quit", b"": "gone",
}
"""Names of keys by the bytes they send; any other byte that can be printed is its own name."""


class Fullscreen:
    """The terminal while it is ours alone. Only inside `taken`."""

    def __init__(self, screen: Screen) -> None:
        self.screen = screen
        self.session = screen.session
        self._reading: asyncio.Task[bytes] | None = None

    @property
    def size(self) -> tuple[int, int]:
        """Columns and rows now; those of a usual terminal when the client says nothing sensible."""
        cols, rows = self.session.size[:2]
        return (cols if 20 <= cols <= 500 else 80), (rows if 4 <= rows <= 300 else 24)

    async def draw(self, lines: Sequence[str]) -> None:
        """Show `lines` from the top, cut to the terminal; the last row stays free."""
        cols, rows = self.size
        shown = [tame(line, self.screen.colour) for line in lines[: rows - 1]]
        body = "".join(f"{_cut(line, cols)}\x1b[K\r\n" for line in shown)
        await self.session.write(f"\x1b[H{body}\x1b[J".encode(errors="replace"))

    async def keys(self, seconds: float | None = None) -> list[str]:
        """Keys that were pressed; none when `seconds` passed first. `gone` when the client left."""
        if self._reading is None:
            self._reading = asyncio.create_task(self.session.read())
        done, _ = await asyncio.wait({self._reading}, timeout=seconds)
        if not done:
            return []
        data, self._reading = self._reading.result(), None
        return named(data)

    async def close(self) -> None:
        """Listen to keys no more."""
        if self._reading is not None:
            self._reading.cancel()
            await asyncio.wait({self._reading})
            self._reading = None


def named(data: bytes) -> list[str]:
    """Keys by name, in order; sequences that are not known are dropped."""
    if data in KEYS:
        return [KEYS[data]]
    found: list[str] = []
    rest = data
    while rest:
        length = next((n for n in (4, 3) if rest[:n] in KEYS), 1)
        key = KEYS.get(rest[:length]) or rest[:length].decode("ascii", "replace")
        if rest[0] == 0x1B and length == 1:
            return found  # an escape sequence of another key
        found += [key] if key.isprintable() else []
        rest = rest[length:]
    return found


def _cut(line: str, cols: int) -> str:
    if "\x1b" in line:
        return line  # coloured lines are built to fit
    return line[:cols]


@asynccontextmanager
async def taken(screen: Screen) -> AsyncIterator[Fullscreen]:
    """The terminal for as long as the block runs, then again what it was."""
    session, editing = screen.session, screen.session.editing
    session.type_raw()
    await session.write(ENTER.encode())
    made = Fullscreen(screen)
    try:
        yield made
    finally:
        await made.close()
        if not session.gone:
            await session.write(LEAVE.encode())
            if editing:
                session.type_lines()
