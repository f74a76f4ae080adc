"""The words both ends speak: pairs, control frames, stream hello and reply, exec frames."""
from __future__ import annotations

import enum
import re
import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from ussycode.base.errors import Failure
from ussycode.runtime.guest import errors

VERSION = 1
"""Protocol version; the agent says its own in `hello`."""
STREAM_PORT = 1021
"""TCP port of the agent on the VM's own interface."""
MAX_FRAME = 256 * 1024
"""Bytes of one control frame's payload."""
MAX_HEADER = 64 * 1024
"""Bytes of a stream's header or reply."""
MAX_DATA = 64 * 1024
"""Bytes of one exec frame's payload."""
STDIN_WINDOW = 256 * 1024
"""Bytes of stdin that may be on their way without credit, so that signals never queue behind data."""
MAX_PAIRS = 4096
"""Pairs in one payload."""
SYNC = b"\xffussycode-sync-1"
"""Begins a host's connection to the control channel. 0xFF occurs nowhere in UTF-8, so never inside a frame."""
NONCE_CHARS = 16
"""Hex characters after SYNC; the agent's hello repeats them."""
STREAM_MAGIC = b"USSY1 "
SECRET = re.compile(r"[0-9a-f]{64}")
"""A dial secret: 64 lower-case hex characters."""

Pairs = tuple[tuple[str, str], ...]
_PADDING = b"pad\0\0"
"""A pair that says nothing."""


class Kind(enum.IntEnum):
    """Type byte of a control frame."""

    REQUEST = 1
    OK = 2
    ERR = 3
    HELLO = 4


class Op(enum.IntEnum):
    """Type byte of an exec or listen frame."""

    STDIN = 0
    STDOUT = 1
    STDERR = 2
    EXIT = 3
    EXIT_SIGNAL = 4
    CREDIT = 6
    ACCEPTED = 7
    WINDOW = 8
    SIGNAL = 9


def encode_pairs(pairs: Iterable[tuple[str, str]]) -> bytes:
    """`key NUL value NUL` ... in UTF-8. Raises PROTOCOL when a part holds NUL or is not Unicode text."""
    out = bytearray()
    for pair in pairs:
        for part in pair:
            if "\0" in part:
                raise errors.PROTOCOL(why="a value holds NUL")
            out += _utf8(part) + b"\0"
    return bytes(out)


