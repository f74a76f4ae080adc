"""One container on this node: its verbs, and the task that watches it from start to end."""
from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

import msgspec
import structlog

from ussycode.base.clock import Clock
from ussycode.base.errors import Failure
from ussycode.runtime.driver import Egress, Phase, Sample, Seen, Snapshot, Want
from ussycode.runtime.drivers.container.saved import Saved, save
from ussycode.runtime.drivers.qemu import console, endings
from ussycode.runtime.drivers.qemu.process import Watch
from ussycode.runtime.drivers.qemu.saved import forget
from ussycode.runtime.guest import host_keys
from ussycode.runtime.guest.channel import ControlChannel, Port
from ussycode.runtime.guest.identity import Identity
from ussycode.runtime.guest.streams import GuestAddress
from ussycode.runtime.instance import Instance
from ussycode.runtime.privileged import processes, vm_files
from ussycode.runtime.privileged.container_client import ContainerClient
from ussycode.runtime.privileged.processes import Record
from ussycode.runtime.privileged.protocol import ContainerMake, ContainerRun, Disk

SHUTDOWN_SECONDS = 10.0
"""Time a container gets to end by itself before it is killed."""
GRACE_SECONDS = 8
KILL_SECONDS = 5.0
CONFIGURE_SECONDS = 10.0
MAX_RESETS, RESET_WINDOW = 3, 120.0
"""Restarts of its own that a container may make, each within so many seconds."""
GROWS_LATER = "its larger disk is there after a restart"
_REASONS = {-1: "guest-reset", -2: "guest-shutdown"}
"""How the kernel ends the first process of a container that called reboot(2): SIGHUP or SIGINT."""
_log = structlog.get_logger("ussycode.container")


@dataclass(frozen=True)
class Host:
    """What all containers of a node share. `boot_timeout` in seconds."""

    instance: Instance
    helper: ContainerClient
    clock: Clock
    boot_timeout: float
    changed: Callable[[], None]


