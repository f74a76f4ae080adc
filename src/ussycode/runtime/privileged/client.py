"""Control's side of the privileged helper."""
from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TypeVar

from ussycode.base.unreadable import UNREADABLE
from ussycode.runtime.privileged.protocol import (
    HEADER,
    HELPER_GONE,
    HELPER_REFUSED,
    MAX_FRAME,
    Accel,
    Builds,
    Built,
    Confine,
    DiskOwn,
    DiskSeal,
    Done,
    Facts,
    Held,
    HostFacts,
    Kill,
    Look,
    Mended,
    NetCheck,
    NetDown,
    NetUp,
    Process,
    Refused,
    RemoveTraces,
    Reply,
    Request,
    Spawn,
    TemplateDrop,
    TemplateList,
    Templates,
    TemplateSeal,
    Usage,
    Used,
    decode_reply,
    encode,
)

TIMEOUT = 30.0
"""Seconds one verb may take, its wait behind others included."""
R = TypeVar("R", bound=Reply)


class HelperClient:
    """Asks the helper at `path`. Raises HELPER_GONE when it cannot be asked, HELPER_REFUSED when it said no."""

    def __init__(self, path: Path) -> None:
        self._path = path

    async def net_up(self) -> None:
        """Load the instance's rules and let the host forward."""
        await self._ask(NetUp(), Done)

    async def net_down(self) -> None:
        """Leave nothing of the network behind."""
        await self._ask(NetDown(), Done)

    async def net_check(self) -> tuple[str, ...]:
        """Mend what others changed on this host; what it was, as sentences."""
        return (await self._ask(NetCheck(), Mended)).found

    async def confine(self, vm: str, number: int, confined: bool) -> None:
        """Switch a running VM between `egress integrations` and `egress all`."""
        await self._ask(Confine(vm, number, confined), Done)

    async def disk_own(self, vm: str, number: int, disk: str) -> None:
        """Give a disk to the VM's uid."""
        await self._ask(DiskOwn(vm, number, disk), Done)

    async def disk_seal(self, vm: str, number: int, disk: str) -> None:
        """Take a disk from the VM for ever; whoever knows its name may read it."""
        await self._ask(DiskSeal(vm, number, disk), Done)

    async def spawn(
        self, vm: str, number: int, vcpus: int, memory_mib: int, init: str, accel: Accel, disk: str,
        *, confined: bool = False, incoming: bool = False, template: str | None = None,
        waits: bool = False,
    ) -> Process:
        """Start QEMU, or find it running. `memory_mib` is the guest's RAM, `confined` means `egress integrations`.

        With `incoming` it waits for memory to go on from. `template` is then the one that its memory begins with,
        and otherwise the one that its memory becomes. `waits` boots a kernel that has yet to be told its init.
        """
        asked = Spawn(vm, number, vcpus, memory_mib, init, accel, disk, confined, incoming, template, waits)
        return await self._ask(asked, Process)

    async def kill(self, vm: str, number: int) -> None:
        """End QEMU at once."""
        await self._ask(Kill(vm, number), Done)

    async def look(self, vm: str, number: int) -> Process:
        """The VM's process, or how it ended."""
        return await self._ask(Look(vm, number), Process)

    async def remove_traces(self, vm: str, number: int) -> None:
        """Remove root's traces of an ended VM."""
        await self._ask(RemoveTraces(vm, number), Done)

    async def usage(self, vm: str, number: int) -> Used:
        """Memory, CPU time and threads of the VM's process."""
        return await self._ask(Usage(vm, number), Used)

    async def builds(self) -> Built:
        """What machines are made of on this node."""
        return await self._ask(Builds(), Built)

    async def template_seal(self, template: str) -> None:
        """Close the memory of an ended machine to every change."""
        await self._ask(TemplateSeal(template), Done)

    async def template_drop(self, template: str) -> None:
        """Let go of a template's memory."""
        await self._ask(TemplateDrop(template), Done)

    async def templates(self) -> tuple[Held, ...]:
        """The templates whose memory is held."""
        return (await self._ask(TemplateList(), Templates)).held

    async def facts(self) -> HostFacts:
        """What the host offers and what stands in the way."""
        return await self._ask(Facts(), HostFacts)

    async def _ask(self, request: Request, expected: type[R], timeout: float = TIMEOUT) -> R:
        try:
            async with asyncio.timeout(timeout):
                reply = await self._exchange(encode(request))
        except (OSError, TimeoutError, asyncio.IncompleteReadError, *UNREADABLE) as error:
            raise HELPER_GONE().because(error) from error
        if isinstance(reply, Refused):
            raise HELPER_REFUSED(why=reply.why)
        if not isinstance(reply, expected):
            raise HELPER_GONE().because(f"answered {type(reply).__name__}")
        return reply

    async def _exchange(self, body: bytes) -> Reply:
        reader, writer = await asyncio.open_unix_connection(self._path, limit=MAX_FRAME)
        try:
            writer.write(len(body).to_bytes(HEADER, "big") + body)
            size = int.from_bytes(await reader.readexactly(HEADER), "big")
            return _decoded(await reader.readexactly(min(size, MAX_FRAME)))
        finally:
            writer.close()


def _decoded(body: bytes) -> Reply:
    reply: Reply = decode_reply(body)
    return reply
