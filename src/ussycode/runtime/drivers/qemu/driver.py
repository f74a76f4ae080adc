"""The QEMU driver: one Machine per VM folder, adopted again by every new process of control."""
from __future__ import annotations

import asyncio
import hashlib
import os
import secrets
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import msgspec
import structlog

from ussycode.base import ids
from ussycode.base.clock import Clock
from ussycode.base.errors import ErrorCode, Failure, Kind
from ussycode.runtime import disks
from ussycode.runtime import export as exporting
from ussycode.runtime.driver import OriginKind, Phase, Power, Sample, Seen, Spare, VmId, Want
from ussycode.runtime.drivers.qemu import merging, saved, storage
from ussycode.runtime.drivers.qemu.machine import Host, Machine
from ussycode.runtime.drivers.qemu.merging import Merge
from ussycode.runtime.drivers.qemu.spares import Spares, Stock
from ussycode.runtime.drivers.qemu.storage import Ground, Layers
from ussycode.runtime.drivers.qemu.template import Template, Workshop
from ussycode.runtime.drivers.qemu.templates import Limits, Templates
from ussycode.runtime.export import Export, Form, Source
from ussycode.runtime.guest.channel import Port
from ussycode.runtime.guest.streams import GuestAddress
from ussycode.runtime.images.manifest import Runs, written
from ussycode.runtime.images.store import Image, ImageStore
from ussycode.runtime.instance import FIRST_NUMBER, LAST_NUMBER, Instance
from ussycode.runtime.net import guard
from ussycode.runtime.privileged.client import HelperClient
from ussycode.runtime.privileged.protocol import Accel

T = TypeVar("T")
PACKING = 4
"""Disks whose files are looked through at once; sending them afterwards takes hardly anything."""
BOOT_SECONDS = 60.0
"""Time a guest gets to answer, when the operator says nothing else."""
NO_IMAGE = ErrorCode(
    "image.missing", Kind.NOT_FOUND, "there is no image named {image} on this node",
    hint="the operator builds it: ussycode image build {image}",
)
NO_SPARE = ErrorCode("vm.no_spare", Kind.FAILED, "a machine that was to stand by did not come up")
_log = structlog.get_logger("ussycode.storage")


