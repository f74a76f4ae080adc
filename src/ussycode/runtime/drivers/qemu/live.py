"""A running machine as its disk sees it: the guest is held still while it changes to another layer."""
from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import structlog

from ussycode.base.errors import Failure
from ussycode.runtime.drivers.qemu.monitor import Monitor
from ussycode.runtime.guest.channel import ControlChannel

_log = structlog.get_logger("ussycode.storage")


@dataclass(frozen=True)
class Running:
    """QEMU and the guest inside it."""

    monitor: Monitor
    channel: ControlChannel

    async def switch(self, top: Path) -> None:
        """Write to `top` from now on, with a clean file system below. Raises DISK_FAILED.

        A guest that cannot be held still gets what a power cut would leave it: its journal makes that whole.
        """
        try:
            await self.channel.freeze()
        except Failure as failure:
            _log.info("a guest was not held still", why=failure.sentence)
        try:
            await self.monitor.switch(top)
        finally:
            with suppress(Failure):
                await self.channel.thaw()

    @asynccontextmanager
    async def held(self) -> AsyncIterator[None]:
        """While the block runs the guest stands still and its disk's file is whole. Raises MONITOR_FAILED."""
        try:
            await self.channel.freeze()
        except Failure as failure:
            _log.info("a guest was not held still", why=failure.sentence)
        try:
            await self.monitor.halt()  # which makes QEMU write what it holds back of the file's own tables
            try:
                yield
            finally:
                await self.monitor.go_on()
        finally:
            with suppress(Failure):
                await self.channel.thaw()

    async def stands_on(self) -> str:
        """The file that is written to now. Raises DISK_FAILED."""
        return await self.monitor.stands_on()
