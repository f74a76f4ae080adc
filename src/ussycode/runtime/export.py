"""The disk of a VM as a file that any QEMU opens, made while it is sent."""
from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Self

from ussycode.base.errors import ErrorCode, Kind
from ussycode.runtime.qcow2.reader import open_layer, open_raw, runs
from ussycode.runtime.qcow2.writer import Drawn, draw

NOT_EXPORTED = ErrorCode(
    "export.not_here", Kind.CONFLICT, "the disk of a {what} cannot be exported", hint="copy its files: scp -r demo: ."
)


class Export:
    """A file that is not there but as it is sent. `size` in bytes. To be closed, whether it was sent or not."""

    def __init__(self, drawn: Drawn, close: Callable[[], None]) -> None:
        self._drawn, self._close = drawn, close

    @property
    def size(self) -> int:
        """Bytes of the file."""
        return self._drawn.size

    async def chunks(self) -> AsyncIterator[bytes]:
        """The file, once. Raises OSError."""
        pieces: Iterator[bytes] = self._drawn.stream()
        while (piece := await asyncio.to_thread(next, pieces, None)) is not None:
            yield piece

    def close(self) -> None:
        """Let go of the disk."""
        self._close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.close()


def of_disk(layers: Sequence[Path], image: Path, size: int) -> Export:
    """The export of sealed `layers`, from the top down, above `image` unless they need none. Blocks.

    All files are open when it returns, so that they may be merged or removed. Raises BAD_DISK or OSError.
    """
    with ExitStack() as held:
        sources = [open_layer(path) for path in layers]
        for source in sources:
            held.callback(source.close)
        below = [open_raw(image)] if not sources or sources[-1].header.backing else []
        for base in below:
            held.callback(base.close)
        drawn = draw(list(runs([*sources, *below], size)), size)
        return Export(drawn, held.pop_all().close)


def empty(gib: int) -> Export:
    """A disk on which nothing was ever written."""
    return Export(draw([], gib << 30), lambda: None)
