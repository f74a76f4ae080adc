"""A template: a machine that was booted once and stopped before it was anybody; others start as copies of it.

One kind is a kernel that has yet to see a disk: a copy of it boots any VM of its size, at every start. The other is the
whole system of an image that is made for it: a copy is a new VM.
"""
from __future__ import annotations

import asyncio
import os
import secrets
import zlib
from collections.abc import Coroutine, Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path

import msgspec

from ussycode.base.clock import Clock
from ussycode.base.errors import ErrorCode, Failure, Kind
from ussycode.base.unreadable import UNREADABLE
from ussycode.runtime import disks
from ussycode.runtime.drivers.qemu import memory
from ussycode.runtime.drivers.qemu.monitor import Monitor
from ussycode.runtime.drivers.qemu.process import Watch
from ussycode.runtime.drivers.qemu.saved import forget
from ussycode.runtime.drivers.qemu.storage import Layers, new_name
from ussycode.runtime.guest import held
from ussycode.runtime.guest.channel import ControlChannel
from ussycode.runtime.images.recipe import TINY
from ussycode.runtime.images.store import Image
from ussycode.runtime.instance import FIRST_TEMPLATE, Instance
from ussycode.runtime.privileged import processes, vm_files
from ussycode.runtime.privileged.client import HelperClient
from ussycode.runtime.privileged.processes import Record
from ussycode.runtime.privileged.protocol import Accel
from ussycode.runtime.publish import write_atomically
from ussycode.runtime.qcow2.writer import draw

PREFIX = "tpl_"
"""What the id of a template's machine begins with, where others have `vm_`."""
STATE, _ABOUT = "state", "template.json"
NUMBER = FIRST_TEMPLATE
"""Templates are booted one after the other, so one number is enough."""
END_SECONDS = 10.0
"""Time that QEMU has to end, once the template is written."""
SETTLE_SECONDS, SETTLE_LOOK = 600.0, 0.5
"""Time that everything in an image has to start, on a host whose machines all go first; and between two looks."""
REST_SECONDS = 0.3
"""For the guest to notice that nobody is connected to its port any more; copies begin at what it does then."""
TEMPLATE_FAILED = ErrorCode("template.failed", Kind.FAILED, "no template could be made: {why}")


class Class(msgspec.Struct, frozen=True):
    """Machines that can start as copies of one template. `build` is what they are made of besides the image.

    A kernel's template is of no image: `image` and `digest` are empty.
    """

    image: str
    digest: str
    vcpus: int
    memory_mib: int
    build: str


class Template(msgspec.Struct, frozen=True):
    """A finished template. `layer` is its disk, empty for a kernel's; `crc` that of its device state.

    `made` in Unix seconds; `size` is the memory of the host that it takes, in bytes.
    """

    id: str
    of: Class
    layer: str
    gib: int
    crc: int
    made: float
    size: int = 0

    @property
    def machine(self) -> str:
        """Id of the machine that it was."""
        return PREFIX + self.id[:16]


