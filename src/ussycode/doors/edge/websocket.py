"""WebSockets that the edge ends itself, with a close frame between two of the app's own: clients know to come back."""
from __future__ import annotations

import os
import struct

GOING_AWAY, RESTART = 1001, 1012
"""Close codes of RFC 6455: the platform stops; it restarts, and a client may come back at once."""
_MASKED = 0x80
_LONGEST = 14
"""Bytes of the longest frame head."""


class Frames:
    """Follows the frames of one direction, so that one may be added where another ends."""

    __slots__ = ("_head", "_left")

    def __init__(self) -> None:
        self._head = b""
        self._left = 0
        """Bytes of the present frame that are still to come."""

    @property
    def between(self) -> bool:
        """Nothing of a frame is under way."""
        return not self._left and not self._head

    def feed(self, data: bytes) -> None:
        """Follow what went by."""
        at = 0
        while at < len(data):
            at = self._step(data, at)

    def rest(self, data: bytes) -> bytes:
        """Follow `data` to the end of the frame under way; what of it belongs to that frame."""
        at = 0
        while at < len(data) and not self.between:
            at = self._step(data, at)
        return data[:at]

    def _step(self, data: bytes, at: int) -> int:
        if self._left:
            step = min(self._left, len(data) - at)
            self._left -= step
            return at + step
        kept = len(self._head)
        head = self._head + data[at : at + _LONGEST - kept]
        length, payload = _measure(head)
        if not length:
            self._head = head
            return len(data)
        self._head, self._left = b"", payload
        return at + length - kept


def _measure(head: bytes) -> tuple[int, int]:
    """Bytes of the head that begins `head`, and of the payload after it; 0 when the head is not whole."""
    if len(head) < 2:
        return 0, 0
    short = head[1] & 0x7F
    wide = {126: 2, 127: 8}.get(short, 0)
    length = 2 + wide + (4 if head[1] & _MASKED else 0)
    if len(head) < length:
        return 0, 0
    return length, int.from_bytes(head[2 : 2 + wide], "big") if wide else short


def close_frame(code: int) -> bytes:
    """What a server says at the end."""
    return b"\x88\x02" + struct.pack("!H", code)


def masked_close_frame(code: int) -> bytes:
    """What a client says at the end."""
    mask = os.urandom(4)
    return b"\x88\x82" + mask + bytes(a ^ b for a, b in zip(struct.pack("!H", code), mask, strict=False))
