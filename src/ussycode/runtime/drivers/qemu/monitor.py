"""QEMU's own control socket: why the machine shut down, and how to make it quit. One client at a time."""
from __future__ import annotations

import asyncio
import contextlib
import logging
from pathlib import Path
from typing import Any

from qemu.qmp import EventListener, QMPClient
from qemu.qmp.error import QMPError

from ussycode.runtime.disks import DISK_FAILED

TIMEOUT = 5.0
"""Seconds for connecting, for one command and for closing; a second client hangs without a greeting."""
_LAST_WORD = 0.5
"""Seconds that an ended QEMU's last event may still be on its way; one that was killed sends none."""


class Monitor:
    """A connection to one QEMU. Use as an async context manager; it is always really closed."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._client = QMPClient("ussycode")
        self._client.logger.setLevel(logging.CRITICAL)  # every end of a VM is an error to it
        self._shutdown: EventListener = EventListener(names=("SHUTDOWN",))
        self._client.register_listener(self._shutdown)
        self._connected = False

    async def __aenter__(self) -> Monitor:
        """Connect; a QEMU that ended already, or does not answer, leaves a monitor that knows nothing."""
        with contextlib.suppress(QMPError, OSError, TimeoutError):
            async with asyncio.timeout(TIMEOUT):
                await self._client.connect(str(self._path))
            self._connected = True
        return self

    async def __aexit__(self, *_: object) -> None:
        with contextlib.suppress(QMPError, OSError, EOFError, TimeoutError):
            async with asyncio.timeout(TIMEOUT):
                await self._client.disconnect()

    async def reason(self) -> str:
        """Why an ended machine shut down, in QEMU's word (`guest-shutdown`, `guest-reset`, …); empty when unheard."""
        if not self._connected:
            return ""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_LAST_WORD):
                event: Any = await self._shutdown.get()
            return str(event["data"]["reason"])
        return ""

    async def resize(self, size: int) -> None:
        """Make the guest's disk `size` bytes large while it runs. Raises DISK_FAILED."""
        try:
            async with asyncio.timeout(TIMEOUT):
                await self._client.execute("block_resize", {"device": "disk", "size": size})
        except (QMPError, OSError, EOFError, TimeoutError) as error:
            raise DISK_FAILED(why="QEMU did not make it larger").because(error) from error

    async def quit(self) -> None:
        """Ask QEMU to end at once. Silent when it is gone or does not answer."""
        if not self._connected:
            return
        with contextlib.suppress(QMPError, OSError, EOFError, TimeoutError):
            async with asyncio.timeout(TIMEOUT):
                await self._client.execute("quit")
