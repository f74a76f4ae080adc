"""Where an HTTP/1.1 body ends: by length, by chunks, or by the end of the connection."""
from __future__ import annotations

import re
from collections.abc import Callable
from typing import Protocol

MAX_LINE = 4096
"""Bytes of one chunk-size line."""
MAX_TRAILERS = 8192
"""Bytes of all trailer lines."""
_SIZE = re.compile(rb"([0-9A-Fa-f]{1,15})(?:[ \t]*;[^\x00-\x08\x0a-\x1f\x7f]*)?").fullmatch
_TRAILER = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+:[^\x00-\x08\x0a-\x1f\x7f]*").fullmatch


class Malformed(Exception):
    """The peer broke the framing; the connection cannot be trusted any further."""


class Framing(Protocol):
    """Follows one body. `done` is True after its last byte was fed."""

    done: bool
    open_ended: bool
    """Only the end of the connection ends the body."""

    def feed(self, data: bytes) -> tuple[bytes, bytes]:
        """`(pass on, left over)`: what belongs to the body, and what came after its end."""
        ...


class ByLength:
    """A body of exactly `left` bytes."""

    __slots__ = ("done", "left")
    open_ended = False

    def __init__(self, left: int) -> None:
        self.left = left
        self.done = left == 0

    def feed(self, data: bytes) -> tuple[bytes, bytes]:
        """Up to the stated length."""
        size = len(data)
        if size < self.left:
            self.left -= size
            return data, b""
        own, rest = (data, b"") if size == self.left else (data[: self.left], data[self.left :])
        self.left, self.done = 0, True
        return own, rest


class UntilClose:
    """A body that ends with the connection."""

    __slots__ = ("done",)
    open_ended = True

    def __init__(self) -> None:
        self.done = False

    def feed(self, data: bytes) -> tuple[bytes, bytes]:
        """All of it."""
        return data, b""


WHOLE = ByLength(0)
"""Framing of a body that has ended."""


def keep_all(line: bytes) -> bool:
    """Every trailer line may pass."""
    return bool(line)


class ByChunks:
    """A chunked body, passed on as it came, with trailer lines filtered by `allowed`."""

    __slots__ = ("_allowed", "_left", "_line", "_tail", "_trailers", "done")
    open_ended = False

    def __init__(self, allowed: Callable[[bytes], bool] = keep_all) -> None:
        self.done = False
        self._allowed = allowed
        self._left = 0
        """Bytes of the present chunk with its CRLF; 0 while a line is expected."""
        self._tail = b"\r\n"
        self._line = b""
        self._trailers: list[bytes] | None = None

    def feed(self, data: bytes) -> tuple[bytes, bytes]:
        """Raises Malformed on anything but strict framing."""
        if self._line:
            data, self._line = self._line + data, b""
        at = 0
        out: list[bytes] = []
        while at < len(data):
            if self._left:
                at = self._through_chunk(data, at)
                continue
            end = data.find(b"\r\n", at)
            if end < 0:
                self._hold(data[at:])
                if self._trailers is None:
                    out.append(data[:at])
                return b"".join(out), b""
            line, begin, at = data[at:end], at, end + 2
            if self._trailers is None:
                self._size(line)
                if self._trailers is not None:  # the last chunk: its trailers are written anew
                    out.append(data[:begin])
                continue
            if line:
                self._trailer(line)
                continue
            self.done = True
            out.append(b"0\r\n" + b"".join(t + b"\r\n" for t in self._trailers) + b"\r\n")
            return b"".join(out), data[at:]
        if self._trailers is None:
            out.append(data)
        return b"".join(out), b""

    def _through_chunk(self, data: bytes, at: int) -> int:
        step = min(self._left, len(data) - at)
        if self._left - step < 2:  # the chunk's own CRLF, possibly in two pieces
            self._check_end(data[max(at, at + self._left - 2) : at + step])
        self._left -= step
        return at + step

    def _check_end(self, piece: bytes) -> None:
        if not self._tail.startswith(piece):
            raise Malformed("a chunk is longer than it says")
        self._tail = self._tail[len(piece) :] or b"\r\n"

    def _hold(self, piece: bytes) -> None:
        limit = MAX_LINE if self._trailers is None else MAX_TRAILERS
        if len(piece) > limit or b"\n" in piece or b"\r" in piece[:-1]:
            raise Malformed("a chunk line is malformed")
        self._line = piece

    def _size(self, line: bytes) -> None:
        match = _SIZE(line)
        if match is None or len(line) > MAX_LINE:
            raise Malformed("a chunk size is malformed")
        size = int(match[1], 16)
        if size == 0:
            self._trailers = []
        else:
            self._left = size + 2

    def _trailer(self, line: bytes) -> None:
        assert self._trailers is not None
        if _TRAILER(line) is None or sum(map(len, self._trailers)) + len(line) > MAX_TRAILERS:
            raise Malformed("a trailer is malformed")
        if self._allowed(line):
            self._trailers.append(line)
