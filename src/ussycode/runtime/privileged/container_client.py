"""Control's side of the helper's verbs on containers."""
from __future__ import annotations

from ussycode.runtime.privileged.client import HelperClient
from ussycode.runtime.privileged.protocol import (
    ContainerDisk,
    ContainerDrop,
    ContainerForget,
    ContainerGrow,
    ContainerKeep,
    ContainerMake,
    ContainerRename,
    ContainerRun,
    Disk,
    Done,
    Grown,
    Process,
)

COPY_SECONDS = 900.0
"""Time that copying or growing a disk may take; others are served meanwhile."""


class ContainerClient(HelperClient):
    """Asks for containers too. Raises what HelperClient raises."""

    async def make(self, wanted: ContainerMake) -> None:
        """Make the disk when it is missing."""
        await self._ask(wanted, Done, COPY_SECONDS)

    async def run(self, wanted: ContainerRun) -> Process:
        """Start the container, or find it running."""
        return await self._ask(wanted, Process)

    async def rename(self, vm: str, number: int, hostname: str) -> None:
        """Change the host name of a running container."""
        await self._ask(ContainerRename(vm, number, hostname), Done)

    async def grow(self, vm: str, number: int, gib: int) -> bool:
        """Make the disk larger; False when its file system follows at the next start only."""
        return (await self._ask(ContainerGrow(vm, number, gib), Grown, COPY_SECONDS)).now

    async def keep(self, vm: str, number: int, snapshot: str) -> None:
        """Take a snapshot that is missing."""
        await self._ask(ContainerKeep(vm, number, snapshot), Done, COPY_SECONDS)

    async def drop(self, vm: str, snapshot: str) -> None:
        """Remove a snapshot."""
        await self._ask(ContainerDrop(vm, snapshot), Done)

    async def forget(self, vm: str, number: int, *, snapshots: bool = True) -> None:
        """Remove disk and, unless told otherwise, snapshots of a container that does not run."""
        await self._ask(ContainerForget(vm, number, snapshots), Done)

    async def disk(self, vm: str) -> Disk:
        """What is there of the disk."""
        return await self._ask(ContainerDisk(vm), Disk)
