"""One VM on this node: its verbs, and the task that watches its QEMU from spawn to end."""
from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

import msgspec
import structlog

from ussycode.base.clock import Clock
from ussycode.base.errors import Failure
from ussycode.runtime import disks
from ussycode.runtime.driver import Egress, Phase, Sample, Seen, Want
from ussycode.runtime.drivers.qemu import clocks, console, endings, fullness, memory
from ussycode.runtime.drivers.qemu import template as making
from ussycode.runtime.drivers.qemu.live import Running
from ussycode.runtime.drivers.qemu.monitor import Monitor
from ussycode.runtime.drivers.qemu.process import Watch
from ussycode.runtime.drivers.qemu.saved import Kept, Saved, Source, forget, save
from ussycode.runtime.drivers.qemu.standby import Standby, unless_ended
from ussycode.runtime.drivers.qemu.storage import Disk, Ground, Layers, allocated
from ussycode.runtime.drivers.qemu.template import Template
from ussycode.runtime.drivers.qemu.templates import Templates
from ussycode.runtime.drivers.qemu.turn import Turn
from ussycode.runtime.guest import execs, held, host_keys
from ussycode.runtime.guest.channel import ControlChannel, Port
from ussycode.runtime.guest.execs import ExecSpec
from ussycode.runtime.guest.identity import Identity
from ussycode.runtime.guest.streams import GuestAddress
from ussycode.runtime.instance import Instance
from ussycode.runtime.net import taps
from ussycode.runtime.privileged import processes, vm_files
from ussycode.runtime.privileged.client import HelperClient
from ussycode.runtime.privileged.processes import Record
from ussycode.runtime.privileged.protocol import Accel

SHUTDOWN_SECONDS = 10.0
"""Time a guest gets to power off by itself before QEMU is told to quit."""
GRACE_SECONDS = 8
"""Time until the guest's agent writes all caches and pulls the plug itself; earlier than we would, without writing."""
CONNECT_LOOK = 0.02
"""Seconds between two looks for the connection to a VM that was adopted just now."""
KILL_SECONDS = 5.0
"""Time between `quit` and SIGKILL, and the longest wait after SIGKILL."""
CONFIGURE_SECONDS = 30.0
FORK_SECONDS = 20.0
"""How long a copy of a template may take to have its identity; far more than it needs, and less than a person waits."""
STEADY_SECONDS = 60.0
"""How long a verb that needs the disk waits for a boot under way."""
MAX_RESETS, RESET_WINDOW = 3, 120.0
"""Restarts of its own that a guest may make, each within so many seconds; a panic must not loop for ever."""
_log = structlog.get_logger("ussycode.vm")


@dataclass(frozen=True)
class Host:
    """What all machines of a node share. `boot_timeout` in seconds; `boots` bounds how many boot at once."""

    instance: Instance
    helper: HelperClient
    accel: Accel
    clock: Clock
    boot_timeout: float
    boots: asyncio.Semaphore
    layers: Layers
    changed: Callable[[], None]
    templates: Templates
    base: Callable[[Saved], Path]
    """The image's disk that a VM was made from."""
    build: str = ""
    """What machines are made of here; memory of another build is not gone on from."""


