"""Root's side of containers: runc on layers that only the container sees, behind the same rules as a VM's tap."""
from __future__ import annotations

import ctypes
import json
import os
import resource
import subprocess
from collections.abc import Iterator, MutableMapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from ussycode.runtime.instance import Instance
from ussycode.runtime.net import veths
from ussycode.runtime.privileged import container_disks, container_mounts, image_bases, processes, vm_files
from ussycode.runtime.privileged.cgroups import Cgroups, Limits, disk_under
from ussycode.runtime.privileged.container_bundle import OPEN_FILES, PIDS, Container, config
from ussycode.runtime.privileged.container_disks import Base
from ussycode.runtime.privileged.container_mounts import Layers
from ussycode.runtime.privileged.image_bases import base_disk
from ussycode.runtime.privileged.network import Network
from ussycode.runtime.privileged.processes import Record
from ussycode.runtime.privileged.protocol import (
    ContainerDisk,
    ContainerDrop,
    ContainerForget,
    ContainerGrow,
    ContainerKeep,
    ContainerMake,
    ContainerRename,
    ContainerRun,
    ContainerVerb,
    Disk,
    Done,
    Grown,
    Kept,
    Process,
    Refused,
    Reply,
)

FILL_SECONDS = 600.0
"""Time to check and grow the disk of a container that does not run: aside, where nobody else waits for it."""
RUNC_SECONDS = 20.0
"""Time one call of runc may take; creating takes about 0.1 s."""
_PR_SET_CHILD_SUBREAPER = 36
_CLONE_NEWUTS = 0x04000000
_SORTING = ("cgroup.procs", "cgroup.threads", "cgroup.subtree_control", "tasks")
"""Files through which processes are moved between groups."""
_FIRST_PASSED = 3
"""Number of the first descriptor that runc hands on."""
_libc = ctypes.CDLL(None, use_errno=True)


class Child(Protocol):
    """A process that the helper must reap; `subprocess.Popen` is one."""

    pid: int
    returncode: int | None

    def poll(self) -> int | None:
        """Its exit status once it has ended, minus the signal when one ended it."""
        ...


@dataclass
class Orphan:
    """A container's first process: runc made it and ended, so it became the helper's child."""

    pid: int
    returncode: int | None = None

    def poll(self) -> int | None:
        """As for any child; 0 when somebody else reaped it."""
        with suppress(ChildProcessError):
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            self.returncode = os.waitstatus_to_exitcode(status) if pid else self.returncode
        return self.returncode


