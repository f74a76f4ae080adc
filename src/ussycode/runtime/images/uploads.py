"""Files that people upload become images of their own: written down as they arrive, read behind walls."""
from __future__ import annotations

import asyncio
import hashlib
import os
import shutil
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from ussycode.base.clock import Clock
from ussycode.base.errors import ErrorCode, Kind
from ussycode.runtime.images import intake, pull, walled
from ussycode.runtime.images.manifest import DEFAULT_PORT, TINY, Runs, read_config
from ussycode.runtime.images.pull import RESERVE, Show
from ussycode.runtime.images.store import Image, ImageStore

MAX_UPLOADS, MAX_UPLOADS_OF_ONE = 4, 1
"""Uploads at once, and of one account."""
SILENT_SECONDS = 60.0
"""How long a sender may say nothing."""
UPLOAD_SECONDS = 4 * 3600.0
LOOK = 64 << 20
"""Bytes between two looks at how much room the host has."""
OVERHEAD = 64 << 20
"""Bytes that a file may be larger than the disk in it: tables and headers."""
HOME = "localhost"
"""The registry, so to speak, of what was uploaded: `localhost/NAME`."""

NOTHING = ErrorCode(
    "import.nothing", Kind.USAGE, "import reads a file, and none came",
    hint="ssh HOST import NAME < demo.qcow2, or send it with PUT to /import/NAME",
)
BUSY = ErrorCode("import.busy", Kind.TOO_MANY, "{count} uploads are under way", hint="try again when one is done")
TOO_LARGE = ErrorCode(
    "import.too_large", Kind.TOO_LARGE, "the file is larger than the disk you may have: {limit} GiB",
    hint="remove a VM, or ask the operator for more",
)
STALLED = ErrorCode("import.stalled", Kind.TIMEOUT, "nothing came for {seconds} s, or the upload took far too long")
NO_ROOM = ErrorCode(
    "import.no_room", Kind.UNAVAILABLE, "the host has no room for the file: {free} MiB are free",
    hint="the operator has to free space; removing VMs you no longer need helps",
)


@dataclass(frozen=True)
class Upload:
    """What somebody sends: for whom, under which name, and how many bytes its disk may have."""

    owner: str
    name: str
    limit: int
    chunks: AsyncIterator[bytes]

    @property
    def reference(self) -> str:
        """What its image is called among the owner's."""
        return f"{HOME}/{self.name}:latest"


@dataclass
class Uploads:
    """Takes files in. Lives in one event loop; `Puller.clean` removes what a killed process left."""

    store: ImageStore
    clock: Clock
    _busy: Counter[str] = field(default_factory=Counter)
    _reading: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(MAX_UPLOADS_OF_ONE + 1))
    """More places than one account can have, so that a hostile file keeps nobody else waiting."""

    async def take(self, upload: Upload, show: Show) -> Image:
        """The private image of what was sent.

        Raises BUSY, TOO_LARGE, STALLED, NO_ROOM, NOTHING, NO_DISK and what reading the source raises.
        """
        if self._busy[upload.owner] >= MAX_UPLOADS_OF_ONE or self._busy.total() >= MAX_UPLOADS:
            raise BUSY(count=self._busy.total())
        self._busy[upload.owner] += 1
        try:
            with pull.scratch(self.store.pulled) as place:
                digest = await self._received(upload, place / intake.UPLOAD, show)
                return await self._made(upload, place, digest, show)
        finally:
            self._busy[upload.owner] -= 1

    async def _received(self, upload: Upload, file: Path, show: Show) -> str:
        """Write it down as it comes; its SHA-256 in hex."""
        hasher, size = hashlib.sha256(), 0
        try:
            async with asyncio.timeout(UPLOAD_SECONDS):
                with file.open("xb") as out:
                    async for chunk in _awake(upload.chunks):
                        if size // LOOK != (size + len(chunk)) // LOOK or not size:
                            self._require_room()
                            await show(f"received {size / 1e6:.0f} MB")
                        size += len(chunk)
                        if size > upload.limit + OVERHEAD:
                            raise TOO_LARGE(limit=upload.limit >> 30)
                        await asyncio.to_thread(_write, out.fileno(), chunk, hasher)
        except TimeoutError:
            raise STALLED(seconds=int(SILENT_SECONDS)) from None
        if not size:
            raise NOTHING()
        return hasher.hexdigest()

    async def _made(self, upload: Upload, place: Path, digest: str, show: Show) -> Image:
        name = f"{upload.reference}@sha256:{digest}#{upload.owner}"
        if (found := self.store.find(name)) is not None:
            os.utime(found.disk.parent / "image.json")
            return found
        await show("reading it")
        (place / "job").write_bytes(msgspec.json.encode(intake.Job(upload.limit)))
        async with self._reading:
            try:
                await pull.finished(walled.start("intake", place))
            except TimeoutError:
                raise intake.NO_DISK(why="reading it took more than is allowed") from None
        taken = intake.result(place)
        return await asyncio.to_thread(
            pull.keep, self.store, place, name, _runs(upload.name, taken), taken.size, self.clock.now(),
            foreign=taken.foreign,
        )

    def _require_room(self) -> None:
        free = shutil.disk_usage(self.store.pulled).free
        if free < RESERVE:
            raise NO_ROOM(free=free >> 20)


async def _awake(chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """The same, with a bound on every silence. Raises TimeoutError."""
    while True:
        async with asyncio.timeout(SILENT_SECONDS):
            chunk = await anext(chunks, None)
        if chunk is None:
            return
        if chunk:
            yield chunk


def _write(handle: int, chunk: bytes, hasher: hashlib._Hash) -> None:
    hasher.update(chunk)
    while chunk:
        chunk = chunk[os.write(handle, chunk):]


def _runs(name: str, taken: intake.Taken) -> Runs:
    """How it is run: as it says itself, else by its own init, else by ours."""
    if taken.config:
        return read_config(name, taken.config.encode())
    return Runs("/sbin/init" if taken.boots else TINY, (), (), "/", "", "root", DEFAULT_PORT, {})
