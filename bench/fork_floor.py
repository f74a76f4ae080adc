"""The floor of `new`: the same QEMU, forked by a bare script, to the agent's answer and one OpenSSH connection."""
from __future__ import annotations

import asyncio
import fcntl
import os
import socket
import subprocess
import tempfile
import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from ussycode.base.clock import SystemClock
from ussycode.runtime.drivers.qemu.monitor import Monitor
from ussycode.runtime.guest.channel import ControlChannel
from ussycode.runtime.guest.identity import Identity
from ussycode.runtime.images.store import Image
from ussycode.runtime.instance import FIRST_TEMPLATE, Instance
from ussycode.runtime.kernel import BootFiles
from ussycode.runtime.net import taps
from ussycode.runtime.privileged.command_line import Descriptors, Machine, command_line
from ussycode.runtime.privileged.protocol import Accel

MEMORY_MIB = 512
SEALS = fcntl.F_SEAL_WRITE | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_SEAL


@dataclass
class Started:
    """A QEMU and the way to it."""

    process: subprocess.Popen[bytes]
    place: Path


@dataclass
class Floor:
    """Forks of one template, as root, without helper, jail, cgroups or rules."""

    instance: Instance
    boot: BootFiles
    image: Image
    tsc_khz: int
    folder: Path
    memory: int = -1

    def _start(self, name: str, disk: Path, tap: int, *, incoming: bool) -> Started:
        place = self.folder / name
        place.mkdir()
        with ExitStack() as held:
            listening = [held.enter_context(_listen(place / kind)) for kind in ("qmp", "agent")]
            console = os.open(place / "console", os.O_CREAT | os.O_WRONLY | os.O_APPEND)
            held.callback(os.close, console)
            held.callback(os.close, tap)
            fds = Descriptors(tap, listening[0].fileno(), listening[1].fileno(), console, self.memory)
            machine = Machine(
                name, self.boot.kernel, self.boot.initrd, disk, "02:00:00:00:00:09", 1, MEMORY_MIB, self.image.init,
                Accel.TCG, self.tsc_khz, incoming,
            )
            process = subprocess.Popen(
                command_line(machine, fds), pass_fds=fds.all, stdin=subprocess.DEVNULL, stdout=console, stderr=console,
            )
        return Started(process, place)

    async def template(self) -> None:
        """Boot the image once and write it down."""
        self.memory = os.memfd_create("floor", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        os.ftruncate(self.memory, MEMORY_MIB << 20)
        _overlay(self.image.disk, "raw", self.folder / "template.qcow2")
        tap = taps.open_idle_tap(self.instance, FIRST_TEMPLATE)
        made = self._start("template", self.folder / "template.qcow2", tap, incoming=False)
        channel = ControlChannel(made.place / "agent", SystemClock())
        channel.start()
        await channel.ready(120)
        if self.image.settles:
            await channel.settle()
            while not await channel.settled():
                await asyncio.sleep(0.5)
        await channel.close()
        async with Monitor(made.place / "qmp") as monitor:
            await monitor.halt()
            with (self.folder / "state").open("wb") as state:
                assert await monitor.save(state.fileno(), shared=True)
            await monitor.quit()
        made.process.wait(20)
        fcntl.fcntl(self.memory, fcntl.F_ADD_SEALS, SEALS)

    async def fork(self, number: int) -> float:
        """Seconds from nothing to a configured copy, which is then ended."""
        began = time.monotonic()
        disk = self.folder / f"{number}.qcow2"
        _overlay(self.folder / "template.qcow2", "qcow2", disk)
        tap = taps.open_tap(self.instance, number)
        made = self._start(str(number), disk, tap, incoming=True)
        channel = ControlChannel(made.place / "agent", SystemClock())
        async with Monitor(made.place / "qmp") as monitor:
            with (self.folder / "state").open("rb") as state:
                assert await monitor.load(state.fileno(), shared=True)
            channel.start()
            await monitor.go_on()
            await channel.ready(20)
            await channel.configure(Identity(
                hostname=f"floor{number}", address=self.instance.address(number), secret=f"{number:02x}" * 32,
                machine_id=f"{number:032x}", mac=self.instance.mac(number), login_user=self.image.login_user,
            ))
        took = time.monotonic() - began
        await channel.close()
        made.process.kill()
        made.process.wait(20)
        return took


def _listen(path: Path) -> socket.socket:
    made = socket.socket(socket.AF_UNIX)
    made.bind(str(path))
    made.listen(1)
    return made


def _overlay(base: Path, form: str, disk: Path) -> None:
    words = ("create", "-q", "-u", "-f", "qcow2", "-F", form, "-b", str(base), str(disk), "5G")
    subprocess.run(["qemu-img", *words], check=True, timeout=30)


async def measure(instance: Instance, boot: BootFiles, image: Image, tsc_khz: int, rounds: int) -> list[float]:
    """Seconds of each fork, one after the other. Root only."""
    with tempfile.TemporaryDirectory(prefix="ussycode-floor-", dir="/var/tmp") as folder:
        floor = Floor(instance, boot, image, tsc_khz, Path(folder))
        try:
            await floor.template()
            return [await floor.fork(10 + number) for number in range(rounds)]
        finally:
            os.close(floor.memory)
