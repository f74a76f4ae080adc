"""Results as text for people and documents for machines; user text is cleaned here and nowhere else."""
from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NotRequired, Protocol, TypedDict

from ussycode.base.errors import Failure, printable

COLOURS = {"bold": "1", "dim": "2", "red": "31", "green": "32", "yellow": "33", "cyan": "36", "magenta": "35"}


class ErrorDocument(TypedDict):
    """A failure; the last three where they were asked for, and always over SSH."""

    error: str
    code: NotRequired[str]
    hint: NotRequired[str]
    request_id: NotRequired[str]


@dataclass(frozen=True)
class Style:
    """How text may look: `width` in columns, and whether escapes are allowed."""

    width: int = 80
    colour: bool = False

    def paint(self, text: str, colour: str) -> str:
        """`text` in a colour of COLOURS, or plain where escapes are not allowed."""
        return f"\x1b[{COLOURS[colour]}m{text}\x1b[0m" if self.colour else text


PLAIN = Style()


class View(Protocol):
    """What a command returns."""

    def text(self, style: Style) -> str:
        """For a person; lines end with LF, no trailing newline."""
        ...

    def document(self) -> object:
        """For a machine: plain JSON values whose names are the wire contract."""
        ...


def table(head: Sequence[str], rows: Sequence[Sequence[str]], style: Style) -> str:
    """Left-aligned columns, two spaces apart. Cells are cleaned of control characters."""
    cells = [[printable(c) for c in row] for row in rows]
    widths = [max(len(c) for c in column) for column in zip(head, *cells, strict=True)]
    line = "  ".join(h.ljust(w) for h, w in zip(head, widths, strict=True)).rstrip()
    body = ["  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)).rstrip() for row in cells]
    return "\n".join([style.paint(line, "dim"), *body])


def failure_text(failure: Failure, style: Style) -> str:
    """The sentence, and the hint on a line of its own."""
    said = style.paint("error: ", "red") + failure.sentence
    return f"{said}\n{style.paint('hint: ', 'dim')}{failure.hint}" if failure.hint else said


def failure_document(failure: Failure, request_id: str = "", rich: bool = False) -> ErrorDocument:
    """`{"error": sentence}`; with `rich` also `code`, `hint` and `request_id`."""
    made: ErrorDocument = {"error": failure.sentence}
    if rich:
        made.update({"code": failure.code, "hint": failure.hint, "request_id": request_id})
    return made
