"""Streams into the VMs of this node: the id of a VM becomes the address of its agent."""
from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from ussycode.base.errors import ErrorCode, Kind
from ussycode.runtime.driver import Sample, Spare, VmId
from ussycode.runtime.export import Export, Form
from ussycode.runtime.guest import execs, listeners, streams
from ussycode.runtime.guest.channel import Port
from ussycode.runtime.guest.execs import ExecSpec, ExecStream
from ussycode.runtime.guest.listeners import Listener
from ussycode.runtime.guest.streams import GuestAddress, Stream

NOT_RUNNING = ErrorCode(
    "vm.unreachable", Kind.UNAVAILABLE, "the VM is not running",
    hint="start it with: restart NAME",
)


class Guests(Protocol):
    """What a driver knows of its running guests."""

    def guest_address(self, vm: VmId) -> GuestAddress | None:
        """Where streams go; None unless the guest is running."""
        ...

    def console(self, vm: VmId) -> str:
        """The last console lines; empty when there are none."""
        ...

    async def sample(self, vm: VmId) -> Sample | None:
        """What it uses now."""
        ...

    async def listening(self, vm: VmId) -> Sequence[Port] | None:
        """What listens in it; None when it does not say."""
        ...

    async def export(self, vm: VmId, form: Form) -> Export:
        """Its disk as a file."""
        ...


class SpareMachines(Protocol):
    """Machines of a driver that have come up and have no owner."""

    async def claim(self, image: str, vcpus: int, memory_mib: int, disk_gib: int) -> Spare | None:
        """Keep one that fits; None without one."""
        ...

    async def give_back(self, spare: Spare) -> None:
        """It is not wanted after all."""
        ...


class NoSpares:
    """A driver whose machines all start when they are wanted."""

    async def claim(self, image: str, vcpus: int, memory_mib: int, disk_gib: int) -> None:
        """There is none."""

    async def give_back(self, spare: Spare) -> None:
        """None was given."""


class LocalLink:
    """Opens streams to guests on this host. Raises NOT_RUNNING and what the guest's agent declares."""

    _spares: SpareMachines = NoSpares()

    def __init__(self, guests: Guests, spares: SpareMachines | None = None) -> None:
        self._guests = guests
        if spares is not None:
            self._spares = spares

    async def claim(self, image: str, vcpus: int, memory_mib: int, disk_gib: int) -> Spare | None:
        """A machine that stands by and fits, kept for the VM that is recorded next with its id and number."""
        return await self._spares.claim(image, vcpus, memory_mib, disk_gib)

    async def give_back(self, spare: Spare) -> None:
        """No VM was recorded with it."""
        await self._spares.give_back(spare)

    async def dial(self, vm: VmId, port: int, host: str = "") -> Stream:
        """Raw bytes to a TCP port inside the guest, loopback included."""
        return await streams.dial(self.address(vm), port=port, host=host)

    async def dial_path(self, vm: VmId, path: str, user: str = "") -> Stream:
        """Raw bytes to a unix socket inside the guest, opened with the rights of `user` (root when empty)."""
        return await streams.dial(self.address(vm), path=path, user=user)

    async def open_exec(self, vm: VmId, spec: ExecSpec) -> ExecStream:
        """A command or a login shell in the guest."""
        return await execs.open_exec(self.address(vm), spec)

    async def open_sftp(self, vm: VmId, user: str = "") -> Stream:
        """SFTP version 3 packets served inside the guest."""
        return await streams.open_sftp(self.address(vm), user=user)

    async def put_file(self, vm: VmId, path: str, data: bytes, mode: int = 0o644) -> None:
        """Put a file at an absolute path, whole or not at all."""
        await streams.put_file(self.address(vm), path, data, mode=mode)

    async def listen(
        self, vm: VmId, user: str = "", host: str = "", port: int = 0, path: str | None = None
    ) -> Listener:
        """A TCP port (`path` None) or a unix socket (`path` empty: a private one is made) inside the guest."""
        address = self.address(vm)
        if path is not None:
            return await listeners.listen_unix(address, path, user=user)
        return await listeners.listen_tcp(address, port, host=host or "127.0.0.1", user=user)

    async def sample(self, vm: VmId) -> Sample | None:
        """What the VM uses now; None when it does not run."""
        return await self._guests.sample(vm)

    async def listening(self, vm: VmId) -> Sequence[Port] | None:
        """TCP ports on which something listens in the VM; None when it does not run or does not say."""
        return await self._guests.listening(vm)

    async def export(self, vm: VmId, form: Form) -> Export:
        """The VM's disk as a file. Raises what the driver raises."""
        return await self._guests.export(vm, form)

    def console(self, vm: VmId) -> str:
        """The last console lines of the VM."""
        return self._guests.console(vm)

    def address(self, vm: VmId) -> GuestAddress:
        """Where the VM's agent answers. Raises NOT_RUNNING."""
        address = self._guests.guest_address(vm)
        if address is None:
            raise NOT_RUNNING()
        return address
