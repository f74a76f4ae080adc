"""A mail on its way in."""
from __future__ import annotations

import asyncio

from ussycode.doors.smtp import replies
from ussycode.doors.smtp.limits import MAX_BYTES, Held


class Coming:
    """A mail on its way in, kept with LF at its line ends. It is read to its end even when it is refused."""

    def __init__(self, held: Held) -> None:
        self.content = bytearray()
        self.refusal = ""
        self._held = held
        self._size = 0
        self._counted = 0

    async def read(self, reader: asyncio.StreamReader) -> None:
        """Until CRLF, a dot, CRLF; no other line end ends it, or a second mail could be hidden in the first."""
        cut = False
        while True:
            try:
                line = await reader.readuntil(b"\r\n")
            except asyncio.LimitOverrunError as over:
                await reader.read(over.consumed)
                self._refuse(replies.LINE_TOO_LONG)
                cut = True
                continue
            if line == b".\r\n" and not cut:
                return
            cut = False
            self._add(line)

    def forget(self) -> None:
        """Give its memory back."""
        self.content = bytearray()
        self._held.size -= self._counted
        self._counted = 0

    def _add(self, line: bytes) -> None:
        self._size += len(line)
        if self.refusal:
            return
        text = line[1:-2] if line.startswith(b".") else line[:-2]
        if b"\n" in text or b"\r" in text:
            self._refuse(replies.BARE_LINE_END)
        elif self._size > MAX_BYTES:
            self._refuse(replies.TOO_BIG)
        elif not self._held.take(len(line)):
            self._refuse(replies.NO_ROOM)
        else:
            self._counted += len(line)
            self.content += text
            self.content += b"\n"

    def _refuse(self, reply: str) -> None:
        self.refusal = self.refusal or reply
        self.forget()
