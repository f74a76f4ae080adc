"""Waiting for the end of a QEMU that is nobody's child, without polling."""
from __future__ import annotations

import asyncio
import os
from types import TracebackType

from ussycode.runtime.privileged.processes import Record, open_alive


class Watch:
    """Notices the end of one process through a pidfd. `over` is set at once when it is gone already."""

    def __init__(self, record: Record) -> None:
        self.over = asyncio.Event()
        self._fd = open_alive(record)

    def __enter__(self) -> Watch:
        if self._fd is None:
            self.over.set()
        else:
            asyncio.get_running_loop().add_reader(self._fd, self._ended)
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self._close()

    async def ended_within(self, seconds: float) -> bool:
        """Wait for the end for at most `seconds`."""
        try:
            async with asyncio.timeout(seconds):
                await self.over.wait()
        except TimeoutError:
            return False
        return True

    def _ended(self) -> None:
        self._close()
        self.over.set()

    def _close(self) -> None:
        if self._fd is not None:
            asyncio.get_running_loop().remove_reader(self._fd)
            os.close(self._fd)
            self._fd = None