@dataclass
class Box:
    """The state of one container and the only code that changes it. Verbs of one container never overlap."""

    host: Host
    saved: Saved
    notice: str = ""
    disk: Disk = field(default_factory=lambda: Disk(-1, 0, ()))
    verbs: asyncio.Lock = field(default_factory=asyncio.Lock)
    _life: asyncio.Task[None] | None = None
    _watch: Watch | None = None
    _channel: ControlChannel | None = None
    _record: Record | None = None
    _ending: bool = False

    @property
    def folder(self) -> Path:
        """DATA/vms/ID."""
        return self.host.instance.vm_data(self.saved.want.vm)

    def seen(self) -> Seen:
        """What the node reports of this container."""
        console.trim(self.folder / vm_files.CONSOLE)
        saved, running = self.saved, self.saved.phase is Phase.RUNNING
        return Seen(
            vm=saved.want.vm, phase=saved.phase, boot=saved.boot, detail=saved.detail, console=saved.console,
            address=self.host.instance.address(saved.want.number) if running else "",
            login_user=saved.login_user, default_port=saved.default_port,
            pid=self._record.pid if self._record is not None else 0,
            disk_turn=saved.disk_turn if self.disk.size >= 0 else 0, disk_gib=max(0, self.disk.size) >> 30,
            notice=self.notice, snapshots=tuple(Snapshot(one.id, one.created, one.size) for one in self.disk.snapshots),
        )

    def guest_address(self) -> GuestAddress | None:
        """Where streams go; None unless it is running."""
        if self.saved.phase is not Phase.RUNNING:
            return None
        return GuestAddress(self.host.instance.address(self.saved.want.number), self.saved.want.secret)

    def console(self) -> str:
        """The last console lines."""
        return console.last_lines(self.folder / vm_files.CONSOLE)

    async def prepare(self, want: Want, made: ContainerMake) -> None:
        """Make the disk, anew when its turn is over. Raises the helper's refusal."""
        if 0 < self.saved.disk_turn < want.disk_turn:
            await self.stop()
            await self.host.helper.forget(want.vm, want.number, snapshots=False)
        await self.host.helper.make(made)
        fresh = self.saved.phase is Phase.ABSENT
        self._become(Phase.PREPARED if fresh else self.saved.phase, want=want, disk_turn=want.disk_turn)
        await self.look_at_disk()

    async def look_at_disk(self) -> None:
        """Ask root, to whom the disk belongs, what is there of it."""
        self.disk = await self.host.helper.disk(self.saved.want.vm)

    def start(self, want: Want) -> None:
        """Start in the background. A boot that is under way already, or over, is not begun again."""
        if self._life is not None or self.saved.boot >= want.boot:
            return
        self._ending, self.notice = False, ""
        self._become(Phase.STARTING, want=want, boot=want.boot, detail="", console="")
        self._life = asyncio.create_task(self._live(None))

    def adopt(self) -> None:
        """Take up where an earlier process of control left off, from the record and the saved state alone."""
        record = processes.read(self.host.instance.vm_run(self.saved.want.vm))
        if record is not None and processes.alive(record):
            self._record = record
            self._life = asyncio.create_task(self._live(record))
        elif self.saved.phase in (Phase.STARTING, Phase.RUNNING):
            ending = endings.unwatched(record)
            if record is not None and record.exit in _REASONS:
                ending = endings.watched(True, _REASONS[record.exit], record.exit)
            lost = ending.phase in (Phase.PREPARED, Phase.STARTING)
            self._become(Phase.PREPARED if lost else ending.phase, boot=0 if lost else self.saved.boot,
                         detail=ending.detail, console=self.console() if ending.phase is Phase.FAILED else "")

    async def stop(self) -> None:
        """Shut down within SHUTDOWN_SECONDS, else kill. STOPPED when it returns."""
        self._ending = True
        if self._life is not None:
            await self._ask_to_shut_down()
            await self._end()
        self._become(Phase.STOPPED, boot=0, detail="", console="")

    async def destroy(self) -> None:
        """End it without ceremony and remove every trace."""
        self._ending = True
        if self._life is not None:
            await self._end()
        want = self.saved.want
        await self.host.helper.remove_traces(want.vm, want.number)
        await self.host.helper.forget(want.vm, want.number)
        forget(self.folder)

    async def update(self, want: Want) -> None:
        """Tell the running container its new name and keys when they differ from what it was told."""
        told = self.saved.want
        if told.egress is not want.egress and self._record is not None:
            await self.host.helper.confine(want.vm, want.number, want.egress is Egress.INTEGRATIONS)
            told = replace(told, egress=want.egress)
            self._become(self.saved.phase, want=told)
        if (told.name, told.authorized_keys) == (want.name, want.authorized_keys) or self._channel is None:
            return
        if told.name == want.name:
            await self._channel.set_authorized_keys(want.authorized_keys)
        else:
            await self.host.helper.rename(want.vm, want.number, want.name)
            await self._channel.configure(self._identity(want), timeout=CONFIGURE_SECONDS)
        self._become(self.saved.phase, want=want)

    async def leave(self) -> None:
        """Stop watching; the container goes on running."""
        self._ending = True
        if self._life is not None:
            self._life.cancel()
            await asyncio.gather(self._life, return_exceptions=True)
            self._life = None

    async def grow(self, want: Want) -> None:
        """Make the disk larger, running or not."""
        grown = await self.host.helper.grow(want.vm, want.number, want.disk_gib)
        self.notice = "" if grown else GROWS_LATER
        await self.look_at_disk()

    async def keep_snapshots(self, want: Want) -> None:
        """Take what is missing, remove what is dropped."""
        for name in want.snapshots:
            await self.host.helper.keep(want.vm, want.number, name)
        for name in want.dropped:
            await self.host.helper.drop(want.vm, name)
        await self.look_at_disk()

    async def listening(self) -> Sequence[Port] | None:
        """What listens in it; None when it does not run or does not say."""
        return None if self._channel is None else await self._channel.listening()

    async def sample(self) -> Sample | None:
        """What it uses now; its memory is counted by the host, its file system by the container."""
        channel, want = self._channel, self.saved.want
        if self.saved.phase is not Phase.RUNNING or channel is None:
            return None
        used, said = await self.host.helper.usage(want.vm, want.number), await channel.stats()
        await self.look_at_disk()
        tap = Path("/sys/class/net") / self.host.instance.tap(want.number) / "statistics"
        return Sample(
            cpu_seconds=used.cpu_ns / 1e9 if used.cpu_ns >= 0 else -1.0, memory_used=used.memory,
            memory_total=want.memory_mib << 20, disk_allocated=self.disk.allocated, fs_total=said.disk_total,
            fs_free=said.disk_free, net_rx=_counted(tap / "tx_bytes"), net_tx=_counted(tap / "rx_bytes"),
            io_read=-1, io_write=-1,
        )

    async def _ask_to_shut_down(self) -> None:
        with suppress(Failure, TimeoutError):
            async with asyncio.timeout(KILL_SECONDS):
                if self._channel is None or self._watch is None:
                    return
                await self._channel.ready(KILL_SECONDS)
                await self._channel.shutdown(grace=GRACE_SECONDS)
            await self._watch.ended_within(SHUTDOWN_SECONDS)

    async def _end(self) -> None:
        """Kill; returns when the life task has ended."""
        assert self._life is not None
        if self._watch is None:  # it is being started just now
            self._life.cancel()
        else:
            await self.host.helper.kill(self.saved.want.vm, self.saved.want.number)
        await asyncio.gather(self._life, return_exceptions=True)
        self._life = None
        await self._clear_away()

    async def _clear_away(self) -> None:
        """Kill what may still run and remove root's traces of it; the disk stays."""
        want = self.saved.want
        record = processes.read(self.host.instance.vm_run(want.vm))
        if record is not None:
            with Watch(record) as watch:
                await self.host.helper.kill(want.vm, want.number)
                await watch.ended_within(KILL_SECONDS)
        await self.host.helper.remove_traces(want.vm, want.number)

    async def _live(self, record: Record | None) -> None:
        """From start (or adoption) to the end. The outermost frame: whatever goes wrong, it gets an ending."""
        try:
            ending = await self._through_resets(record)
        except Failure as failure:
            ending = endings.Ending(Phase.FAILED, failure.sentence)
        except Exception:
            _log.exception("the watch over a container broke", vm=self.saved.want.vm)
            ending = endings.BROKEN
        if self._ending:
            return  # the verb that ends it says what it became
        with suppress(Failure):
            await self._clear_away()
        self._life = None
        self._become(ending.phase, detail=ending.detail,
                     console=self.console() if ending.phase is Phase.FAILED else "")

    async def _through_resets(self, record: Record | None) -> endings.Ending:
        """One boot after the other while the guest asks to be started again, unless it does so too fast."""
        resets = 0
        while True:
            born = self.host.clock.now()
            ending = await self._one_boot(record)
            if ending.phase is not Phase.STARTING or self._ending:
                return ending
            with suppress(Failure):
                await self._clear_away()
            resets = resets + 1 if self.host.clock.now() - born < RESET_WINDOW else 1
            if resets > MAX_RESETS:
                return endings.TOO_MANY_RESETS
            record = None
            self._become(Phase.STARTING)

    async def _one_boot(self, record: Record | None) -> endings.Ending:
        record = record or await self._spawn()
        channel = ControlChannel(self.host.instance.vm_run(self.saved.want.vm) / vm_files.AGENT_SOCKET, self.host.clock)
        with Watch(record) as watch:
            self._record, self._watch, self._channel = record, watch, channel
            channel.start()
            try:
                return await self._watch_over(watch, channel)
            finally:
                await channel.close()
                self._record = self._watch = self._channel = None

    async def _spawn(self) -> Record:
        """Ask the helper for the container. Cannot be cut off half way: none that nobody knows must arise."""
        want = self.saved.want
        asked = asyncio.ensure_future(self.host.helper.run(ContainerRun(
            want.vm, want.number, want.vcpus, want.memory_mib, self.saved.init, want.name,
            confined=want.egress is Egress.INTEGRATIONS,
        )))
        try:
            process = await asyncio.shield(asked)
        except asyncio.CancelledError:
            await asyncio.gather(asked, return_exceptions=True)
            raise
        _log.info("started", vm=want.vm, pid=process.pid, boot=self.saved.boot)
        uid = self.host.instance.container_uids(want.number)
        return Record(process.pid, process.started, want.number, uid)

    async def _watch_over(self, watch: Watch, channel: ControlChannel) -> endings.Ending:
        booted = await self._until_it_answers(watch, channel)
        if not booted and not watch.over.is_set() and not self._ending:
            await self.host.helper.kill(self.saved.want.vm, self.saved.want.number)
            await watch.ended_within(KILL_SECONDS)
            return endings.silent(self.host.boot_timeout)
        await watch.over.wait()
        status = await self._exit_status()
        return endings.watched(booted, _REASONS.get(status or 0, ""), status)

    async def _exit_status(self) -> int | None:
        with suppress(Failure):
            return (await self.host.helper.look(self.saved.want.vm, self.saved.want.number)).exit
        return None

    async def _until_it_answers(self, watch: Watch, channel: ControlChannel) -> bool:
        """Configure the guest and say so; False when it ended or stayed silent for the boot timeout."""
        if self.saved.phase is Phase.RUNNING:  # adopted: it was configured by the process before us
            return True
        answered = asyncio.create_task(self._configure(channel))
        ended = asyncio.create_task(watch.over.wait())
        try:
            await asyncio.wait({answered, ended}, return_when=asyncio.FIRST_COMPLETED)
            if not answered.done() or not answered.result():
                return False
        finally:
            for task in (answered, ended):
                task.cancel()
            await asyncio.gather(answered, ended, return_exceptions=True)
        self._become(Phase.RUNNING, anew=False)
        return True

    async def _configure(self, channel: ControlChannel) -> bool:
        try:
            async with asyncio.timeout(self.host.boot_timeout):
                while True:
                    await channel.ready(self.host.boot_timeout)
                    with suppress(Failure):  # a connection lost half way through is made again
                        await channel.configure(self._identity(self.saved.want), timeout=CONFIGURE_SECONDS)
                        return True
        except (TimeoutError, Failure):
            return False

    def _identity(self, want: Want) -> Identity:
        return Identity(
            hostname=want.name, address=self.host.instance.address(want.number), secret=want.secret,
            machine_id=hashlib.sha256(want.vm.encode()).hexdigest()[:32], login_user=self.saved.login_user,
            service=self.saved.service.commanded(want.command),
            env=want.env, authorized_keys=want.authorized_keys, grow=False, anew=self.saved.anew,
            host_keys=host_keys.fresh() if self.saved.anew else (),
        )

    def _become(
        self, phase: Phase, *, want: Want | None = None, boot: int | None = None, detail: str | None = None,
        console: str | None = None, disk_turn: int | None = None, anew: bool | None = None,
    ) -> None:
        """Change the state, on disk first, and let the loop know when others would see a difference."""
        before = self.saved
        given = {"want": want, "boot": boot, "detail": detail, "console": console, "disk_turn": disk_turn,
                 "anew": anew}
        changes: dict[str, object] = {name: value for name, value in given.items() if value is not None}
        after = msgspec.structs.replace(before, phase=phase, **changes)
        if after == before:
            return
        save(self.folder, after)
        self.saved = after
        if (after.phase, after.boot, after.detail) != (before.phase, before.boot, before.detail):
            _log.info("phase", vm=after.want.vm, phase=after.phase.value, boot=after.boot, detail=after.detail)
            self.host.changed()


def _counted(file: Path) -> int:
    """A counter of the kernel; -1 when its interface is gone."""
    try:
        return int(file.read_text())
    except (OSError, ValueError):
        return -1
