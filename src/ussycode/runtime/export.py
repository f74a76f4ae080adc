"""The disk of a VM as a file that any QEMU opens, made while it is sent."""
from __future__ import annotations

import asyncio
import enum
import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import msgspec

from ussycode.base.errors import ErrorCode, Kind
from ussycode.base.unreadable import UNREADABLE
from ussycode.runtime.images import pack, walled
from ussycode.runtime.images.ext4_reader import BAD_FS
from ussycode.runtime.qcow2.layout import MAX_NOTE
from ussycode.runtime.qcow2.reader import Layer, Raw, open_layer, open_raw, runs
from ussycode.runtime.qcow2.writer import CHUNK, draw

Config = Mapping[str, object]
"""An image's configuration, in OCI's words."""
PACK_SECONDS, PACK_SECONDS_PER_MIB = 120.0, 0.2
"""Time to look at all files of a disk once, and more of it for each MiB that it takes on the host."""
_HEAD = 64 << 10
"""Bytes of a packing process's first line."""
NOT_EXPORTED = ErrorCode(
    "export.not_here", Kind.CONFLICT, "the disk of a {what} cannot be exported", hint="copy its files: scp -r demo: ."
)


class Form(enum.StrEnum):
    """What an exported disk is sent as. `OCI` and `TAR` hold its files, `QCOW2` the disk itself."""

    QCOW2 = "qcow2"
    OCI = "oci"
    TAR = "tar"

    @property
    def ending(self) -> str:
        """What the name of such a file ends with."""
        return ".oci.tar" if self is Form.OCI else f".{self}"


@dataclass(frozen=True)
class Source:
    """A disk: sealed `layers`, from the top down, above `image` unless they need none; `size` in bytes."""

    layers: Sequence[Path]
    image: Path
    size: int


class Export:
    """A file that is not there but as it is sent. `size` in bytes. To be closed, whether it was sent or not."""

    def __init__(
        self, size: int, pieces: Callable[[], Iterator[bytes]], close: Callable[[], None], waits_for: int = -1,
    ) -> None:
        """`waits_for` is where the pieces come from, a descriptor, when that is a process that may stand still."""
        self.size, self._begin, self._close, self._waits_for = size, pieces, close, waits_for

    async def chunks(self) -> AsyncIterator[bytes]:
        """The file, once. Raises OSError."""
        pieces = self._begin()
        while True:
            if self._waits_for >= 0:
                await walled.readable(self._waits_for)
            if (piece := await asyncio.to_thread(next, pieces, None)) is None:
                return
            yield piece

    def close(self) -> None:
        """Let go of the disk."""
        self._close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.close()


def of_disk(disk: Source, config: Config) -> Export:
    """The export of a disk. Blocks.

    `config` says in the file how its VM is run. All files are open when it returns, so that they may be merged or
    removed. Raises BAD_DISK or OSError.
    """
    with ExitStack() as held:
        sources, below = _open(disk, held)
        drawn = draw(list(runs([*sources, *below], disk.size)), disk.size, note=_note(config))
        return Export(drawn.size, drawn.stream, held.pop_all().close)


def _open(disk: Source, held: ExitStack) -> tuple[list[Layer], list[Raw]]:
    sources = [open_layer(path) for path in disk.layers]
    for source in sources:
        held.callback(source.close)
    below = [open_raw(disk.image)] if not sources or sources[-1].header.backing else []
    for base in below:
        held.callback(base.close)
    return sources, below


def _note(config: Config) -> bytes:
    made = json.dumps(config).encode()
    return made if len(made) < MAX_NOTE else b""


@dataclass
class Packing:
    """A process that turns a disk's files into an archive. To be closed, unless it became an Export.

    `seconds` is the time in which it has to have looked at everything once.
    """

    process: subprocess.Popen[bytes]
    work: Path
    seconds: float

    async def export(self) -> Export:
        """What it sends, once it has looked at everything. Raises BAD_FS."""
        assert self.process.stdout is not None
        out = self.process.stdout.fileno()
        try:
            async with asyncio.timeout(self.seconds):
                await walled.readable(out)
                line = await asyncio.to_thread(self.process.stdout.readline, _HEAD)
            head = msgspec.json.decode(line, type=pack.Head)
        except (TimeoutError, *UNREADABLE):
            said = (self.work / "log").read_text(errors="replace")[-2000:]
            raise BAD_FS(why="reading it took more than is allowed").because(said) from None
        if head.failure:
            raise BAD_FS(why=head.failure)
        return Export(head.size, lambda: self._sent(head.size), self.close, out)

    def _sent(self, left: int) -> Iterator[bytes]:
        assert self.process.stdout is not None
        while left:
            piece = self.process.stdout.read(min(left, CHUNK))
            if not piece:
                raise OSError("the process that reads the disk ended")
            left -= len(piece)
            yield piece

    def close(self) -> None:
        """End it. Idempotent."""
        walled.end(self.process)
        if self.process.stdout is not None:
            self.process.stdout.close()
        shutil.rmtree(self.work, ignore_errors=True)


def begin_packing(form: Form, disk: Source, config: Config) -> Packing:
    """The same disk's files on their way into an archive. Blocks shortly; then the files may be merged or removed."""
    with ExitStack() as held:
        sources, below = _open(disk, held)
        fds = [*(source.handle for source in sources), *(base.handle for base in below)]
        job = pack.Job(
            tuple(fds[:len(sources)]), fds[-1] if below else -1, disk.size,
            json.dumps(config) if form is Form.OCI else "",
        )
        work = Path(tempfile.mkdtemp(prefix="ussycode-export-"))
        (work / "job").write_bytes(msgspec.json.encode(job))
        held_by_it = sum(os.fstat(fd).st_blocks * 512 for fd in fds)
        seconds = PACK_SECONDS + PACK_SECONDS_PER_MIB * (held_by_it >> 20)
        return Packing(walled.start("pack", work, fds=fds, stdout=subprocess.PIPE), work, seconds)


def empty(gib: int) -> Export:
    """A disk on which nothing was ever written."""
    drawn = draw([], gib << 30)
    return Export(drawn.size, drawn.stream, lambda: None)
