"""One driver for VMs and containers: each wish goes to the driver of its isolation."""
from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from ussycode.runtime.driver import Driver, Isolation, Sample, Seen, VmId, Want
from ussycode.runtime.export import Export, Form
from ussycode.runtime.guest.channel import Port
from ussycode.runtime.guest.streams import GuestAddress
from ussycode.runtime.isolation import NOT_ENABLED


class NodeDriver(Driver, Protocol):
    """A driver with a beginning and an end, and the way to its guests."""

    async def open(self) -> None:
        """Take over what is here."""
        ...

    async def close(self) -> None:
        """Let go of it."""
        ...

    def on_change(self, listener: Callable[[], None]) -> None:
        """Call `listener` whenever something changes."""
        ...

    def guest_address(self, vm: VmId) -> GuestAddress | None:
        """Where streams go; None unless the guest is running."""
        ...

    def console(self, vm: VmId) -> str:
        """The last console lines."""
        ...

    async def listening(self, vm: VmId) -> Sequence[Port] | None:
        """What listens in it."""
        ...

    async def export(self, vm: VmId, form: Form) -> Export:
        """Its disk as a file."""
        ...


@dataclass(frozen=True)
class Both:
    """`vms` and `containers` as one; a VM id is known to at most one of them."""

    vms: NodeDriver
    containers: NodeDriver
    _boxed: set[VmId] = field(default_factory=set)
    """Ids that are containers, as last seen or wanted."""

    async def open(self) -> None:
        """Take over both."""
        await self.vms.open()
        await self.containers.open()
        self._boxed.update(one.vm for one in await self.containers.seen())

    async def close(self) -> None:
        """Let go of both."""
        await asyncio.gather(self.vms.close(), self.containers.close())

    def on_change(self, listener: Callable[[], None]) -> None:
        """Hear of both."""
        self.vms.on_change(listener)
        self.containers.on_change(listener)

    async def seen(self) -> Sequence[Seen]:
        """What is here now."""
        return [*await self.vms.seen(), *await self.containers.seen()]

    async def prepare(self, want: Want) -> None:
        """Raises what the wish's driver raises."""
        await self._for(want).prepare(want)

    async def start(self, want: Want) -> None:
        """Raises what the wish's driver raises."""
        await self._for(want).start(want)

    async def stop(self, vm: VmId) -> None:
        """No error for what is not here."""
        await self._of(vm).stop(vm)

    async def pause(self, want: Want) -> None:
        """Raises `errors.UNSUPPORTED` for a container."""
        await self._for(want).pause(want)

    async def resume(self, want: Want) -> None:
        """Raises what the wish's driver raises."""
        await self._for(want).resume(want)

    async def grow(self, want: Want) -> None:
        """Raises what the wish's driver raises."""
        await self._for(want).grow(want)

    async def keep_snapshots(self, want: Want) -> None:
        """Raises what the wish's driver raises."""
        await self._for(want).keep_snapshots(want)

    async def sample(self, vm: VmId) -> Sample | None:
        """What it uses now."""
        return await self._of(vm).sample(vm)

    async def listening(self, vm: VmId) -> Sequence[Port] | None:
        """What listens in it."""
        return await self._of(vm).listening(vm)

    async def destroy(self, vm: VmId) -> None:
        """No error for what is not here; both are asked, since a folder may be all that is left."""
        await self.containers.destroy(vm)
        await self.vms.destroy(vm)
        self._boxed.discard(vm)

    async def update(self, want: Want) -> None:
        """Raises what the wish's driver raises."""
        await self._for(want).update(want)

    def guest_address(self, vm: VmId) -> GuestAddress | None:
        """Where streams go."""
        return self._of(vm).guest_address(vm)

    def console(self, vm: VmId) -> str:
        """The last console lines."""
        return self._of(vm).console(vm)

    async def export(self, vm: VmId, form: Form) -> Export:
        """Raises what the VM's driver raises."""
        return await self._of(vm).export(vm, form)

    def _for(self, want: Want) -> NodeDriver:
        if want.isolation is Isolation.CONTAINER:
            self._boxed.add(want.vm)
        return self._of(want.vm)

    def _of(self, vm: VmId) -> NodeDriver:
        return self.containers if vm in self._boxed else self.vms


class NoContainers:
    """The containers of a node whose operator did not enable them: there are none, and none is made."""

    async def open(self) -> None:
        """Nothing to take over."""

    async def close(self) -> None:
        """Nothing to let go of."""

    def on_change(self, listener: Callable[[], None]) -> None:
        """Nothing ever changes."""

    async def seen(self) -> Sequence[Seen]:
        """Nothing."""
        return ()

    async def prepare(self, want: Want) -> None:
        """Raises NOT_ENABLED, as every verb that would make something."""
        raise NOT_ENABLED()

    start = pause = resume = grow = keep_snapshots = update = prepare

    async def stop(self, vm: VmId) -> None:
        """There is none."""

    destroy = stop

    async def sample(self, vm: VmId) -> Sample | None:
        """None."""
        return None

    async def listening(self, vm: VmId) -> Sequence[Port] | None:
        """None."""
        return None

    def guest_address(self, vm: VmId) -> GuestAddress | None:
        """None."""
        return None

    async def export(self, vm: VmId, form: Form) -> Export:
        """Raises NOT_ENABLED."""
        raise NOT_ENABLED()

    def console(self, vm: VmId) -> str:
        """Empty."""
        return ""
