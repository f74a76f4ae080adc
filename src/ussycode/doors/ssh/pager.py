"""A page of the manual, a screen at a time."""
from __future__ import annotations

import textwrap

from ussycode.cmdline.render import reflow
from ussycode.doors.ssh.fullscreen import Fullscreen, taken
from ussycode.doors.ssh.screen import Screen

HELP = "q to quit, space on, b back, j k g G"


def too_long(text: str, screen: Screen) -> bool:
    """`text` does not fit on the client's terminal, and that can be used as a whole."""
    return screen.fancy and text.count("\n") + 2 > screen.session.size[1] > 0


async def show(title: str, text: str, screen: Screen) -> None:
    """Show `text` until the reader has enough."""
    async with taken(screen) as full:
        await _Reading(full, title, text).serve()


class _Reading:
    def __init__(self, full: Fullscreen, title: str, text: str) -> None:
        self.full, self.title, self.text = full, title, text
        self.top = 0

    async def serve(self) -> None:
        while True:
            await self._draw()
            for key in await self.full.keys(None):
                if key in ("q", "quit", "gone"):
                    return
                self._move(key)

    async def _draw(self) -> None:
        lines, room = self._lines(), self._room()
        self.top = max(0, min(self.top, len(lines) - room))
        bottom = min(self.top + room, len(lines))
        where = "end" if bottom == len(lines) else f"{100 * bottom // len(lines)} %"
        head = self.full.screen.style.paint(f"{self.title}  ({HELP})"[: self.full.size[0]], "bold")
        await self.full.draw([head, *lines[self.top : bottom], *[""] * (room - (bottom - self.top)), where])

    def _room(self) -> int:
        return self.full.size[1] - 3

    def _lines(self) -> list[str]:
        width = self.full.size[0]
        return [part for line in reflow(self.text, width).split("\n")
                for part in (textwrap.wrap(line, width, drop_whitespace=False) if len(line) > width else [line])]

    def _move(self, key: str) -> None:
        room = self._room()
        steps = {" ": room, "f": room, "forth": room, "b": -room, "back": -room, "j": 1, "down": 1, "enter": 1,
                 "k": -1, "up": -1, "g": -len(self.text), "first": -len(self.text), "G": len(self.text),
                 "last": len(self.text)}
        self.top = max(0, self.top + steps.get(key, 0))
