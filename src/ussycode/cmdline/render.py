"""Results as text for people and documents for machines; user text is cleaned here and nowhere else."""
from __future__ import annotations

import re
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NotRequired, Protocol, TypedDict

from ussycode.base.errors import Failure, printable

COLOURS = {"bold": "1", "dim": "2", "red": "31", "green": "32", "yellow": "33", "cyan": "36", "magenta": "35"}


_ITEM = re.compile(r"([-*]|[0-9]+[.]) ")


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
    folds: bool = False
    """A person's terminal: what is wider than it is folded between words and columns. A pipe gets whole lines."""

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


def reflow(text: str, width: int) -> str:
    """Markdown whose paragraphs and list items are filled to `width`; code, tables and headings stay as they are."""
    done: list[str] = []
    open_lines: list[str] = []
    verbatim = False

    def close() -> None:
        if open_lines:
            hang = "  " if _ITEM.match(open_lines[0]) else ""
            done.extend(textwrap.wrap(" ".join(line.strip() for line in open_lines), width, subsequent_indent=hang,
                                      break_long_words=False, break_on_hyphens=False))
            open_lines.clear()

    for line in text.split("\n"):
        fence = line.startswith("```")
        if fence or verbatim or not line.strip() or line.startswith(("#", "|", "    ", ">")):
            close()
            done.append(line)
            verbatim = verbatim is not fence
            continue
        if _ITEM.match(line):
            close()
        open_lines.append(line)
    close()
    return "\n".join(done)


def table(head: Sequence[str], rows: Sequence[Sequence[str]], style: Style) -> str:
    """Left-aligned columns, two spaces apart. Cells are cleaned of control characters.

    Where the style folds, columns that do not fit beside the others stand below them, indented.
    """
    cells = [[printable(c) for c in row] for row in rows]
    widths = [max(len(c) for c in column) for column in zip(head, *cells, strict=True)]
    lines = _lines(widths, style.width) if style.folds else [range(len(widths))]

    def shown(row: Sequence[str]) -> list[str]:
        return ["  " * bool(n) + "  ".join(row[c].ljust(widths[c]) for c in columns).rstrip()
                for n, columns in enumerate(lines)]

    titles = [style.paint(line, "dim") for line in shown(head)]
    return "\n".join([*titles, *(line for row in cells for line in shown(row))])


def _lines(widths: Sequence[int], room: int) -> list[range]:
    """Columns by the line they stand on; those of later lines are indented by two."""
    lines, first, used = [], 0, 0
    for column, width in enumerate(widths):
        if column > first and used + width > room:
            lines.append(range(first, column))
            first, used = column, 2
        used += width + 2
    return [*lines, range(first, len(widths))]


def failure_text(failure: Failure, style: Style) -> str:
    """The sentence, and the hint on a line of its own."""
    said = _told("error: ", failure.sentence, "red", style)
    return f"{said}\n{_told('hint: ', failure.hint, 'dim', style)}" if failure.hint else said


def _told(head: str, text: str, colour: str, style: Style) -> str:
    if style.folds:
        text = textwrap.fill(head + text, style.width, break_long_words=False, break_on_hyphens=False)[len(head):]
    return style.paint(head, colour) + text


def failure_document(failure: Failure, request_id: str = "", rich: bool = False) -> ErrorDocument:
    """`{"error": sentence}`; with `rich` also `code`, `hint` and `request_id`."""
    made: ErrorDocument = {"error": failure.sentence}
    if rich:
        made.update({"code": failure.code, "hint": failure.hint, "request_id": request_id})
    return made
