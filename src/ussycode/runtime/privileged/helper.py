"""The verbs of the privileged helper, each checked against what the helper itself knows."""
from __future__ import annotations

import os
import stat
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from msgspec.structs import replace

from ussycode.runtime.instance import Instance
from ussycode.runtime.kernel import BootFiles
from ussycode.runtime.net import blockers, taps
from ussycode.runtime.net.policy import Policy
from ussycode.runtime.privileged import cgroups, jail, processes, vm_files
from ussycode.runtime.privileged.birth import Life, give_birth
from ussycode.runtime.privileged.cgroups import Cgroups, Limits
from ussycode.runtime.privileged.command_line import QEMU, Descriptors, Machine, command_line
from ussycode.runtime.privileged.containers import Child, Containers
from ussycode.runtime.privileged.jail import Jail
from ussycode.runtime.privileged.network import Network
from ussycode.runtime.privileged.processes import Record
from ussycode.runtime.privileged.protocol import (
    Accel,
    Builds,
    Built,
    Confine,
    DiskOwn,
    DiskSeal,
    Done,
    Facts,
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
)
from ussycode.runtime.privileged.template_memory import TemplateMemory

OVERHEAD_MIB = 256
"""What QEMU may use beyond the guest's own memory: translation cache, device buffers, page cache of the disk."""
THREADS = 128
"""Threads of one QEMU beyond its virtual CPUs: its disk worker pool alone may grow to 64."""
TEMPLATE_SHARES = 10
"""Of the host's CPU for a machine that becomes a template, where an ordinary one has 100: nobody waits for it."""
_QEMU_SECONDS = 20.0
_KVM = Path("/dev/kvm")


