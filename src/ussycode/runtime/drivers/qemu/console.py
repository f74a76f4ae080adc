"""The console log: kept short on disk, and its last lines made fit for a person's terminal."""
from __future__ import annotations

import os
import re
from pathlib import Path

from ussycode.base.errors import printable

MAX_BYTES = 1024 * 1024
"""Size at which the log is cut."""
KEPT_BYTES = 64 * 1024
"""What is left after a cut, and how far back the last lines are looked for."""
MAX_LINES = 20
_ESCAPES = re.compile(rb"\x1b(\[[0-9;?]*[ -/]*[@-~]|\][^\x07\x1b]{0,200}(\x07|\x1b\\)?|.)")


def last_lines(log: Path, count: int = MAX_LINES) -> str:
    """The last non-empty lines, without control characters; empty when there is no log."""
    text = _ESCAPES.sub(b"", _end(log)).decode("utf-8", "replace").replace("\r", "\n")
    lines = [printable(line.rstrip()) for line in text.split("\n") if line.strip()]
    return "\n".join(lines[-count:])


def trim(log: Path) -> None:
    """Cut a log that grew beyond MAX_BYTES. The writer appends, so it goes on behind the cut."""
    try:
        if log.stat().st_size <= MAX_BYTES:
            return
        kept = _end(log)
        with log.open("r+b") as file:
            file.truncate(0)
        with log.open("ab") as file:
            file.write(kept)
    except FileNotFoundError:
        return


def _end(log: Path) -> bytes:
    try:
        with log.open("rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - KEPT_BYTES))
            return file.read(KEPT_BYTES)
    except FileNotFoundError:
        return b""
