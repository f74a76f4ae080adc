"""The container driver: one Box per VM folder, adopted again by every new process of control."""
from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from ussycode.base.clock import Clock
from ussycode.runtime import disks
from ussycode.runtime.driver import Origin, OriginKind, Phase, Sample, Seen, VmId, Want
from ussycode.runtime.drivers.container import saved
from ussycode.runtime.drivers.container.box import Box, Host
from ussycode.runtime.drivers.container.errors import FOREIGN_DISK, NO_PLACE, UNSUPPORTED
from ussycode.runtime.drivers.qemu.driver import BOOT_SECONDS, NO_IMAGE
from ussycode.runtime.export import NOT_EXPORTED, Export, Form
from ussycode.runtime.guest.channel import Port
from ussycode.runtime.guest.streams import GuestAddress
from ussycode.runtime.images.store import Image, ImageStore
from ussycode.runtime.instance import LAST_CONTAINER, Instance
from ussycode.runtime.privileged.container_client import ContainerClient
from ussycode.runtime.privileged.protocol import ContainerMake


class ContainerDriver:
    """Runs containers that outlive it. Call `open` before any verb and `close` at the end."""

    def __init__(
        self, instance: Instance, images: ImageStore, helper: ContainerClient, clock: Clock,
        boot_timeout: float = BOOT_SECONDS,
    ) -> None:
        """`helper` speaks to the privileged helper of the same instance; `boot_timeout` in seconds."""
        self._images = images
        self._boxes: dict[VmId, Box] = {}
        self._listeners: list[Callable[[], None]] = []
        self._host = Host(instance, helper, clock, boot_timeout, self._changed)

    def on_change(self, listener: Callable[[], None]) -> None:
        """Call `listener` whenever a container changes phase, so that nobody has to poll."""
        self._listeners.append(listener)

    async def open(self) -> None:
        """Load the network rules and take over every container that is on disk, running or not."""
        await self._host.helper.net_up()
        for state in saved.every(self._host.instance.data / "vms"):
            box = self._boxes[state.want.vm] = Box(self._host, state)
            await box.look_at_disk()
            box.adopt()

    async def close(self) -> None:
        """Let go of all containers; they go on running."""
        await asyncio.gather(*(box.leave() for box in self._boxes.values()))

    def knows(self, vm: VmId) -> bool:
        """Whether `vm` is a container of this node."""
        return vm in self._boxes

    async def seen(self) -> Sequence[Seen]:
        """What is here now."""
        return [box.seen() for box in self._boxes.values()]

    async def prepare(self, want: Want) -> None:
        """Make disk and state. Raises NO_IMAGE, NO_ROOM, NO_PLACE, FOREIGN_DISK, UNSUPPORTED, HELPER_*."""
        if want.number > LAST_CONTAINER:
            raise NO_PLACE(most=LAST_CONTAINER)
        box = self._boxes.get(want.vm)
        image = self._image(want, box)
        made = await self._made(want, image)
        if box is None:
            disks.require_room(self._host.instance.data)
            box = self._boxes[want.vm] = self._new(want, image)
        async with box.verbs:
            await box.prepare(want, made)

    async def start(self, want: Want) -> None:
        """Ask it to boot; one that was never prepared is prepared first."""
        if want.vm not in self._boxes:
            await self.prepare(want)
        box = self._boxes[want.vm]
        async with box.verbs:
            box.start(want)

    async def stop(self, vm: VmId) -> None:
        """Shut down within a bound; no error when there is no such container."""
        box = self._boxes.get(vm)
        if box is not None:
            async with box.verbs:
                await box.stop()

    async def pause(self, want: Want) -> None:
        """Raises UNSUPPORTED: processes of the host's kernel cannot be written to disk."""
        raise UNSUPPORTED(what="pause")

    async def resume(self, want: Want) -> None:
        """As `start`: nothing here is ever paused."""
        await self.start(want)

    async def grow(self, want: Want) -> None:
        """Make the disk larger, running or not. Raises HELPER_*."""
        box = self._boxes.get(want.vm)
        if box is not None:
            async with box.verbs:
                await box.grow(want)

    async def keep_snapshots(self, want: Want) -> None:
        """Take the snapshots that are missing, remove those dropped. Raises NO_ROOM, HELPER_*."""
        box = self._boxes.get(want.vm)
        if box is not None:
            disks.require_room(self._host.instance.data)
            async with box.verbs:
                await box.keep_snapshots(want)

    async def sample(self, vm: VmId) -> Sample | None:
        """What it uses now; None when it does not run or is unknown."""
        box = self._boxes.get(vm)
        return None if box is None else await box.sample()

    async def listening(self, vm: VmId) -> Sequence[Port] | None:
        """What listens in the guest; None when it does not run or does not say."""
        box = self._boxes.get(vm)
        return None if box is None else await box.listening()

    async def destroy(self, vm: VmId) -> None:
        """Remove every trace; no error when there is none."""
        box = self._boxes.get(vm)
        if box is None:
            return
        async with box.verbs:
            await box.destroy()
        self._boxes.pop(vm, None)

    async def update(self, want: Want) -> None:
        """Tell the guest its new name and keys. Raises the guest's failures."""
        box = self._boxes.get(want.vm)
        if box is not None:
            async with box.verbs:
                await box.update(want)

    def guest_address(self, vm: VmId) -> GuestAddress | None:
        """Where streams to the guest go; None unless it is running."""
        box = self._boxes.get(vm)
        return None if box is None else box.guest_address()

    async def export(self, vm: VmId, form: Form) -> Export:
        """Raises NOT_EXPORTED."""
        raise NOT_EXPORTED(what="container")

    def console(self, vm: VmId) -> str:
        """The last console lines; empty when unknown."""
        box = self._boxes.get(vm)
        return "" if box is None else box.console()

    def _changed(self) -> None:
        for listener in self._listeners:
            listener()

    def _image(self, want: Want, box: Box | None) -> Image:
        """The image it stands on: once chosen, the same build for ever, because its disk lies above it."""
        known = None if box is None else self._images.get(box.saved.want.image, box.saved.digest)
        image = known or self._images.find(want.image)
        if image is None:
            raise NO_IMAGE(image=want.image)
        return image

    async def _made(self, want: Want, image: Image) -> ContainerMake:
        """The disk as the helper is asked for it."""
        folder, digest = image.disk.parent.parent.name, image.disk.parent.name
        plain = ContainerMake(want.vm, folder, digest, want.disk_gib)
        if want.origin.kind is OriginKind.IMAGE:
            return plain
        await self._require_container_disk(want.origin)
        source = self._boxes.get(want.origin.vm)
        return ContainerMake(
            want.vm, folder, digest, want.disk_gib, source=want.origin.vm,
            source_number=source.saved.want.number if source is not None else None,
            snapshot=want.origin.snapshot or None,
        )

    async def _require_container_disk(self, origin: Origin) -> None:
        if origin.memory:
            raise UNSUPPORTED(what="a copy with its running processes")
        if origin.kind is OriginKind.FILE:
            raise FOREIGN_DISK(what="an imported disk")
        found = await self._host.helper.disk(origin.vm)
        if found.size < 0 and not found.snapshots:
            raise FOREIGN_DISK(what="a VM's disk")

    def _new(self, want: Want, image: Image) -> Box:
        state = saved.Saved(
            want=want, folder=image.disk.parent.parent.name, digest=image.digest, init=image.init,
            login_user=image.login_user, default_port=image.default_port, phase=Phase.ABSENT, service=image.service,
            anew=True,
        )
        folder = self._host.instance.vm_data(want.vm)
        folder.mkdir(mode=0o711, exist_ok=True)
        self._host.instance.give_to_control(folder)
        saved.save(folder, state)
        return Box(self._host, state)
