"""QEMU's own control socket: why the machine shut down, and how to make it quit. One client at a time."""
from __future__ import annotations

import asyncio
import contextlib
import logging
from pathlib import Path
from typing import Any

from qemu.qmp import EventListener, QMPClient
from qemu.qmp.error import QMPError

from ussycode.base.errors import ErrorCode, Failure, Kind
from ussycode.runtime.disks import DISK_FAILED

TIMEOUT = 5.0
"""Seconds for connecting, for one command and for closing; a second client hangs without a greeting."""
SAVE_SECONDS, LOAD_SECONDS = 120.0, 120.0
"""For writing or reading a guest's whole memory; a disk gives some hundred MB a second."""
_NO_BOUND = 1 << 40
_MOVE_ENDS = ("completed", "failed", "cancelled")
MONITOR_FAILED = ErrorCode("vm.monitor", Kind.FAILED, "QEMU does not do what it is told")
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
        self._migration: EventListener = EventListener(names=("MIGRATION",))
        self._client.register_listener(self._migration)
        self._trouble: EventListener = EventListener(names=("STOP",))
        self._client.register_listener(self._trouble)
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

    @property
    def connected(self) -> bool:
        """Whether QEMU could be reached."""
        return self._connected

    async def halt(self) -> None:
        """Let the guest stand still. Raises MONITOR_FAILED, as the verbs below."""
        await self._do("stop")

    async def go_on(self) -> None:
        """Let the guest run on."""
        await self._do("cont")

    async def awaken(self) -> None:
        """Let the guest run on when somebody who is gone had halted it."""
        now: Any = await self._do("query-status")
        if not now["running"]:
            await self._do("migrate_cancel")
            await self.go_on()

    async def halted_by_disk(self) -> bool:
        """Whether QEMU itself halted the guest because a write failed."""
        now: Any = await self._do("query-status")
        return bool(now["status"] == "io-error")

    async def disk_trouble(self) -> None:
        """Wait until QEMU halts the guest, which it does when a write finds no space, or did since the last call."""
        await self._trouble.get()
        self._trouble.clear()

    async def moved(self) -> tuple[int, int]:
        """Bytes that the guest read from its disk and wrote to it since it started; -1 when unheard."""
        try:
            drives: Any = await self._do("query-blockstats")
            found = next(one["stats"] for one in drives if one.get("device") == "disk")
            return int(found["rd_bytes"]), int(found["wr_bytes"])
        except (Failure, StopIteration, KeyError):
            return -1, -1

    async def save(self, fd: int, *, shared: bool = False) -> bool:
        """Write memory and devices of a halted guest to `fd`; False when QEMU says that it failed.

        `shared` leaves memory out that lies in a file of its own.
        """
        await self._prepare_move(fd, shared)
        await self._do("migrate", uri="fd:memory")
        return await self._moved(SAVE_SECONDS)

    async def load(self, fd: int, *, shared: bool = False) -> bool:
        """Take memory and devices from `fd`; the guest is halted then. False when they are of no use."""
        await self._prepare_move(fd, shared)
        await self._do("migrate-incoming", uri="fd:memory")
        return await self._moved(LOAD_SECONDS)

    async def _prepare_move(self, fd: int, shared: bool) -> None:
        wished = {"events": True, "x-ignore-shared": shared}
        listed = [{"capability": name, "state": state} for name, state in wished.items()]
        await self._do("migrate-set-capabilities", capabilities=listed)
        await self._do("migrate-set-parameters", **{"max-bandwidth": _NO_BOUND})
        self._migration.clear()
        self._client.send_fd_scm(fd)
        await self._do("getfd", fdname="memory")

    async def _moved(self, seconds: float) -> bool:
        try:
            async with asyncio.timeout(seconds):
                while True:
                    event: Any = await self._migration.get()
                    if event["data"]["status"] in _MOVE_ENDS:
                        return bool(event["data"]["status"] == "completed")
        except TimeoutError as error:
            raise MONITOR_FAILED().because(error) from error

    async def _do(self, command: str, **arguments: object) -> object:
        if not self._connected:
            raise MONITOR_FAILED().because("not connected")
        try:
            async with asyncio.timeout(TIMEOUT):
                return await self._client.execute(command, arguments)
        except (QMPError, OSError, EOFError, TimeoutError) as error:
            raise MONITOR_FAILED().because(f"{command}: {error!r}") from error

    async def resize(self, size: int) -> None:
        """Make the guest's disk `size` bytes large while it runs. Raises DISK_FAILED."""
        await self._of_disk("QEMU did not make it larger", "block_resize", {"device": "disk", "size": size})

    async def switch(self, top: Path) -> None:
        """Let the guest write to the empty overlay `top`, what it wrote so far staying below. Raises DISK_FAILED."""
        node, why = f"top-{top.name[:16]}", "QEMU did not go on to a new layer"
        file = {"driver": "file", "filename": str(top)}
        await self._of_disk(why, "blockdev-add", {
            "driver": "qcow2", "node-name": node, "file": file, "backing": None, "discard": "unmap",
            "detect-zeroes": "unmap",
        })
        try:
            await self._of_disk(why, "blockdev-snapshot", {"node": "disk", "overlay": node})
        except Failure:
            with contextlib.suppress(Failure):
                await self._of_disk(why, "blockdev-del", {"node-name": node})
            raise

    async def stands_on(self) -> str:
        """The file that the guest's disk is written to. Raises DISK_FAILED."""
        drives: Any = await self._of_disk("QEMU does not say which it is", "query-block", {})
        found = [one["inserted"]["file"] for one in drives if one.get("device") == "disk" and "inserted" in one]
        return str(found[0]) if found else ""

    async def _of_disk(self, why: str, command: str, words: dict[str, object]) -> object:
        """One command about the disk. Raises DISK_FAILED with `why`."""
        try:
            async with asyncio.timeout(TIMEOUT):
                return await self._client.execute(command, words)
        except (QMPError, OSError, EOFError, TimeoutError) as error:
            raise DISK_FAILED(why=why).because(error) from error

    async def quit(self) -> None:
        """Ask QEMU to end at once. Silent when it is gone or does not answer."""
        if not self._connected:
            return
        with contextlib.suppress(QMPError, OSError, EOFError, TimeoutError):
            async with asyncio.timeout(TIMEOUT):
                await self._client.execute("quit")