@dataclass
class Machine:
    """The state of one VM and the only code that changes it. Verbs of one VM never overlap."""

    host: Host
    saved: Saved
    verbs: asyncio.Lock = field(default_factory=asyncio.Lock)
    disk: Disk = field(init=False)
    _told: clocks.Told = field(init=False)
    _life: asyncio.Task[None] | None = None
    _watch: Watch | None = None
    _monitor: Monitor | None = None
    _channel: ControlChannel | None = None
    _record: Record | None = None
    _ending: bool = False
    _copied: Template | None = None
    """What the present start is a copy of."""
    _standby: Standby | None = None
    """Of a spare, until it has an owner."""
    _warnings: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._told = clocks.Told(self.host.clock)
        self.disk = Disk(self.host.layers, lambda: self.saved, self._keep)

    @property
    def folder(self) -> Path:
        """DATA/vms/ID."""
        return self.host.instance.vm_data(self.saved.want.vm)

    def seen(self) -> Seen:
        """What the node reports of this VM."""
        console.trim(self.folder / vm_files.CONSOLE)
        saved, running = self.saved, self.saved.phase is Phase.RUNNING
        return Seen(
            vm=saved.want.vm, phase=saved.phase, boot=saved.boot, detail=saved.detail, console=saved.console,
            address=self.host.instance.address(saved.want.number) if running else "",
            login_user=saved.login_user, default_port=saved.default_port,
            pid=self._record.pid if self._record is not None else 0,
            disk_turn=0 if saved.phase is Phase.ABSENT else saved.disk_turn,
            disk_gib=0 if saved.phase is Phase.ABSENT else saved.disk_gib or saved.want.disk_gib,
            cold=saved.cold, warning="; ".join(filter(None, self._warnings.values())) if running else "",
        )

    def guest_address(self) -> GuestAddress | None:
        """Where streams go; None unless the guest is running."""
        if self.saved.phase is not Phase.RUNNING:
            return None
        return GuestAddress(self.host.instance.address(self.saved.want.number), self.saved.want.secret)

    def console(self) -> str:
        """The last console lines."""
        return console.last_lines(self.folder / vm_files.CONSOLE)

    async def prepare(self, want: Want, base: Path) -> None:
        """Make the disk and give it to the VM's uid. Raises NO_ROOM, DISK_FAILED or the helper's refusal."""
        if self.saved.phase is Phase.ABSENT:
            await self.disk.make(base)
        self._become(Phase.PREPARED if self.saved.phase is Phase.ABSENT else self.saved.phase, want=want)

    async def remake(self, want: Want, ground: Ground, base: Path) -> None:
        """Put a disk made from `ground` in the place of the present one. STOPPED when it returns."""
        await self.stop()
        await self.disk.remake(ground, base, want.disk_turn)
        self._become(Phase.STOPPED, want=want)

    async def freeze(self, gib: int = 0) -> Ground:
        """Seal what the disk holds now, running or not. Raises what `Disk.freeze` does."""
        return await self.disk.freeze(await self._steady(), gib)

    async def keep_snapshots(self, want: Want) -> None:
        """Take the snapshots that are missing, all of the same moment, and forget those that are dropped."""
        missing = [name for name in want.snapshots if name not in {one.id for one in self.saved.snapshots}]
        if missing:
            ground = await self.freeze()
            now = self.host.clock.now()
            taken = (Kept(name, now, ground.chain, ground.gib) for name in missing)
            self._keep(msgspec.structs.replace(self.saved, snapshots=(*self.saved.snapshots, *taken)))
        left = tuple(one for one in self.saved.snapshots if one.id not in want.dropped)
        self._keep(msgspec.structs.replace(self.saved, snapshots=left))

    def stand_on(self, state: Saved) -> None:
        """Note layers that were merged; `state` differs from the present one in nothing else."""
        self._keep(state)

    def start(self, want: Want) -> None:
        """Boot in the background. A boot that is under way already, or over, is not begun again."""
        if self._life is not None or self.saved.boot >= want.boot:
            return
        memory.drop(self.folder)
        fork = self.saved.fresh and bool(self.saved.template)
        self._begin(want, Source.TEMPLATE if fork else self._shortest_boot(want))

    async def stand_by(self) -> bool:
        """Come up as a spare; False when it did not, and is nothing any more."""
        standby = self._standby = Standby()
        fork = self.saved.fresh and bool(self.saved.template)
        self._begin(self.saved.want, Source.TEMPLATE if fork else self._shortest_boot(self.saved.want))
        ready = asyncio.create_task(standby.ready.wait())
        assert self._life is not None
        await asyncio.wait({ready, self._life}, return_when=asyncio.FIRST_COMPLETED)
        ready.cancel()
        return self.stands_by

    @property
    def stands_by(self) -> bool:
        """A spare that can be owned now."""
        there = self._standby is not None and self._standby.ready.is_set() and self._life is not None
        return there and self._watch is not None and not self._watch.over.is_set()

    async def be_owned(self, want: Want) -> None:
        """A spare becomes the VM of `want`, once and for ever. Raises what the helper refuses; it is a spare then."""
        assert self._standby is not None
        if want.egress is Egress.INTEGRATIONS:
            await self.host.helper.confine(want.vm, want.number, True)
        self._keep(msgspec.structs.replace(self.saved, spare=False))
        self._become(Phase.STARTING, want=want, boot=want.boot)
        self._standby.owned.set()

    def _shortest_boot(self, want: Want) -> Source:
        return Source.BOOT if self.host.templates.kernel(want) is None else Source.KERNEL

    def _begin(self, want: Want, source: Source, *, cold: bool = False) -> None:
        self._ending = False
        self._become(Phase.STARTING, want=want, boot=want.boot, detail="", console="", source=source, cold=cold)
        self._life = asyncio.create_task(self._live(None))

    async def pause(self, want: Want) -> None:
        """Write the memory to disk and end QEMU; on failure the guest goes on running. Raises NO_ROOM, PAUSE_FAILED."""
        if self.saved.phase is not Phase.RUNNING:
            return
        channel = await self._connected()
        if channel is None or self._monitor is None:
            raise memory.PAUSE_FAILED(why="it does not answer")
        with suppress(Failure):  # should the memory be lost, the disk is what it is after a short power cut
            await channel.sync()
        try:
            await memory.write(self.folder, self._monitor, want.memory_mib, self._fits)
        except BaseException:
            with suppress(Failure):
                await self._monitor.awaken()
            raise
        self._ending = True
        self._become(Phase.PAUSED, cold=False)
        await self._end()

    async def resume(self, want: Want) -> None:
        """Go on in the background from what `pause` wrote, or boot when that is of no use."""
        if self._life is not None or self.saved.phase is not Phase.PAUSED:
            return
        sound = await asyncio.to_thread(memory.is_sound, self.folder, self._fits)
        if not sound:
            memory.drop(self.folder)
        self._begin(want, Source.MEMORY if sound else self._shortest_boot(want), cold=not sound)

    @property
    def _fits(self) -> str:
        want = self.saved.want
        return f"{self.host.build} {want.vcpus} vcpus {want.memory_mib} MiB"

    def adopt(self) -> None:
        """Take up where an earlier process of control left off, from the record and the saved state alone."""
        record = processes.read(self.host.instance.vm_run(self.saved.want.vm))
        if record is not None and processes.alive(record):
            self._record = record
            self._life = asyncio.create_task(self._take_over(record))
        elif self.saved.phase is Phase.STARTING and self.saved.source is Source.MEMORY:
            self._become(Phase.PAUSED)
        elif self.saved.phase in (Phase.STARTING, Phase.RUNNING):
            ending = endings.unwatched(record)
            self._become(ending.phase, boot=0 if ending.phase is Phase.PREPARED else self.saved.boot,
                         detail=ending.detail, console=self.console() if ending.phase is Phase.FAILED else "")

    async def stop(self) -> None:
        """Shut down within SHUTDOWN_SECONDS, else quit, else kill. STOPPED when it returns."""
        self._ending = True
        if self._life is not None:
            await self._ask_guest_to_shut_down()
            await self._end()
        memory.drop(self.folder)
        self._become(Phase.STOPPED, boot=0, detail="", console="")

    async def destroy(self) -> None:
        """End it without ceremony and remove every trace."""
        self._ending = True
        if self._life is not None:
            await self._end()
        want = self.saved.want
        await self.host.helper.remove_traces(want.vm, want.number)
        forget(self.folder)

    async def update(self, want: Want) -> None:
        """Tell the running guest its new name and keys when they differ from what it was told."""
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
            await self._channel.configure(self._identity(want), timeout=CONFIGURE_SECONDS)
        self._become(self.saved.phase, want=want)

    async def grow(self, want: Want) -> None:
        """Make the disk larger; the guest's root follows at once, or at the next boot. Raises NO_ROOM, DISK_FAILED."""
        if want.disk_gib <= (self.saved.disk_gib or self.saved.want.disk_gib):
            return
        disks.require_room(self.folder)
        live = await self._steady()
        if live is None:
            await self.disk.freeze(None, want.disk_gib)
            return
        await live.monitor.resize(want.disk_gib << 30)
        await live.channel.configure(self._identity(self.saved.want), timeout=CONFIGURE_SECONDS)
        self._keep(msgspec.structs.replace(self.saved, disk_gib=want.disk_gib))

    async def listening(self) -> Sequence[Port] | None:
        """What listens in it; None when it does not run or does not say."""
        return None if self._channel is None else await self._channel.listening()

    async def sample(self) -> Sample | None:
        """What it uses; None unless it runs. Raises the helper's failures."""
        if self.saved.phase is not Phase.RUNNING:
            return None
        want = self.saved.want
        used = await self.host.helper.usage(want.vm, want.number)
        cpu = used.cpu_ns / 1e9 if used.cpu_ns >= 0 else -1
        total, free = await self._filling()
        await self._keep_time()
        net = taps.counted(self.host.instance, want.number)
        moved = (-1, -1) if self._monitor is None else await self._monitor.moved()
        disk = allocated(self.disk.path)
        return Sample(cpu, used.memory, want.memory_mib << 20, disk, total, free, *net, *moved)

    async def _filling(self) -> tuple[int, int]:
        """Size and free bytes of the guest's root as it says, its owner being warned; -1 when it says nothing."""
        if self._channel is None:
            return -1, -1
        try:
            said = await self._channel.stats()
        except Failure:
            return -1, -1
        self._warn("disk", fullness.warning(said.disk_total, said.disk_free))
        return said.disk_total, said.disk_free

    async def _keep_time(self) -> None:
        """Let the guest's clock follow the host's when that was set to another time; its owner is told once."""
        moved = self._told.off()
        self._warn("clock", clocks.sentence(moved) if moved else "")
        if moved and self._channel is not None:
            with suppress(Failure):
                await self._channel.configure(self._identity(self.saved.want), timeout=CONFIGURE_SECONDS)
                self._told.now()

    def _warn(self, about: str, sentence: str) -> None:
        if self._warnings.get(about, "") != sentence:
            self._warnings[about] = sentence
            self.host.changed()

    async def leave(self) -> None:
        """Let go of a VM that goes on running."""
        if self._life is not None:
            self._life.cancel()
            await asyncio.gather(self._life, return_exceptions=True)
            self._life = None

    async def _steady(self) -> Running | None:
        """The running machine, once a boot under way is over; None when nothing runs."""
        try:
            async with asyncio.timeout(STEADY_SECONDS):
                while self._life is not None:
                    if self._monitor is not None and self._channel is not None and self.saved.phase is Phase.RUNNING:
                        return Running(self._monitor, self._channel)
                    await asyncio.sleep(CONNECT_LOOK)
        except TimeoutError:
            raise disks.DISK_FAILED(why="the VM neither comes up nor ends") from None
        return None

    async def _ask_guest_to_shut_down(self) -> None:
        if self.saved.phase is not Phase.RUNNING:
            return
        with suppress(Failure, TimeoutError):
            channel = await self._connected()
            if channel is None or self._watch is None:
                return
            await channel.shutdown(grace=GRACE_SECONDS)
            await self._watch.ended_within(SHUTDOWN_SECONDS)

    async def _connected(self) -> ControlChannel | None:
        """The control channel once the guest speaks on it: a VM adopted just now is still being connected to."""
        async with asyncio.timeout(KILL_SECONDS):
            while self._channel is None and self._life is not None and not self._life.done():  # noqa: ASYNC110
                await asyncio.sleep(CONNECT_LOOK)
            if self._channel is not None:
                await self._channel.ready(KILL_SECONDS)
        return self._channel

    async def _end(self) -> None:
        """Quit, then kill; returns when the life task has ended."""
        assert self._life is not None
        if self._watch is not None:
            await self._quit_or_kill(self._watch)
        else:  # it waits for its turn to boot, or is being spawned just now
            self._life.cancel()
        await asyncio.gather(self._life, return_exceptions=True)
        self._life = None
        await self._clear_away()

    async def _clear_away(self) -> None:
        """Kill what may still run and remove root's traces of it."""
        want = self.saved.want
        record = processes.read(self.host.instance.vm_run(want.vm))
        if record is not None:
            with Watch(record) as watch:
                await self.host.helper.kill(want.vm, want.number)
                await watch.ended_within(KILL_SECONDS)
        await self.host.helper.remove_traces(want.vm, want.number)

    async def _quit_or_kill(self, watch: Watch) -> None:
        if self._monitor is not None and not watch.over.is_set():
            await self._monitor.quit()
            if await watch.ended_within(KILL_SECONDS):
                return
        await self.host.helper.kill(self.saved.want.vm, self.saved.want.number)
        await watch.ended_within(KILL_SECONDS)

    async def _take_over(self, record: Record) -> None:
        """Bring to an end what an earlier process of control had begun with the QEMU of `record`."""
        if self.saved.phase is not Phase.PAUSED and self.saved.source is Source.BOOT:
            await self._live(record)
            return
        with suppress(Failure):  # written down, or not gone on yet: this QEMU holds nothing of its own
            await self._clear_away()
        if self.saved.phase is not Phase.PAUSED:
            await self._live(None)
            return
        self._life = self._record = None
        self.host.changed()

    async def _live(self, record: Record | None) -> None:
        """From spawn (or adoption) to the end. The outermost frame: whatever goes wrong, the VM gets an ending."""
        try:
            ending = await self._through_resets(record)
        except Failure as failure:
            ending = endings.Ending(Phase.FAILED, failure.sentence)
        except Exception:
            _log.exception("the watch over a VM broke", vm=self.saved.want.vm)
            ending = endings.BROKEN
        if self._ending:
            return  # the verb that ends it says what it became
        with suppress(Failure):
            await self._clear_away()
        self._life = None
        text = self.console() if ending.phase is Phase.FAILED else ""
        ending = endings.with_reason(ending, text)
        self._become(ending.phase, detail=ending.detail, console=text)

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
            record = None
            if self._standby is not None:
                return endings.UNCLAIMED
            if ending is endings.UNFIT:
                await self._boot_instead()
                continue
            resets = resets + 1 if self.host.clock.now() - born < RESET_WINDOW else 1
            if resets > MAX_RESETS:
                return endings.TOO_MANY_RESETS
            self._become(Phase.STARTING, source=self._shortest_boot(self.saved.want))

    async def _boot_instead(self) -> None:
        """The memory that was to be gone on from is of no use."""
        source = self.saved.source
        if source is Source.TEMPLATE:
            gib = self.saved.disk_gib or self.saved.want.disk_gib
            await self.disk.remake(Ground((), gib), self.host.base(self.saved), self.saved.disk_turn)
        cold = True if source is Source.MEMORY else None
        instead = Source.BOOT if source is Source.KERNEL else self._shortest_boot(self.saved.want)
        self._become(Phase.STARTING, source=instead, cold=cold)

    async def _one_boot(self, record: Record | None) -> endings.Ending:
        want = self.saved.want
        self._copied = self._what_to_copy()
        if self._copied is None and self.saved.source in (Source.TEMPLATE, Source.KERNEL):
            return endings.UNFIT
        async with Turn(self.host.boots, waits=self.saved.phase is Phase.STARTING) as turn:
            adopted = record is not None
            record = record or await self._spawn_if_fit()
            if record is None:
                return endings.UNFIT
            run = self.host.instance.vm_run(want.vm)
            with Watch(record) as watch:
                self._record, self._watch = record, watch
                try:
                    async with Monitor(run / vm_files.QMP_SOCKET) as self._monitor:
                        if not await self._goes_on(watch, self._monitor, adopted=adopted):
                            return endings.UNFIT
                        return await self._talk(run, watch, self._monitor, turn)
                finally:
                    self._record = self._watch = self._monitor = None

    async def _talk(self, run: Path, watch: Watch, monitor: Monitor, turn: Turn) -> endings.Ending:
        self._channel = ControlChannel(run / vm_files.AGENT_SOCKET, self.host.clock)
        self._channel.start()
        try:
            return await self._watch_over(watch, monitor, self._channel, turn)
        finally:
            await self._channel.close()
            self._channel = None

    def _what_to_copy(self) -> Template | None:
        """The template of this start; None without one, or when it is of no use.

        A copy of a whole system starts on an untouched disk: what a start that was cut off left there does not fit
        its memory. A kernel fits every disk.
        """
        templates, found = self.host.templates, None
        if self.saved.source is Source.KERNEL:
            found = templates.kernel(self.saved.want)
        elif self.saved.source is Source.TEMPLATE and self.saved.fresh:
            return templates.ready(self.saved.template)
        return templates.ready(found.id) if found is not None else None

    async def _spawn_if_fit(self) -> Record | None:
        """The process; None when there is none because the helper has not got the template any more."""
        try:
            return await self._spawn()
        except Failure as failure:
            if self._copied is None:
                raise
            _log.warning("no copy of a template", vm=self.saved.want.vm, why=failure.sentence)
            await self._blame_template()
            return None

    async def _spawn(self) -> Record:
        """Ask the helper for the process. Cannot be cut off half way: a QEMU that nobody knows must not arise."""
        await self.disk.ready()
        want, saved = self.saved.want, self.saved
        copied = self._copied
        asked = asyncio.ensure_future(self.host.helper.spawn(
            want.vm, want.number, want.vcpus, want.memory_mib, saved.init, self.host.accel, saved.top,
            confined=want.egress is Egress.INTEGRATIONS, incoming=saved.source is not Source.BOOT,
            template=copied.id if copied is not None else None,
        ))
        try:
            process = await asyncio.shield(asked)
        except asyncio.CancelledError:
            await asyncio.gather(asked, return_exceptions=True)
            raise
        _log.info("spawned", vm=want.vm, pid=process.pid, boot=saved.boot)
        return Record(process.pid, process.started, want.number, self.host.instance.uid(want.number))

    async def _goes_on(self, watch: Watch, monitor: Monitor, *, adopted: bool) -> bool:
        """Let a guest run on from its memory; True at once for one that boots. False: the memory is of no use."""
        if adopted and monitor.connected:
            memory.drop(self.folder)  # of a pause that was cut off: the guest goes on instead
            with suppress(Failure):
                await monitor.awaken()
        if self.saved.source is Source.BOOT:
            return True
        if not await unless_ended(watch, self._loaded(monitor)):
            _log.warning("memory is of no use", vm=self.saved.want.vm, source=self.saved.source.value)
            memory.drop(self.folder)
            await self._quit_or_kill(watch)
            await self._blame_template()
            return False
        if self.saved.source is Source.TEMPLATE:
            return True
        if self.saved.source is Source.KERNEL:
            self._praise_template()
            self._become(Phase.STARTING, source=Source.BOOT)
            return True
        memory.give_up(self.folder)
        self._become(Phase.STARTING, source=Source.BOOT)
        with suppress(Failure):
            await monitor.awaken()
        return True

    async def _loaded(self, monitor: Monitor) -> bool:
        if self._copied is not None:
            return await self._runs_as_copy(monitor, self._copied)
        try:
            with (self.folder / memory.FILE).open("rb") as file:
                return await monitor.load(file.fileno())
        except (OSError, Failure):
            return False

    async def _blame_template(self) -> None:
        if self._copied is not None and not self._ending:
            await self.host.templates.failed(self._copied.id)

    def _praise_template(self) -> None:
        if self._copied is not None:
            self.host.templates.succeeded(self._copied.id)

    async def _runs_as_copy(self, monitor: Monitor, template: Template) -> bool:
        """Let a copy of the template run, nobody's yet; a kernel is told what to go on with."""
        try:
            with os.fdopen(making.open_state(self.host.templates.state(template)), "rb") as file:
                loaded = await monitor.load(file.fileno(), shared=True)
            if not loaded:
                return False
            whole = self.saved.source is Source.TEMPLATE
            if whole and self.saved.disk_gib > template.gib:
                await monitor.resize(self.saved.disk_gib << 30)
            await monitor.go_on()
            if not whole:
                port = self.host.instance.vm_run(self.saved.want.vm) / vm_files.AGENT_SOCKET
                await held.wait(port, FORK_SECONDS, self.saved.init)
        except (OSError, Failure):
            return False
        return True

    async def _watch_over(
        self, watch: Watch, monitor: Monitor, channel: ControlChannel, turn: Turn
    ) -> endings.Ending:
        fork = self.saved.source is Source.TEMPLATE
        if self._standby is not None and not await self._until_owned(self._standby, watch, monitor, channel, turn):
            await self._quit_or_kill(watch)
            return endings.UNFIT
        booted = await self._until_it_answers(watch, channel, FORK_SECONDS if fork else self.host.boot_timeout)
        turn.over()
        if fork and not booted and not self._ending:
            await self._quit_or_kill(watch)
            await self._blame_template()
            return endings.UNFIT
        if fork and booted:
            self._praise_template()
        if not booted and not watch.over.is_set() and not self._ending:
            await self._quit_or_kill(watch)
            return endings.silent(self.host.boot_timeout)
        full = asyncio.create_task(self._watch_room(monitor))
        try:
            await watch.over.wait()
        finally:
            full.cancel()
            await asyncio.gather(full, return_exceptions=True)
            self._warnings.clear()
        return endings.watched(booted, await monitor.reason(), await self._exit_status())

    async def _until_owned(
        self, standby: Standby, watch: Watch, monitor: Monitor, channel: ControlChannel, turn: Turn
    ) -> bool:
        """From the start of a spare to the moment at which it is told who it is; False when it is of no use."""
        up = await unless_ended(watch, self._comes_up_as_nobody(channel))
        turn.over()
        if up:
            standby.ready.set()
        there = up and await standby.for_owner(watch)
        if not standby.owned.is_set():
            return False
        self._standby = None
        gib = self.saved.want.disk_gib
        if there and gib > self.saved.disk_gib:
            await monitor.resize(gib << 30)
            self._keep(msgspec.structs.replace(self.saved, disk_gib=gib))
        return there

    async def _comes_up_as_nobody(self, channel: ControlChannel) -> bool:
        """All that a VM waits for, done before there is one: network, keys, clock, and the first command of a session,
        which takes several times as long as any later one. What its owner gives it replaces the rest.
        """
        want = self.saved.want
        if not await self._configure(channel, FORK_SECONDS):
            return False
        with suppress(Failure):
            at = GuestAddress(self.host.instance.address(want.number), want.secret)
            return (await execs.run(at, ExecSpec(cmd="true"), timeout=FORK_SECONDS)).status == 0
        return False

    async def _watch_room(self, monitor: Monitor) -> None:
        with suppress(Failure):  # a QEMU that does not answer is noticed by others
            await fullness.watch(monitor, self.folder, lambda sentence: self._warn("host", sentence))

    async def _exit_status(self) -> int | None:
        with suppress(Failure):
            return (await self.host.helper.look(self.saved.want.vm, self.saved.want.number)).exit
        return None

    async def _until_it_answers(self, watch: Watch, channel: ControlChannel, seconds: float) -> bool:
        """Configure the guest and say so; False when it ended or stayed silent for so many seconds."""
        if self.saved.phase is Phase.RUNNING:  # adopted: it was configured by the process before us
            return True
        if not await unless_ended(watch, self._configure(channel, seconds)):
            return False
        self._become(Phase.RUNNING, source=Source.BOOT, anew=False)
        return True

    async def _configure(self, channel: ControlChannel, seconds: float) -> bool:
        try:
            async with asyncio.timeout(seconds):
                while True:
                    await channel.ready(seconds)
                    with suppress(Failure):  # a connection lost half way through is made again
                        await channel.configure(self._identity(self.saved.want), timeout=CONFIGURE_SECONDS)
                        self._told.now()
                        return True
        except (TimeoutError, Failure):
            return False

    def _identity(self, want: Want) -> Identity:
        instance = self.host.instance
        return Identity(
            hostname=want.name, address=instance.address(want.number), secret=want.secret,
            address6=instance.address6(want.number) if taps.speaks_ipv6(instance, want.number) else "",
            machine_id=hashlib.sha256(want.vm.encode()).hexdigest()[:32], login_user=self.saved.login_user,
            mac=instance.mac(want.number),
            service=self.saved.service.commanded(want.command),
            env=want.env, authorized_keys=want.authorized_keys, anew=self.saved.anew,
            host_keys=host_keys.fresh() if self.saved.anew else (),
        )

    def _become(
        self, phase: Phase, *, want: Want | None = None, boot: int | None = None, detail: str | None = None,
        console: str | None = None, source: Source | None = None, cold: bool | None = None,
        anew: bool | None = None,
    ) -> None:
        """Change the state, on disk first, and let the loop know when others would see a difference."""
        before = self.saved
        given = {"want": want, "boot": boot, "detail": detail, "console": console, "source": source,
                 "cold": cold, "anew": anew}
        changes: dict[str, object] = {name: value for name, value in given.items() if value is not None}
        after = msgspec.structs.replace(before, phase=phase, **changes)
        if after == before:
            return
        self._keep(after)
        if (after.phase, after.boot, after.detail) != (before.phase, before.boot, before.detail):
            _log.info("phase", vm=after.want.vm, phase=after.phase.value, boot=after.boot, detail=after.detail)
            self.host.changed()

    def _keep(self, saved: Saved) -> None:
        if saved != self.saved:
            save(self.folder, saved)
            self.saved = saved