@dataclass
class Helper:
    """Root's side of one instance. One request at a time; what is not also on disk is only the templates' memory."""

    instance: Instance
    boot: BootFiles
    tsc_khz: int
    cgroups: Cgroups
    children: dict[str, Child] = field(default_factory=dict)
    with_containers: bool = False
    policy: Policy = field(default_factory=Policy)
    shown: tuple[Path, ...] = ()
    """Folders outside the data folder that QEMU must see, as those of images kept elsewhere."""
    templates: TemplateMemory = field(default_factory=TemplateMemory)

    def __post_init__(self) -> None:
        self.network = Network(self.instance, self.policy, lambda: dict(self._connected()))

    @cached_property
    def jail(self) -> Jail:
        """What QEMU sees of the host; made when the first VM of this helper starts."""
        shown = (self.boot.kernel.parent, self.boot.initrd.parent, self.instance.data / "images", *self.shown)
        return jail.build(self.instance.run / "jail", self.instance.data, shown)

    @property
    def containers(self) -> Containers:
        """Root's side of containers."""
        return Containers(
            self.instance, self.cgroups, self.network, self.boot.guest, self.with_containers, self.children
        )

    @cached_property
    def _qemu(self) -> str:
        """What QEMU calls itself."""
        said = subprocess.run([QEMU, "--version"], capture_output=True, text=True, timeout=_QEMU_SECONDS, check=True)
        return said.stdout.partition("\n")[0]

    def do(self, request: Request) -> Reply:
        """Carry out one request. What the host refuses comes back as a sentence, never as an exception."""
        self.reap()
        try:
            return self._do(request)
        except subprocess.CalledProcessError as error:
            return Refused(f"{error.cmd[0]}: {_last_line(error.stderr)}")
        except (OSError, subprocess.SubprocessError) as error:
            return Refused(str(error))

    def reap(self) -> None:
        """Write down how children ended, so that no zombie stays and the reason is not lost."""
        for vm, child in list(self.children.items()):
            if child.poll() is None:
                continue
            del self.children[vm]
            run = self.instance.vm_run(vm)
            record = processes.read(run)
            if record is not None and record.pid == child.pid:
                processes.write(run, Record(record.pid, record.started, record.number, record.uid, child.returncode))

    def _do(self, request: Request) -> Reply:
        match request:
            case NetUp():
                return self._net_up()
            case NetDown():
                return self._net_down()
            case NetCheck():
                return Mended(self.network.check())
            case Confine():
                return self._confine(request)
            case DiskOwn(_, number, disk):
                vm_files.own_disk(self.instance, number, disk)
                return Done()
            case DiskSeal(_, number, disk):
                vm_files.seal_disk(self.instance, number, disk)
                return Done()
            case Spawn():
                return self._spawn(request)
            case Kill(vm, number):
                return self._kill(vm, number)
            case Look(vm, number):
                return self._look(vm, number)
            case RemoveTraces(vm, number):
                return self._remove(vm, number)
            case Usage(_, number):
                return Used(*self.cgroups.used(number))
            case Facts():
                return self._facts()
            case Builds():
                return Built(self.boot.digest, self._qemu)
            case TemplateSeal(template):
                self.templates.seal(template)
                return Done()
            case TemplateDrop(template):
                self.templates.drop(template)
                return Done()
            case TemplateList():
                return Templates(tuple(self.templates.held()))
            case _:
                return self.containers.do(request)

    def _net_up(self) -> Reply:
        self.network.up()
        return Done()

    def _net_down(self) -> Reply:
        self.network.down()
        self.cgroups.clear()
        self.containers.clear()
        return Done()

    def _spawn(self, wanted: Spawn) -> Reply:
        running = self._record(wanted.vm, wanted.number)
        if running is not None and processes.alive(running):
            return _process(running)
        if self.instance.is_template(wanted.number) != (wanted.template is not None and not wanted.incoming):
            return Refused(f"number {wanted.number} is not one for this")
        for vm, record in self._living():
            if record.number == wanted.number:
                return Refused(f"number {wanted.number} is in use by {vm}")
        vm_files.require_disk(self.instance, wanted.number, wanted.disk)
        run = vm_files.make_run(self.instance, wanted.vm)
        child = self._start(wanted)
        self.children[wanted.vm] = child
        uid = self.instance.uid(wanted.number)
        started = processes.start_time(child.pid) or 0
        record = Record(child.pid, started, wanted.number, uid, confined=wanted.confined)
        processes.write(run, record)
        return _process(record)

    def _start(self, wanted: Spawn) -> subprocess.Popen[bytes]:
        with ExitStack() as held:
            qmp = held.enter_context(vm_files.listen(self.instance, wanted.vm, vm_files.QMP_SOCKET))
            agent = held.enter_context(vm_files.listen(self.instance, wanted.vm, vm_files.AGENT_SOCKET))
            console = vm_files.open_console(self.instance, wanted.vm)
            held.callback(os.close, console)
            memory = self._memory(wanted)
            tap = self._tap(wanted)
            held.callback(os.close, tap)
            fds = Descriptors(tap, qmp.fileno(), agent.fileno(), console, memory)
            life = self._life(wanted)
            for join in life.cgroups:
                held.callback(os.close, join)
            return give_birth(command_line(self._machine(wanted), fds), fds.all, console, life)

    def _memory(self, wanted: Spawn) -> int:
        """Descriptor of the template's memory that a machine starts with or becomes; -1 for memory of its own."""
        if wanted.template is None:
            return -1
        if wanted.incoming:
            return self.templates.sealed(wanted.template, wanted.memory_mib)
        return self.templates.make(wanted.template, wanted.memory_mib)

    def _tap(self, wanted: Spawn) -> int:
        if self.instance.is_template(wanted.number):
            return taps.open_idle_tap(self.instance, wanted.number)
        tap = self.network.open_tap(wanted.number)
        self.network.admit(wanted.number, wanted.confined)
        return tap

    def _life(self, wanted: Spawn) -> Life:
        threads = THREADS + wanted.vcpus
        # A page that a template never had is made there too by the copy that touches it first, and charged to it.
        shared = wanted.memory_mib if wanted.incoming and wanted.template is not None else 0
        memory = (wanted.memory_mib + shared + OVERHEAD_MIB) << 20
        disk = cgroups.disk_under(self.instance.data)
        shares = TEMPLATE_SHARES if self.instance.is_template(wanted.number) else 100 * wanted.vcpus
        limits = Limits(memory, threads, shares, wanted.vcpus, disk)
        joins = self.cgroups.enter(wanted.number, limits)
        groups = kvm_groups() if wanted.accel is Accel.KVM else ()
        return Life(self.instance.uid(wanted.number), groups, threads, tuple(joins), self.jail)

    def _machine(self, wanted: Spawn) -> Machine:
        return Machine(
            name=wanted.vm, kernel=self.boot.kernel, initrd=self.boot.initrd,
            disk=self.instance.layers / wanted.disk, mac=self.instance.mac(wanted.number),
            vcpus=wanted.vcpus, memory_mib=wanted.memory_mib, init=wanted.init, accel=wanted.accel,
            tsc_khz=self.tsc_khz, incoming=wanted.incoming, waits=wanted.waits,
        )

    def _confine(self, wanted: Confine) -> Reply:
        record = self._record(wanted.vm, wanted.number)
        if record is None or not processes.alive(record):
            return Refused(f"{wanted.vm} does not run")
        self.network.confine(wanted.number, wanted.confined)
        processes.write(self.instance.vm_run(wanted.vm), replace(record, confined=wanted.confined))
        return Done()

    def _kill(self, vm: str, number: int) -> Reply:
        record = self._record(vm, number)
        if record is not None:
            processes.kill(record)
        return Done()

    def _look(self, vm: str, number: int) -> Reply:
        record = self._record(vm, number)
        return Process() if record is None else _process(record)

    def _remove(self, vm: str, number: int) -> Reply:
        record = self._record(vm, number)
        if record is not None and processes.alive(record):
            return Refused(f"{vm} still runs")
        if not self.instance.is_template(number):
            self.network.expel(number)
        self.containers.clean(vm)
        self.cgroups.leave(number)
        vm_files.remove_run(self.instance, vm)
        return Done()

    def _facts(self) -> Reply:
        version = {2: "cgroup v2", 1: "cgroup v1", 0: "no cgroups"}[self.cgroups.version]
        notes = [self.cgroups.why] if self.cgroups.why else []
        listed = subprocess.run(["nft", "-j", "list", "chains"], capture_output=True, timeout=10, check=True)
        notes += blockers.forward_blockers(listed.stdout, self.instance.tap_prefix)
        return HostFacts(version, tuple(notes), self.network.leaks())

    def _record(self, vm: str, number: int) -> Record | None:
        """The record of this VM under this number; one under another number is not the caller's to touch."""
        record = processes.read(self.instance.vm_run(vm))
        return record if record is not None and record.number == number else None

    def _connected(self) -> Iterator[tuple[str, Record]]:
        """The living ones that have a network."""
        yield from ((vm, record) for vm, record in self._living() if not self.instance.is_template(record.number))

    def _living(self) -> Iterator[tuple[str, Record]]:
        for folder in sorted((self.instance.run / "vm").iterdir()):
            record = processes.read(folder)
            if record is not None and processes.alive(record):
                yield folder.name, record


def kvm_groups() -> tuple[int, ...]:
    """Groups through which a VM's uid may open /dev/kvm. Raises PermissionError when there is no such way."""
    seen = _KVM.stat()
    if seen.st_mode & stat.S_IWOTH:
        return ()
    if seen.st_mode & stat.S_IWGRP and seen.st_gid != 0:
        return (seen.st_gid,)
    raise PermissionError("/dev/kvm is open to root only: give it to a group (chgrp kvm /dev/kvm; chmod 660 /dev/kvm)")


def _process(record: Record) -> Process:
    return Process(record.pid, record.started, processes.alive(record), record.exit)


def _last_line(words: str | None) -> str:
    lines = [line.strip() for line in (words or "").splitlines() if line.strip()]
    return lines[0] if lines else "failed without a word"