class QemuDriver:
    """Runs VMs as QEMU processes that outlive it. Call `open` before any verb and `close` at the end."""

    def __init__(
        self, instance: Instance, images: ImageStore, helper: HelperClient, accel: Accel, clock: Clock,
        boot_timeout: float = BOOT_SECONDS, check_seconds: float = guard.CHECK_SECONDS, limits: Limits | None = None,
        spares: Stock | None = None,
    ) -> None:
        """`helper` speaks to the privileged helper of the same instance; `boot_timeout` in seconds, as the time
        between two looks after the network. Without `limits` there are no templates: every VM boots. `spares` says
        which machines are to stand by; they need a template.
        """
        self._check_seconds = check_seconds
        self._images = images
        self._machines: dict[VmId, Machine] = {}
        self._listeners: list[Callable[[], None]] = []
        self._guard: asyncio.Task[None] | None = None
        self._merger: asyncio.Task[None] | None = None
        self._untidy = asyncio.Event()
        self._packing = asyncio.Semaphore(PACKING)
        boots = asyncio.Semaphore(max(2, os.cpu_count() or 1))
        self.layers = Layers(instance, helper)
        workshop = Workshop(instance, helper, self.layers, accel, clock, boot_timeout)
        self.templates = Templates(workshop, limits or Limits(), images.find, self._starting)
        self._host = Host(
            instance, helper, accel, clock, boot_timeout, boots, self.layers, self._changed, self.templates,
            self._base,
        )
        self.spares = Spares(
            spares or Stock("", 0, 0, 0, 0), clock, self._make_spare, self._end_spare, self._digest, self._starting,
        )

    def on_change(self, listener: Callable[[], None]) -> None:
        """Call `listener` whenever a VM changes phase, so that nobody has to poll."""
        self._listeners.append(listener)

    async def open(self) -> None:
        """Load the network rules and take over every VM that is on disk, running or not."""
        await self._host.helper.net_up()
        build, kernel = await self._build()
        self._host = replace(self._host, build=build)
        await self.templates.open(f"{build} {kernel}")
        self._guard = asyncio.create_task(guard.watch(self._host.helper.net_check, self._check_seconds))
        for state in saved.every(self._host.instance.data / "vms"):
            if state.spare:
                await self._end_leftover(state)
                continue
            machine = Machine(self._host, state)
            self._machines[state.want.vm] = machine
            machine.adopt()
        self.layers.forget_drafts()
        self._keep_all(merging.agreed(self._records()))
        await self._sweep()
        self._merger = asyncio.create_task(self._merge_for_ever())
        self.spares.open()

    async def close(self) -> None:
        """Let go of all VMs; they go on running."""
        for task in filter(None, (self._guard, self._merger)):
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        await self.spares.close()
        await self.templates.close()
        await asyncio.gather(*(machine.leave() for machine in self._machines.values()))

    async def seen(self) -> Sequence[Seen]:
        """What is here now."""
        used = storage.users(self._records())
        return [
            replace(machine.seen(), snapshots=storage.shown(machine.saved.snapshots, self.layers, used))
            for machine in self._machines.values() if not machine.saved.spare
        ]

    async def claim(self, image: str, vcpus: int, memory_mib: int, disk_gib: int) -> Spare | None:
        """Keep a machine that stands by for a VM that is about to be wanted; None when there is none that fits."""
        return self.spares.claim(image, vcpus, memory_mib, disk_gib)

    async def give_back(self, spare: Spare) -> None:
        """That VM will not be wanted."""
        self.spares.give_back(spare)

    async def prepare(self, want: Want) -> None:
        """Make disk and state of the VM. Raises NO_IMAGE, NO_ROOM, ORIGIN_GONE, DISK_FAILED, HELPER_*."""
        machine = self._machines.get(want.vm)
        if machine is not None and machine.saved.spare:
            if await self._owned(machine, want):
                return
            machine = None
        if machine is None:
            machine = await self._new(want)
        image = self._image(want, machine)
        async with machine.verbs:
            if machine.saved.disk_turn >= want.disk_turn:
                await machine.prepare(want, image.disk)
                return
        await self._remake(machine, want, image)
        await self._sweep()

    async def start(self, want: Want) -> None:
        """Ask the VM to boot; a VM that was never prepared is prepared first."""
        if want.vm not in self._machines:
            await self.prepare(want)
        machine = self._machines[want.vm]
        async with machine.verbs:
            machine.start(want)

    async def stop(self, vm: VmId) -> None:
        """Shut down within a bound; no error when there is no such VM."""
        machine = self._machines.get(vm)
        if machine is not None:
            async with machine.verbs:
                await machine.stop()

    async def pause(self, want: Want) -> None:
        """Write the memory to disk and end QEMU. Raises NO_ROOM, PAUSE_FAILED; the VM goes on running then."""
        machine = self._machines.get(want.vm)
        if machine is not None:
            async with machine.verbs:
                await machine.pause(want)

    async def resume(self, want: Want) -> None:
        """Go on from the memory, or boot without one."""
        machine = self._machines.get(want.vm)
        if machine is not None:
            async with machine.verbs:
                await machine.resume(want)

    async def destroy(self, vm: VmId) -> None:
        """Remove every trace; no error when there is none."""
        machine = self._machines.get(vm)
        if machine is None:
            saved.forget(self._host.instance.vm_data(vm))
            return
        async with machine.verbs:
            await machine.destroy()
        self._machines.pop(vm, None)
        await self._sweep()

    async def update(self, want: Want) -> None:
        """Tell the guest its new name and keys. Raises the guest's failures."""
        machine = self._machines.get(want.vm)
        if machine is not None:
            async with machine.verbs:
                await machine.update(want)

    async def grow(self, want: Want) -> None:
        """Make a VM's disk larger. Raises NO_ROOM, DISK_FAILED."""
        machine = self._machines.get(want.vm)
        if machine is not None:
            async with machine.verbs:
                await machine.grow(want)

    async def keep_snapshots(self, want: Want) -> None:
        """Take and drop snapshots. Raises NO_ROOM, TOO_DEEP, DISK_FAILED."""
        machine = self._machines.get(want.vm)
        if machine is not None:
            async with machine.verbs:
                await machine.keep_snapshots(want)
            await self._sweep()

    async def sample(self, vm: VmId) -> Sample | None:
        """What the VM uses now; None when it does not run."""
        machine = self._machines.get(vm)
        return None if machine is None else await machine.sample()

    async def listening(self, vm: VmId) -> Sequence[Port] | None:
        """What listens in the guest; None when it does not run or does not say."""
        machine = self._machines.get(vm)
        return None if machine is None else await machine.listening()

    async def export(self, vm: VmId, form: Form) -> Export:
        """Its disk as it is now. Raises ORIGIN_GONE, NO_ROOM, TOO_DEEP, DISK_FAILED, BAD_DISK, BAD_FS."""
        machine = self._machines.get(vm)
        if machine is None or machine.saved.phase is Phase.ABSENT:
            raise disks.ORIGIN_GONE(what="there is no such VM")
        image = self._image(machine.saved.want, machine)
        config = written(_run_as(machine.saved))
        if form is Form.QCOW2:
            made = await self._frozen(machine, image, lambda disk: exporting.of_disk(disk, config))
            await self._sweep()  # where a layer was made for this alone, its open file is all that is needed
            return made
        async with self._packing:
            packing = await self._frozen(machine, image, lambda disk: exporting.begin_packing(form, disk, config))
            await self._sweep()
            try:
                return await packing.export()
            except BaseException:
                packing.close()
                raise

    async def _frozen(self, machine: Machine, image: Image, opened: Callable[[Source], T]) -> T:
        """What `opened` makes of a disk as it is now."""
        async with machine.verbs:
            ground = await machine.freeze()
            with self.layers.pinned(ground.chain):
                paths = tuple(self.layers.path(name) for name in ground.chain)
                return await asyncio.to_thread(opened, Source(paths, image.disk, ground.gib << 30))

    def guest_address(self, vm: VmId) -> GuestAddress | None:
        """Where streams to the guest go; None unless it is running."""
        machine = self._machines.get(vm)
        return None if machine is None else machine.guest_address()

    def console(self, vm: VmId) -> str:
        """The last console lines; empty for an unknown VM."""
        machine = self._machines.get(vm)
        return "" if machine is None else machine.console()

    def _starting(self) -> bool:
        return any(m.saved.phase is Phase.STARTING and not m.saved.spare for m in self._machines.values())

    async def _owned(self, machine: Machine, want: Want) -> bool:
        """Make a spare the VM that has claimed it. False when it is of no use; nothing of it is left then."""
        async with machine.verbs:
            fits = want.power is Power.RUNNING and machine.stands_by and self.spares.take(want)
            if fits:
                await machine.be_owned(want)
                return True
        await self._end_spare(want.vm)
        return False

    async def _make_spare(self, stock: Stock) -> tuple[Spare, Machine, str] | None:
        """Bring one up; None while there is no template to copy. Raises NO_SPARE.

        What an image runs by itself is its owner's to begin: only a whole system that is made for it stands by.
        """
        image = self._images.find(stock.image)
        want = _nobody(stock, self._number_from_the_end())
        template = self.templates.system(want, image) if image is not None and image.settles else None
        if image is None or template is None:
            return None
        machine = self._write_down(self._from_image(want, image, template, spare=True))
        try:
            async with machine.verbs:
                await machine.prepare(want, image.disk)
            if await machine.stand_by():
                return Spare(want.vm, want.number), machine, image.digest
            raise NO_SPARE()
        except BaseException:
            await asyncio.shield(asyncio.ensure_future(self._end_spare(want.vm)))
            raise

    def _number_from_the_end(self) -> int:
        """The greatest that is free: VMs that nobody claimed a spare for are given the smallest."""
        taken = {machine.saved.want.number for machine in self._machines.values()}
        return next(number for number in range(LAST_NUMBER, FIRST_NUMBER, -1) if number not in taken)

    async def _end_spare(self, vm: VmId) -> None:
        machine = self._machines.get(vm)
        if machine is None or not machine.saved.spare:
            return
        async with machine.verbs:
            await machine.destroy()
        self._machines.pop(vm, None)
        await self._sweep()

    async def _end_leftover(self, state: saved.Saved) -> None:
        """A spare of an earlier process of control."""
        await self.templates.workshop.end(state.want.vm)
        await self._host.helper.remove_traces(state.want.vm, state.want.number)
        saved.forget(self._host.instance.vm_data(state.want.vm))

    def _digest(self, image: str) -> str | None:
        found = self._images.find(image)
        return None if found is None else found.digest

    def _base(self, state: saved.Saved) -> Path:
        """The disk of the image that a VM was made from. Raises ORIGIN_GONE."""
        image = self._images.get(state.want.image, state.digest)
        if image is None:
            raise disks.ORIGIN_GONE(what="the image")
        return image.disk

    async def _build(self) -> tuple[str, str]:
        """What a machine's memory depends on besides its own size; what a boot depends on besides that."""
        built = await self._host.helper.builds()
        cpu = Path("/proc/cpuinfo").read_text() if self._host.accel is Accel.KVM else ""
        facts = sorted({line for line in cpu.splitlines() if line.startswith(("model name", "flags"))})
        seen = hashlib.sha256("\n".join(facts).encode()).hexdigest()[:16]
        return " ".join([built.qemu, self._host.accel, seen]), built.boot

    def _changed(self) -> None:
        for listener in self._listeners:
            listener()

    def _records(self) -> list[saved.Saved]:
        return [machine.saved for machine in self._machines.values()]

    def _keep_all(self, records: Sequence[saved.Saved]) -> None:
        for state in records:
            self._machines[state.want.vm].stand_on(state)

    async def _merge_for_ever(self) -> None:
        """Shorten long chains whenever disks changed. The outermost frame: what cannot be merged stays as it is."""
        spared: set[str] = set()
        while True:
            await self._untidy.wait()
            self._untidy.clear()
            while (found := merging.following(self._records(), self.layers.pins | spared)) is not None:
                try:
                    if not await self._merge(found):
                        break
                except (Failure, OSError) as error:
                    _log.warning("layers stay apart", count=len(found.layers), error=str(error))
                    spared.update(found.layers)

    async def _merge(self, found: Merge) -> bool:
        """Make several layers one; False when somebody began to use one of them alone meanwhile."""
        one = next(state for state in self._records() if found.gone & set(storage.names(state)))
        image = self._images.get(one.want.image, one.digest)
        base = image.disk if image is not None else Path("/nonexistent")
        draft = await asyncio.to_thread(merging.write, self.layers, found, base)
        # Nothing is awaited from here on: what the records say is what it is until they are written.
        if found != merging.following(self._records(), self.layers.pins | self._others(found)):
            draft.unlink(missing_ok=True)
            return False
        merging.publish(self.layers, found, draft)
        self._keep_all([merging.without(state, found.gone) for state in self._records()])
        self.layers.changed(found.layers[0])
        _log.info("layers merged", count=len(found.layers))
        await self._remove_unused()
        return True

    def _others(self, found: Merge) -> frozenset[str]:
        return frozenset(name for state in self._records() for name in storage.names(state)) - set(found.layers)

    async def _sweep(self) -> None:
        await self._remove_unused()
        self._untidy.set()

    async def _remove_unused(self) -> None:
        """Remove layers that no VM needs; none while there is a record that cannot be read, which may need any."""
        folder = self._host.instance.data / "vms"
        unknown = [place.name for place in folder.glob("*/vm.json") if place.parent.name not in self._machines]
        if unknown:
            _log.warning("layers are kept: there are records of VMs that cannot be read", count=len(unknown))
            return
        await self.layers.sweep(self._records())

    def _image(self, want: Want, machine: Machine | None) -> Image:
        """The image a VM stands on: once chosen, the same build for ever, because its disk is an overlay."""
        known = None if machine is None else self._images.get(machine.saved.want.image, machine.saved.digest)
        image = known or self._images.find(want.image)
        if image is None:
            raise NO_IMAGE(image=want.image)
        return image

    async def _new(self, want: Want) -> Machine:
        """Write down what a VM is to be made from, so that it is made only once whatever happens meanwhile."""
        if want.origin.kind is OriginKind.IMAGE:
            image = self._image(want, None)
            template = self.templates.system(want, image)
            return self._write_down(self._from_image(want, image, template))
        source = self._source(want)
        async with source.verbs:
            ground = await _ground(source, want)
            return self._write_down(msgspec.structs.replace(
                source.saved, want=want, phase=Phase.ABSENT, boot=0, detail="", console="", cold=False, pending="",
                draft="", source=saved.Source.BOOT, snapshots=(), disk_turn=want.disk_turn,
                disk_gib=max(want.disk_gib, ground.gib), chain=ground.chain, top=storage.new_name(), fresh=True,
                anew=True, template="",
            ))

    def _from_image(
        self, want: Want, image: Image, template: Template | None, *, spare: bool = False
    ) -> saved.Saved:
        layer = "" if template is None else template.layer
        return saved.Saved(
            want=want, digest=image.digest, init=image.init, login_user=image.login_user,
            default_port=image.default_port, phase=Phase.ABSENT, service=image.service, disk_turn=want.disk_turn,
            disk_gib=max(want.disk_gib, _gib(image)), top=storage.new_name(), fresh=True, anew=True,
            chain=(layer,) if layer else (), template=template.id if template is not None and layer else "",
            spare=spare,
        )

    async def _remake(self, machine: Machine, want: Want, image: Image) -> None:
        """Give a VM that is there a disk made from another origin than the present one."""
        ground = Ground((), _gib(image))
        if want.origin.kind is not OriginKind.IMAGE:
            source = self._source(want)
            async with source.verbs:
                ground = await _ground(source, want)
        with self.layers.pinned(ground.chain):
            async with machine.verbs:
                await machine.remake(want, ground, image.disk)

    def _source(self, want: Want) -> Machine:
        if want.origin.kind is OriginKind.FILE:
            raise disks.NO_SUCH_ORIGIN(what="a file")
        source = self._machines.get(want.origin.vm)
        if source is None or source.saved.phase is Phase.ABSENT:
            raise disks.ORIGIN_GONE(what="there is no such VM")
        return source

    def _write_down(self, state: saved.Saved) -> Machine:
        folder = self._host.instance.vm_data(state.want.vm)
        folder.mkdir(mode=0o711, exist_ok=True)
        self._host.instance.give_to_control(folder)
        saved.save(folder, state)
        machine = self._machines[state.want.vm] = Machine(self._host, state)
        self._untidy.set()
        return machine


