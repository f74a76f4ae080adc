"""`ussycode down`: end the platform, then its guests, and leave no process, tap or rule behind."""
from __future__ import annotations

import argparse
import asyncio
from contextlib import suppress

from ussycode.base.clock import SystemClock
from ussycode.base.errors import Failure
from ussycode.cli import prepare, state
from ussycode.config import Config
from ussycode.runtime import instance as instances
from ussycode.runtime.driver import Phase
from ussycode.runtime.drivers.qemu.driver import QemuDriver
from ussycode.runtime.images.store import ImageStore
from ussycode.runtime.instance import Instance
from ussycode.runtime.kernel import BootFiles
from ussycode.runtime.privileged import server
from ussycode.runtime.privileged.client import HelperClient
from ussycode.runtime.privileged.protocol import Accel

SUPERVISOR_SECONDS = 25.0
GUEST_SECONDS = 30.0
"""Longest wait for all guests to shut down before what is left is killed."""


def down(config: Config, _asked: argparse.Namespace) -> int:
    """Stop everything; disks stay, and VMs that should run start again with the next `up`."""
    prepare.require_root()
    running = state.read(config.data_dir)
    if running is not None and state.alive(running.supervisor):
        state.end(running.supervisor, SUPERVISOR_SECONDS)
    with suppress(FileNotFoundError):
        state.end_orphans(config.data_dir)
    state.path(config.data_dir).unlink(missing_ok=True)
    instance = instances.load(config.data_dir)
    if instance is not None and config.runtime == "qemu":
        print(f"stopped {asyncio.run(_end_guests(config, instance))} VMs")
    print("ussycode is down")
    return 0


async def _end_guests(config: Config, instance: Instance) -> int:
    boot = BootFiles(config.data_dir, config.data_dir, "", "")  # nothing is booted from here
    listening = await server.start(instance, boot, 0)
    helper = HelperClient(instance.helper_socket)
    driver = QemuDriver(instance, ImageStore(config.data_dir / "images"), helper, Accel.TCG, SystemClock())
    await driver.open()
    alive = [one.vm for one in await driver.seen() if one.phase in (Phase.RUNNING, Phase.STARTING)]
    with suppress(TimeoutError):
        async with asyncio.timeout(GUEST_SECONDS):
            await asyncio.gather(*(_stop(driver, vm) for vm in alive))
    await driver.close()
    await helper.net_down()
    listening.close()
    instance.helper_socket.unlink(missing_ok=True)
    return len(alive)


async def _stop(driver: QemuDriver, vm: str) -> None:
    try:
        await driver.stop(vm)
    except Failure as failure:
        print(f"{vm}: {failure.sentence}")