@dataclass(frozen=True)
class Containers:
    """The verbs on containers of one instance; all are refused unless the operator enabled them."""

    instance: Instance
    cgroups: Cgroups
    network: Network
    guest: Path
    enabled: bool
    children: MutableMapping[str, Child]

    def do(self, request: ContainerVerb) -> Reply:
        """Carry out one request. Raises OSError and CalledProcessError, which the helper puts into words."""
        if not self.enabled:
            return Refused("containers are not enabled on this node")
        match request:
            case ContainerRun():
                return self._run(request)
            case ContainerMake():
                return self._make(request)
            case ContainerRename(vm, number, hostname):
                return self._rename(vm, number, hostname)
            case ContainerGrow(vm, number, gib):
                return self._grow(vm, number, gib)
            case ContainerKeep():
                return self._keep(request)
            case ContainerDrop(vm, snapshot):
                container_disks.snapshot(self.instance, vm, snapshot).unlink(missing_ok=True)
                return Done()
            case ContainerForget(vm, number, snapshots):
                return self._forget(vm, number, snapshots)
            case ContainerDisk(vm):
                return self._disk(vm)

    def clean(self, vm: str) -> None:
        """Remove what runc keeps of a container that ended: its state and its cgroups. Idempotent."""
        if (self.instance.vm_run(vm) / "runc").exists():
            self._runc(vm, "delete", "--force", vm)

    def clear(self) -> None:
        """Remove the folders that runc's cgroups left behind, in every hierarchy of the host. Idempotent."""
        for folder in (*self.cgroups.root.glob(f"*/{self.cgroups.name}"), self.cgroups.root / self.cgroups.name):
            with suppress(OSError):
                folder.rmdir()

    def _make(self, wanted: ContainerMake) -> Reply:
        base = Base(wanted.image, wanted.digest)
        image_bases.sweep(self.instance)
        base_disk(self.instance, base)  # refuses now what could not be mounted later
        if wanted.source is None:
            container_disks.make(self.instance, wanted.vm, wanted.disk_gib, base, None)
            return Done()
        source = self.instance.container(wanted.source) / container_disks.DISK
        if wanted.snapshot is not None:
            source = container_disks.snapshot(self.instance, wanted.source, wanted.snapshot)
        below = container_disks.base_of(self.instance, wanted.source)
        with self._still(wanted.source, wanted.source_number):
            container_disks.make(self.instance, wanted.vm, wanted.disk_gib, below, source)
        return Done()

    def _run(self, wanted: ContainerRun) -> Reply:
        running = self._record(wanted.vm, wanted.number)
        if running is not None and processes.alive(running):
            return Process(running.pid, running.started, True)
        base = base_disk(self.instance, container_disks.base_of(self.instance, wanted.vm))
        run = vm_files.make_run(self.instance, wanted.vm)
        self.clean(wanted.vm)
        layers = self._bundle(run, base, wanted)
        _libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
        self._limit(wanted)
        self._create(wanted, layers)
        pid = int((run / "pid").read_text())
        self.children[wanted.vm] = Orphan(pid)
        uid = self.instance.container_uids(wanted.number)
        record = Record(pid, processes.start_time(pid) or 0, wanted.number, uid, confined=wanted.confined)
        processes.write(run, record)
        self._give_systemd_its_cgroups(wanted.number, uid)
        veths.connect(self.instance, wanted.number, pid, ipv6=self.network.ipv6)
        self.network.admit(wanted.number, wanted.confined)
        self._runc(wanted.vm, "start", wanted.vm)
        return Process(record.pid, record.started, True)

    def _limit(self, wanted: ContainerRun) -> None:
        """The ceilings of a VM of this size, in groups that runc then joins."""
        memory, disk = wanted.memory_mib << 20, disk_under(self.instance.data)
        for group in self.cgroups.enter(wanted.number, Limits(memory, PIDS, 100 * wanted.vcpus, wanted.vcpus, disk)):
            os.close(group)

    def _give_systemd_its_cgroups(self, number: int, uid: int) -> None:
        """On cgroup v1, where runc gives away nothing: the two hierarchies without controllers, for sorting alone."""
        for hierarchy in ("systemd", "unified"):
            folder = self.cgroups.root / hierarchy / self.cgroups.name / f"vm-{number}"
            for path in (folder, *(folder / name for name in _SORTING)):
                if path.exists():
                    os.chown(path, uid, uid)

    def _bundle(self, run: Path, base: Path, wanted: ContainerRun) -> Layers:
        bundle = run / "bundle"
        place = run / "layers"
        for folder in (bundle / "rootfs", place / "image", place / "disk"):
            folder.mkdir(parents=True, exist_ok=True)
        box = Container(
            hostname=wanted.hostname, guest=self.guest, init=wanted.init,
            uids=self.instance.container_uids(wanted.number), vcpus=wanted.vcpus, memory_mib=wanted.memory_mib,
            cgroup=f"/{self.cgroups.name}/vm-{wanted.number}",
            unified=self.cgroups.version == 1 and (self.cgroups.root / "unified" / "cgroup.procs").exists(),
        )
        (bundle / "config.json").write_text(json.dumps(config(box)))
        disk = self.instance.container(wanted.vm) / container_disks.DISK
        return Layers(base, disk, place, bundle / "rootfs", box.uids)

    def _create(self, wanted: ContainerRun, layers: Layers) -> None:
        run = self.instance.vm_run(wanted.vm)
        with ExitStack() as held:
            hosts = held.enter_context(vm_files.listen(self.instance, wanted.vm, vm_files.AGENT_SOCKET))
            console = vm_files.open_console(self.instance, wanted.vm)
            held.callback(os.close, console)
            space = held.enter_context(
                container_mounts.user_namespace(self.instance.container_uids(wanted.number)))
            complaint = held.enter_context((run / "mounts.log").open("wb"))
            words = self._words(wanted.vm, "create", "--bundle", str(run / "bundle"), "--pid-file", str(run / "pid"),
                                "--preserve-fds", "1", wanted.vm)

            def enter() -> None:
                try:
                    # nothing of Popen's own lies there: the socket, opened before, took the lowest free number
                    os.dup2(hosts.fileno(), _FIRST_PASSED)
                    # runc has no right to set these once it is inside the user namespace
                    most = min(OPEN_FILES, resource.getrlimit(resource.RLIMIT_NOFILE)[1])
                    resource.setrlimit(resource.RLIMIT_NOFILE, (min(1024, most), most))
                    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
                    container_mounts.enter(layers, space)
                except (OSError, subprocess.SubprocessError) as error:
                    os.write(complaint.fileno(), str(error).encode())
                    raise

            # The helper has one thread, so running Python between fork and exec is safe here.
            try:
                done = subprocess.run(
                    words, cwd="/", stdin=subprocess.DEVNULL, stdout=console, stderr=console, preexec_fn=enter,
                    pass_fds=(_FIRST_PASSED,), timeout=RUNC_SECONDS, check=False,
                )
            except subprocess.SubprocessError:
                raise OSError(_last_words(run)) from None
            if done.returncode:
                raise OSError(_last_words(run))

    def _words(self, vm: str, *verb: str) -> list[str]:
        run = self.instance.vm_run(vm)
        return ["runc", "--root", str(run / "runc"), "--log", str(run / "runc.log"), *verb]

    def _runc(self, vm: str, *verb: str) -> None:
        done = subprocess.run(
            self._words(vm, *verb), capture_output=True, text=True, timeout=RUNC_SECONDS, check=False,
        )
        if done.returncode:
            raise OSError(f"runc {verb[0]}: {done.stderr.strip()[-300:]}")

    @contextmanager
    def _still(self, vm: str, number: int | None) -> Iterator[None]:
        """Hold a running container still, with everything it wrote on its disk."""
        record = None if number is None else self._record(vm, number)
        if record is None or not processes.alive(record):
            yield
            return
        self._runc(vm, "pause", vm)
        try:
            root = os.open(f"/proc/{record.pid}/root", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                _check(_libc.syncfs(root), "syncfs")
            finally:
                os.close(root)
            yield
        finally:
            self._runc(vm, "resume", vm)

    def _rename(self, vm: str, number: int, hostname: str) -> Reply:
        record = self._record(vm, number)
        if record is None or not processes.alive(record):
            return Refused(f"{vm} does not run")
        own = os.open("/proc/self/ns/uts", os.O_RDONLY | os.O_CLOEXEC)
        theirs = os.open(f"/proc/{record.pid}/ns/uts", os.O_RDONLY | os.O_CLOEXEC)
        try:
            _check(_libc.setns(theirs, _CLONE_NEWUTS), "setns")
            try:
                _check(_libc.sethostname(hostname.encode(), len(hostname)), "sethostname")
            finally:
                _check(_libc.setns(own, _CLONE_NEWUTS), "setns")
        finally:
            os.close(own)
            os.close(theirs)
        return Done()

    def _grow(self, vm: str, number: int, gib: int) -> Reply:
        disk = container_disks.enlarge(self.instance, vm, gib)
        record = self._record(vm, number)
        running = record is not None and processes.alive(record)
        if not running:
            container_mounts.fill(disk, FILL_SECONDS)
            return Grown(True)
        return Grown(container_mounts.grow_mounted(disk, self.instance.vm_run(vm) / "layers" / "disk"))

    def _keep(self, wanted: ContainerKeep) -> Reply:
        kept = container_disks.snapshot(self.instance, wanted.vm, wanted.snapshot)
        if kept.exists():
            return Done()
        draft = kept.with_suffix(f".draft-{os.getpid()}")
        with self._still(wanted.vm, wanted.number):
            container_disks.copy(self.instance.container(wanted.vm) / container_disks.DISK, draft)
        draft.replace(kept)
        return Done()

    def _forget(self, vm: str, number: int, snapshots: bool) -> Reply:
        record = processes.read(self.instance.vm_run(vm))
        if record is not None and processes.alive(record):
            return Refused(f"{vm} still runs")
        if snapshots:
            container_disks.forget(self.instance, vm)
            image_bases.sweep(self.instance)
        else:
            (self.instance.container(vm) / container_disks.DISK).unlink(missing_ok=True)
        return Done()

    def _wake_forsaken(self, vm: str) -> None:
        """Let a container go on that was held still for a copy whose process was killed."""
        copying = any(name.startswith("aside-") for name in self.children)
        record = processes.read(self.instance.vm_run(vm))
        if not copying and record is not None and processes.alive(record) and self._frozen(record.number):
            self._runc(vm, "resume", vm)

    def _frozen(self, number: int) -> bool:
        name, root = f"{self.cgroups.name}/vm-{number}", self.cgroups.root
        states = ((root / "freezer" / name / "freezer.state", "THAWED"), (root / name / "cgroup.freeze", "0"))
        return any(path.exists() and path.read_text().strip() != usual for path, usual in states)

    def _disk(self, vm: str) -> Reply:
        self._wake_forsaken(vm)
        found = container_disks.snapshots(self.instance, vm)
        kept = tuple(Kept(name, seen.st_mtime, seen.st_blocks * 512) for name, seen in found.items())
        try:
            disk = (self.instance.container(vm) / container_disks.DISK).stat()
        except FileNotFoundError:
            return Disk(-1, sum(one.size for one in kept), kept)
        return Disk(disk.st_size, disk.st_blocks * 512 + sum(one.size for one in kept), kept)

    def _record(self, vm: str, number: int) -> Record | None:
        record = processes.read(self.instance.vm_run(vm))
        return record if record is not None and record.number == number else None


def _last_words(run: Path) -> str:
    """Why runc, or the mounts before it, failed."""
    for name in ("mounts.log", "runc.log"):
        with suppress(OSError):
            lines = (run / name).read_text(errors="replace").strip().splitlines()
            if lines:
                return lines[-1][-300:]
    return "runc failed without a word"


def _check(result: int, what: str) -> None:
    if result < 0:
        error = ctypes.get_errno()
        raise OSError(error, f"{what}: {os.strerror(error)}")