def _run_as(state: saved.Saved) -> Runs:
    """How a VM is run, for whoever runs its disk elsewhere."""
    service = state.service.commanded(state.want.command)
    return Runs(
        state.init, service.argv, service.env, service.cwd, service.user, state.login_user, state.default_port, {},
    )


def _nobody(stock: Stock, number: int) -> Want:
    """What a spare is told of before it has an owner: nothing that a VM keeps."""
    return Want(
        vm=ids.new("vm"), name="spare", number=number, power=Power.RUNNING, boot=0, image=stock.image,
        vcpus=stock.vcpus, memory_mib=stock.memory_mib, disk_gib=stock.disk_gib, env=(), authorized_keys=(),
        secret=secrets.token_hex(32),
    )


def _gib(image: Image) -> int:
    """Size of an image's file system, which no disk on it can be smaller than; in GiB, rounded up."""
    return -(-image.disk.stat().st_size >> 30)


async def _ground(source: Machine, want: Want) -> Ground:
    """What `want` asks for of `source`, whose verbs are held: a snapshot of it, or its disk as it is now."""
    if want.origin.kind is OriginKind.VM:
        return await source.freeze()
    found = [one for one in source.saved.snapshots if one.id == want.origin.snapshot]
    if not found:
        raise disks.ORIGIN_GONE(what="there is no such snapshot")
    return Ground(found[0].chain, found[0].gib)
