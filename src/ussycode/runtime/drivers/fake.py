"""Drivers without machines: for development, and each of the others a story about failure."""
from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from ussycode.runtime.disks import NO_ROOM, SPARE_MIB
from ussycode.runtime.driver import Phase, Sample, Seen, Snapshot, VmId, Want
from ussycode.runtime.export import Export, Form, empty
from ussycode.runtime.guest.channel import Port
from ussycode.runtime.guest.streams import GuestAddress


@dataclass
class FakeDriver:
    """Keeps VMs in memory; they run as soon as they are started. `told` is what each guest was told last."""

    vms: dict[VmId, Seen] = field(default_factory=dict)
    told: dict[VmId, Want] = field(default_factory=dict)
    listeners: list[Callable[[], None]] = field(default_factory=list)
    forgotten: set[VmId] = field(default_factory=set)
    ports: Sequence[Port] = field(default_factory=lambda: (Port(22, "::"), Port(8000, "127.0.0.1")))
    """What listens in every VM."""
    figures: Sample = field(default_factory=lambda: Sample(
        1.0, 64 << 20, 512 << 20, 100 << 20, 5 << 30, 4 << 30, 1000, 2000, 4096, 8192,
    ))

    def on_change(self, listener: Callable[[], None]) -> None:
        """Call `listener` whenever a VM changes phase."""
        self.listeners.append(listener)

    async def open(self) -> None:
        """Nothing to take over."""

    async def close(self) -> None:
        """Nothing to let go of."""

    async def seen(self) -> Sequence[Seen]:
        """What was made so far."""
        return list(self.vms.values())

    async def prepare(self, want: Want) -> None:
        """Make a VM that has a disk in name only."""
        now = self.vms.get(want.vm)
        if now is None:
            self._put(Seen(
                want.vm, Phase.PREPARED, login_user="ussy", disk_turn=want.disk_turn, disk_gib=want.disk_gib,
            ))
        elif now.disk_turn < want.disk_turn:
            self._put(replace(now, disk_turn=want.disk_turn))

    async def start(self, want: Want) -> None:
        """Run, at once and for ever."""
        await self.prepare(want)
        if self.vms[want.vm].boot < want.boot:
            self.told[want.vm] = want
            self._booted(want)

    async def stop(self, vm: VmId) -> None:
        """Stop at once."""
        if vm in self.vms:
            self._put(replace(self.vms[vm], phase=Phase.STOPPED, boot=0, address="", detail="", console=""))

    async def pause(self, want: Want) -> None:
        """Pause at once."""
        self._put(replace(self.vms[want.vm], phase=Phase.PAUSED, address=""))

    async def resume(self, want: Want) -> None:
        """Go on at once; `lose_memory` makes the next resume a cold one."""
        self._booted(want)
        self._put(replace(self.vms[want.vm], cold=want.vm in self.forgotten))
        self.forgotten.discard(want.vm)

    def lose_memory(self, vm: VmId) -> None:
        """What a paused VM went on from is gone."""
        self.forgotten.add(vm)

    async def grow(self, want: Want) -> None:
        """Grow at once."""
        self._put(replace(self.vms[want.vm], disk_gib=max(want.disk_gib, self.vms[want.vm].disk_gib)))

    async def keep_snapshots(self, want: Want) -> None:
        """Keep names of snapshots."""
        now = self.vms[want.vm]
        kept = [one for one in now.snapshots if one.id not in want.dropped]
        have = {one.id for one in kept}
        kept += [Snapshot(name, 0.0, 1 << 20) for name in want.snapshots if name not in have]
        self._put(replace(now, snapshots=tuple(kept)))

    async def sample(self, vm: VmId) -> Sample | None:
        """The same figures for every VM that runs."""
        if vm not in self.vms or self.vms[vm].phase is not Phase.RUNNING:
            return None
        return self.figures

    async def listening(self, vm: VmId) -> Sequence[Port] | None:
        """The same ports in every VM that runs."""
        return self.ports if vm in self.vms and self.vms[vm].phase is Phase.RUNNING else None

    async def export(self, vm: VmId, form: Form) -> Export:
        """An empty disk."""
        return empty(self.vms[vm].disk_gib)

    async def destroy(self, vm: VmId) -> None:
        """Forget the VM."""
        self.told.pop(vm, None)
        if self.vms.pop(vm, None) is not None:
            self._changed()

    async def update(self, want: Want) -> None:
        """Remember what the guest would be told."""
        if want.vm in self.told:
            self.told[want.vm] = want

    def power_off(self, vm: VmId) -> None:
        """What a guest does that switches itself off."""
        self._put(replace(self.vms[vm], phase=Phase.STOPPED, address="", detail="the guest powered itself off"))

    def warn(self, vm: VmId, sentence: str) -> None:
        """What a node says of a disk that fills up."""
        self._put(replace(self.vms[vm], warning=sentence))

    def crash(self, vm: VmId, detail: str, console: str) -> None:
        """What a guest does that dies."""
        self._put(replace(self.vms[vm], phase=Phase.FAILED, address="", detail=detail, console=console))

    def guest_address(self, vm: VmId) -> GuestAddress | None:
        """An address on the loopback at which a test may serve the agent."""
        one = self.vms.get(vm)
        if one is None or one.phase is not Phase.RUNNING:
            return None
        return GuestAddress(one.address, self.told[vm].secret)

    def console(self, vm: VmId) -> str:
        """Fakes have nothing to say but why they failed."""
        return self.vms[vm].console if vm in self.vms else ""

    def _booted(self, want: Want) -> None:
        number = want.number
        address = f"127.{192 + (number >> 16)}.{number >> 8 & 255}.{number & 255}"
        before = replace(self.vms[want.vm], detail="", console="")
        self._put(replace(before, phase=Phase.RUNNING, boot=want.boot, address=address))

    def _put(self, one: Seen) -> None:
        self.vms[one.vm] = one
        self._changed()

    def _changed(self) -> None:
        for listener in self.listeners:
            listener()


@dataclass
class SlowDriver(FakeDriver):
    """Boots only when `let_boot` is called."""

    waiting: dict[VmId, Want] = field(default_factory=dict)

    def let_boot(self, vm: VmId) -> None:
        """The guest answers now."""
        super()._booted(self.waiting.pop(vm))

    def _booted(self, want: Want) -> None:
        self.waiting[want.vm] = want
        self._put(replace(self.vms[want.vm], phase=Phase.STARTING, boot=want.boot))


@dataclass
class NeverDriver(FakeDriver):
    """Guests never answer: every boot fails with its last words."""

    def _booted(self, want: Want) -> None:
        self._put(replace(
            self.vms[want.vm], phase=Phase.FAILED, boot=want.boot,
            detail="the guest did not answer within 60 s", console="Kernel panic - not syncing: no init found",
        ))


@dataclass
class StuckDriver(FakeDriver):
    """Every verb hangs until it is cancelled."""

    async def prepare(self, want: Want) -> None:
        """Never returns."""
        await asyncio.Event().wait()


@dataclass
class DiskFullDriver(FakeDriver):
    """The host has no room for another disk."""

    async def prepare(self, want: Want) -> None:
        """Raises NO_ROOM for every VM that has no disk yet."""
        if want.vm not in self.vms:
            raise NO_ROOM(free=3, spare=SPARE_MIB)
