"""What a person's keys mean at the prompt beyond plain editing: earlier lines, and pastes of several lines."""
from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from ussycode.doors.ssh.session import Pasted, Session

PASTE_ON, PASTE_OFF = "\x1b[?2004h", "\x1b[?2004l"
"""Ask a terminal to mark where a paste begins and ends, and to stop doing so."""
PASTE_BEGINS, PASTE_ENDS = "\x1b[200~", "\x1b[201~"
CLEAR = "\x1b[H\x1b[2J\x1b[m"
"""Empty the screen; it ends like a colour does, which is all that the editor knows to take no column."""
BACK = ("\x10", "\x1b[A", "\x1bOA")
FORTH = ("\x0e", "\x1b[B", "\x1bOB")
UNSEEN = ("\u00a0", "\u00ad", "\u200b", "\u200c", "\u200d", "\u2060", "\ufeff")
"""Characters that join or part letters; the editor takes them for keys, a person means them."""
Edit = tuple[str, int] | bool
"""What an editor's key handler answers: the new line and cursor, or False for a bell."""


class Keyboard:
    """Arrow keys over the lines of earlier visits, an empty screen, and a paste that waits to be confirmed."""

    def __init__(self, session: Session, lines: Sequence[str], prompt: str = "") -> None:
        self._session = session
        self._prompt = prompt
        self._lines = list(lines)
        self._at = len(self._lines)
        self._typed = ""

    def attach(self) -> None:
        """Listen to the keys."""
        keys: dict[str, Callable[[str, int], Edit]] = {
            **dict.fromkeys(BACK, self._back), **dict.fromkeys(FORTH, self._forth),
            "\x0c": self._clear, PASTE_BEGINS: self._paste_begins, PASTE_ENDS: self._paste_ends,
            **{char: partial(_insert, char) for char in UNSEEN},
        }
        for key, handler in keys.items():
            self._session.chan.register_key(key, handler)

    def entered(self, line: str) -> None:
        """A line was sent off: the next search begins behind it."""
        if line.strip() and (not self._lines or self._lines[-1] != line):
            self._lines.append(line)
        self._at, self._typed = len(self._lines), ""

    def _back(self, line: str, pos: int) -> Edit:
        if self._at == 0:
            return False
        if self._at == len(self._lines):
            self._typed = line
        self._at -= 1
        return self._shown()

    def _forth(self, line: str, pos: int) -> Edit:
        if self._at == len(self._lines):
            return False
        self._at += 1
        return self._shown()

    def _shown(self) -> Edit:
        line = self._lines[self._at] if self._at < len(self._lines) else self._typed
        return line, len(line)

    def _clear(self, line: str, pos: int) -> Edit:
        terminal = self._session.terminal
        if terminal is None or not terminal.fancy:
            return False
        self._session.chan.write(f"\n{CLEAR}{self._prompt}")
        return line, pos

    def _paste_begins(self, line: str, pos: int) -> Edit:
        self._session.pasted = Pasted()
        return line, pos

    def _paste_ends(self, line: str, pos: int) -> Edit:
        if not self._session.end_paste(line):
            return line, pos
        return "", 0


def _insert(char: str, line: str, pos: int) -> Edit:
    return line[:pos] + char + line[pos:], pos + 1