def _utf8(text: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError:
        raise errors.PROTOCOL(why="a value is not Unicode text") from None


def decode_pairs(data: bytes) -> Pairs:
    """Pairs of a payload in their order; bytes that are not UTF-8 become U+FFFD. Raises PROTOCOL."""
    if not data:
        return ()
    if data[-1] != 0:
        raise errors.PROTOCOL(why="pairs without end")
    parts = data[:-1].decode(errors="replace").split("\0")
    if len(parts) % 2 or len(parts) > 2 * MAX_PAIRS:
        raise errors.PROTOCOL(why="odd or too many pairs")
    return tuple(zip(parts[::2], parts[1::2], strict=True))


@dataclass(frozen=True)
class Frame:
    """One control frame."""

    kind: int
    pairs: Pairs

    @property
    def fields(self) -> Mapping[str, str]:
        """The pairs as a mapping; the last of equal keys wins."""
        return dict(self.pairs)


def encode_frame(kind: Kind, pairs: Iterable[tuple[str, str]]) -> bytes:
    """A control frame. Raises PROTOCOL when it is longer than MAX_FRAME."""
    payload = encode_pairs(pairs)
    while SYNC[:1] in struct.pack(">I", len(payload)):  # the guest would take the length for the beginning of a sync
        payload += _PADDING
    if len(payload) > MAX_FRAME:
        raise errors.PROTOCOL(why=f"a request of {len(payload)} bytes is too long")
    return struct.pack(">IB", len(payload), kind) + payload


@dataclass
class ControlDecoder:
    """Takes what the control channel delivers; nothing counts before SYNC + `nonce` came back."""

    nonce: bytes
    buffer: bytearray = field(default_factory=bytearray)
    synced: bool = False

    def feed(self, data: bytes) -> list[Frame]:
        """Whole frames that `data` completes. Raises PROTOCOL on a frame that is too long or malformed."""
        self.buffer += data
        if not self.synced and not self._find_sync():
            return []
        frames: list[Frame] = []
        while (frame := self._next()) is not None:
            frames.append(frame)
        return frames

    def _find_sync(self) -> bool:
        mark = SYNC + self.nonce
        at = self.buffer.find(mark)
        if at < 0:
            del self.buffer[: max(0, len(self.buffer) - len(mark) + 1)]
            return False
        del self.buffer[: at + len(mark)]
        self.synced = True
        return True

    def _next(self) -> Frame | None:
        if len(self.buffer) < 5:
            return None
        length, kind = struct.unpack_from(">IB", self.buffer)
        if length > MAX_FRAME:
            raise errors.PROTOCOL(why="a frame is too long")
        if len(self.buffer) < 5 + length:
            return None
        payload = bytes(self.buffer[5 : 5 + length])
        del self.buffer[: 5 + length]
        return Frame(kind, decode_pairs(payload))


def encode_hello(secret: str, pairs: Iterable[tuple[str, str]]) -> bytes:
    """First bytes of a stream. Raises PROTOCOL for a malformed secret or a header over MAX_HEADER."""
    if not SECRET.fullmatch(secret):
        raise errors.PROTOCOL(why="a secret is 64 hex characters")
    header = encode_pairs(pairs)
    if len(header) > MAX_HEADER:
        raise errors.PROTOCOL(why="a stream header is too long")
    return STREAM_MAGIC + secret.encode() + struct.pack(">I", len(header)) + header


def dial_hello(secret: str, port: int, host: str = "") -> bytes:
    """The one write that opens a dial to `port` in the guest; `host` empty: the guest's own loopback."""
    return encode_hello(secret, (("verb", "dial"), ("port", str(port)), *_given("host", host)))


def _given(key: str, value: str) -> Pairs:
    return ((key, value),) if value else ()


@dataclass(frozen=True)
class Reply:
    """The agent's answer to a stream hello. `used` bytes belong to it; what follows is the stream."""

    ok: bool
    fields: Mapping[str, str]
    used: int

    @property
    def failure(self) -> Failure:
        """The declared failure of a reply that is not ok."""
        return errors.from_wire(self.fields)


REPLY_HEAD = 6
"""Bytes of a reply before its pairs."""


def parse_reply(data: bytes | bytearray) -> Reply | None:
    """The reply at the start of `data`; None while bytes are missing. Raises PROTOCOL."""
    if not (b"OK".startswith(data[:2]) or b"ER".startswith(data[:2])):
        raise errors.PROTOCOL(why="no reply")
    if len(data) < REPLY_HEAD:
        return None
    length = reply_length(data)
    if len(data) < REPLY_HEAD + length:
        return None
    pairs = decode_pairs(bytes(data[REPLY_HEAD : REPLY_HEAD + length]))
    return Reply(data[:2] == b"OK", dict(pairs), REPLY_HEAD + length)


def reply_length(head: bytes | bytearray) -> int:
    """Bytes of pairs that follow a reply's REPLY_HEAD bytes. Raises PROTOCOL when it is no reply."""
    if bytes(head[:2]) not in (b"OK", b"ER"):
        raise errors.PROTOCOL(why="no reply")
    length = int.from_bytes(head[2:REPLY_HEAD], "big")
    if length > MAX_HEADER:
        raise errors.PROTOCOL(why="a reply is too long")
    return length


def encode_op(op: Op, payload: bytes = b"") -> bytes:
    """One exec frame; `payload` at most MAX_DATA bytes."""
    return struct.pack(">BI", op, len(payload)) + payload


def parse_op_head(head: bytes) -> tuple[int, int]:
    """Type and payload length of an exec frame's five bytes. Raises PROTOCOL when too long."""
    op, length = struct.unpack(">BI", head)
    if length > MAX_DATA:
        raise errors.PROTOCOL(why="an exec frame is too long")
    return op, length