@dataclass(frozen=True)
class Workshop:
    """What templates are made with. `boot_timeout` in seconds."""

    instance: Instance
    helper: HelperClient
    layers: Layers
    accel: Accel
    clock: Clock
    boot_timeout: float

    def folder(self, template: Template) -> Path:
        """Where a template's device state lies; control alone reads it."""
        return self.instance.vm_data(template.machine)

    def is_whole(self, template: Template) -> bool:
        """Whether disk and device state are as they were written."""
        with suppress(OSError):
            state = (self.folder(template) / STATE).read_bytes()
            there = not template.layer or self.layers.path(template.layer).exists()
            return zlib.crc32(state) == template.crc and there
        return False

    async def make(self, of: Class, image: Image | None) -> Template:
        """Boot a machine of the class, stop it before it has an identity, and keep it; without an image, a kernel.

        Raises TEMPLATE_FAILED, NO_ROOM or what the helper refuses, and leaves nothing behind then.
        """
        gib = -(-image.disk.stat().st_size >> 30) if image is not None else 1
        draft = Template(secrets.token_hex(16), of, new_name(), gib, 0, self.clock.now())
        try:
            with self.layers.pinned((draft.layer,)):
                made = await self._made(draft, image)
                write_atomically(self.folder(made) / _ABOUT, msgspec.json.encode(made).decode(), 0o600)
        except BaseException:
            await asyncio.shield(asyncio.ensure_future(self.remove(draft)))
            raise
        return made

    async def remove(self, template: Template) -> None:
        """Let go of a template, whole or not. Its disk stays as long as a VM stands on it. Idempotent."""
        with suppress(Failure):
            await self.end(template.machine)
        with suppress(Failure):
            await self.helper.template_drop(template.id)
        forget(self.folder(template))

    async def end(self, machine: str) -> None:
        """Kill the machine of a template-to-be, when it runs, and remove root's traces of it."""
        record = processes.read(self.instance.vm_run(machine))
        if record is None:
            return
        with Watch(record) as watch:
            await self.helper.kill(machine, record.number)
            await watch.ended_within(END_SECONDS)
        await self.helper.remove_traces(machine, record.number)

    async def _made(self, draft: Template, image: Image | None) -> Template:
        folder = self.folder(draft)
        folder.mkdir(mode=0o711, exist_ok=True)
        self.instance.give_to_control(folder)
        await self._make_disk(draft, image)
        await self._run(draft, image)
        await self.helper.remove_traces(draft.machine, NUMBER)
        await self.helper.template_seal(draft.id)
        if image is None:
            self.layers.path(draft.layer).unlink()
            draft = msgspec.structs.replace(draft, layer="")
        else:
            await self.helper.disk_seal(draft.machine, NUMBER, draft.layer)
        sizes = {one.template: one.size for one in await self.helper.templates()}
        crc = zlib.crc32((folder / STATE).read_bytes())
        return msgspec.structs.replace(draft, crc=crc, size=sizes.get(draft.id, 0))

    async def _make_disk(self, draft: Template, image: Image | None) -> None:
        place = self.layers.path(draft.layer)
        if image is not None:
            disks.make_overlay(image.disk, place, draft.gib)
        else:  # QEMU wants one; the kernel never sees it
            place.write_bytes(draw([], draft.gib << 30).tables)
        self.instance.give_to_control(place)
        await self.helper.disk_own(draft.machine, NUMBER, draft.layer)

    async def _run(self, draft: Template, image: Image | None) -> None:
        """From spawn to end; in between, the machine is written down at the moment at which it is all it is to be."""
        process = await self.helper.spawn(
            draft.machine, NUMBER, draft.of.vcpus, draft.of.memory_mib, TINY if image is None else image.init,
            self.accel, draft.layer, template=draft.id, waits=image is None,
        )
        run = self.instance.vm_run(draft.machine)
        with ExitStack() as stack:
            watch = stack.enter_context(
                Watch(Record(process.pid, process.started, NUMBER, self.instance.uid(NUMBER)))
            )
            async with Monitor(run / vm_files.QMP_SOCKET) as monitor:
                await _unless_it_ends(watch, self._ready(run / vm_files.AGENT_SOCKET, image))
                await asyncio.sleep(REST_SECONDS)
                await memory.stream(self.folder(draft) / STATE, monitor, shared=True)
                await monitor.quit()
            if not await watch.ended_within(END_SECONDS):
                raise TEMPLATE_FAILED(why="its machine does not end")

    async def _ready(self, port: Path, image: Image | None) -> None:
        """Until the machine is all it is to be, with nobody connected. Raises what the guest says, TEMPLATE_FAILED."""
        if image is None:
            await held.wait(port, self.boot_timeout)
            return
        channel = ControlChannel(port, self.clock)
        channel.start()
        try:
            await channel.ready(self.boot_timeout)
            await channel.settle()
            async with asyncio.timeout(SETTLE_SECONDS):
                while not await channel.settled():  # noqa: ASYNC110  - the guest says nothing by itself
                    await asyncio.sleep(SETTLE_LOOK)
        except TimeoutError:
            raise TEMPLATE_FAILED(why="its image does not come to rest") from None
        finally:
            await channel.close()


async def _unless_it_ends(watch: Watch, ready: Coroutine[None, None, None]) -> None:
    """Wait for `ready`. Raises what that raises, TEMPLATE_FAILED when the machine ends first."""
    waiting, ended = asyncio.create_task(ready), asyncio.create_task(watch.over.wait())
    try:
        await asyncio.wait({waiting, ended}, return_when=asyncio.FIRST_COMPLETED)
        if not waiting.done():
            raise TEMPLATE_FAILED(why="its machine ended while it booted")
        waiting.result()
    finally:
        for task in (waiting, ended):
            task.cancel()
        await asyncio.gather(waiting, ended, return_exceptions=True)


def every(data: Path) -> Iterator[Template]:
    """The templates that the data folder tells of."""
    for place in sorted((data / "vms").glob(f"{PREFIX}*")):
        with suppress(OSError, *UNREADABLE):
            yield msgspec.json.decode((place / _ABOUT).read_bytes(), type=Template)


def open_state(folder: Path) -> int:
    """A descriptor of a template's device state, for one clone. Raises OSError."""
    return os.open(folder / STATE, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
