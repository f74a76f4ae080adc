"""Files of a guest's user, by the SFTP that its agent serves: everything happens with that user's rights."""
from __future__ import annotations

import asyncio
import struct
from collections.abc import Sequence

from ussycode.runtime.guest import errors
from ussycode.runtime.guest.streams import Stream

INIT, OPEN, CLOSE, WRITE, OPENDIR, READDIR, REMOVE, MKDIR, RENAME, EXTENDED = 1, 3, 4, 6, 11, 12, 13, 14, 18, 200
VERSION, STATUS, HANDLE, NAME = 2, 101, 102, 104
OK, END, NO_FILE, DENIED = 0, 1, 2, 3
WRITING_ANEW = 2 | 8 | 32
"""Flags of OPEN: write, create, and only if it is not there."""
HAS_MODE = 4
MAX_REPLY = 512 << 10
"""Bytes of one reply; an agent's own are smaller."""
CHUNK = 128 << 10
"""Bytes written by one request."""


class Files:
    """One conversation over a stream that `open_sftp` gave. One request at a time.

    Every verb raises NO_FILE, DENIED or FAILED as the guest says, GONE, or PROTOCOL for what is no reply. Paths may be
    relative to the user's home. Bound the whole by a timeout: a guest may be as slow as it likes.
    """

    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        self._number = 0

    async def begin(self) -> None:
        """Agree on the version; before everything else."""
        kind, _ = await self._say(struct.pack(">BI", INIT, 3))
        if kind != VERSION:
            raise errors.PROTOCOL(why="its SFTP has no version")

    async def make_folder(self, path: str, mode: int) -> None:
        """Make a folder. FAILED also when it is there."""
        await self._done(MKDIR, _text(path) + _mode(mode))

    async def count(self, path: str, enough: int) -> int:
        """Names in a folder, counted no further than `enough`."""
        handle, found = await self._handle(OPENDIR, _text(path)), 0
        while found < enough and (names := await self._names(handle)) is not None:
            found += sum(name not in (b".", b"..") for name in names)
        await self._done(CLOSE, handle)
        return min(found, enough)

    async def write_new(self, path: str, parts: Sequence[bytes | bytearray], mode: int) -> None:
        """A file that was not there, with all of `parts` in it, durable. What came of a failure half-way stays."""
        handle, at = await self._handle(OPEN, _text(path) + struct.pack(">I", WRITING_ANEW) + _mode(mode)), 0
        for part in parts:
            for start in range(0, len(part), CHUNK):
                chunk = bytes(part[start : start + CHUNK])
                await self._done(WRITE, handle + struct.pack(">Q", at) + _bytes(chunk))
                at += len(chunk)
        await self._sync(handle)
        await self._done(CLOSE, handle)

    async def rename(self, old: str, new: str) -> None:
        """Give a file another name, which nothing may have."""
        await self._done(RENAME, _text(old) + _text(new))

    async def sync_folder(self, path: str) -> None:
        """Make durable which names are in a folder."""
        handle = await self._handle(OPENDIR, _text(path))
        await self._sync(handle)
        await self._done(CLOSE, handle)

    async def remove(self, path: str) -> None:
        """Remove a file."""
        await self._done(REMOVE, _text(path))

    async def _sync(self, handle: bytes) -> None:
        await self._done(EXTENDED, _text("fsync@openssh.com") + handle)

    async def _names(self, handle: bytes) -> list[bytes] | None:
        kind, body = await self._ask(READDIR, handle)
        if kind == STATUS and _code(body) == END:
            return None
        if kind != NAME:
            raise _failure(kind, body)
        try:
            return _read_names(body)
        except (struct.error, IndexError):
            raise errors.PROTOCOL(why="a list of names is cut short") from None

    async def _handle(self, kind: int, body: bytes) -> bytes:
        answer, said = await self._ask(kind, body)
        if answer != HANDLE:
            raise _failure(answer, said)
        return said  # with its length in front, as it is sent back

    async def _done(self, kind: int, body: bytes) -> None:
        answer, said = await self._ask(kind, body)
        if answer != STATUS or _code(said) != OK:
            raise _failure(answer, said)

    async def _ask(self, kind: int, body: bytes) -> tuple[int, bytes]:
        self._number += 1
        answer, said = await self._say(struct.pack(">BI", kind, self._number) + body)
        if len(said) < 4 or struct.unpack(">I", said[:4])[0] != self._number:
            raise errors.PROTOCOL(why="an SFTP reply belongs to no request")
        return answer, said[4:]

    async def _say(self, packet: bytes) -> tuple[int, bytes]:
        try:
            self._stream.writer.write(struct.pack(">I", len(packet)) + packet)
            await self._stream.writer.drain()
            (size,) = struct.unpack(">I", await self._stream.reader.readexactly(4))
            if not 1 <= size <= MAX_REPLY:
                raise errors.PROTOCOL(why="an SFTP reply of impossible size")
            answer = await self._stream.reader.readexactly(size)
        except (OSError, asyncio.IncompleteReadError) as why:
            raise errors.GONE().because(why) from None
        return answer[0], answer[1:]


def _bytes(data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + data


def _text(text: str) -> bytes:
    return _bytes(text.encode())


def _mode(mode: int) -> bytes:
    return struct.pack(">II", HAS_MODE, mode)


def _code(body: bytes) -> int:
    return int.from_bytes(body[:4], "big") if len(body) >= 4 else -1


def _read_names(body: bytes) -> list[bytes]:
    """Of a NAME reply: each entry is a name, a long name and attributes. Raises struct.error or IndexError."""
    (count,), at, names = struct.unpack_from(">I", body), 4, []
    for _ in range(count):
        found = []
        for _ in range(2):
            (size,) = struct.unpack_from(">I", body, at)
            found.append(body[at + 4 : at + 4 + size])
            at += 4 + size
        (flags,) = struct.unpack_from(">I", body, at)
        at += 4 + sum(size for bit, size in ((1, 8), (2, 8), (4, 4), (8, 8)) if flags & bit)
        if at > len(body):
            raise IndexError
        names.append(found[0])
    if not names:
        raise IndexError
    return names


def _failure(kind: int, body: bytes) -> Exception:
    """What a reply that is none of the expected ones means."""
    if kind != STATUS:
        return errors.PROTOCOL(why=f"an SFTP reply of kind {kind}")
    size = int.from_bytes(body[4:8], "big")
    why = body[8 : 8 + min(size, errors.MAX_WHY)].decode(errors="replace")
    code = _code(body)
    error = {NO_FILE: errors.NO_FILE, DENIED: errors.DENIED}.get(code)
    return (error() if error is not None else errors.FAILED(why=why or f"SFTP status {code}")).because(why)
