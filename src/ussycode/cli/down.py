"""`ussycode down`: end the platform, then its guests, and leave no process, tap or rule behind."""
from __future__ import annotations

import argparse
import asyncio
import concurrent.futures.thread  # noqa: F401  - asyncio imports it with its first thread, when we may not read it any more
import os
import signal
import time
from contextlib import suppress

from ussycode.base.clock import SystemClock
from ussycode.base.errors import ErrorCode, Failure, Kind
from ussycode.cli import prepare, state
from ussycode.config import Config
from ussycode.runtime import instance as instances
from ussycode.runtime.driver import Phase
from ussycode.runtime.drivers.both import Both
from ussycode.runtime.drivers.container.driver import ContainerDriver
from ussycode.runtime.drivers.qemu.driver import QemuDriver
from ussycode.runtime.drivers.qemu.process import Watch
from ussycode.runtime.images.store import ImageStore
from ussycode.runtime.instance import Instance
from ussycode.runtime.kernel import BootFiles
from ussycode.runtime.privileged import processes, server
from ussycode.runtime.privileged.client import HelperClient
from ussycode.runtime.privileged.container_client import ContainerClient
from ussycode.runtime.privileged.protocol import Accel

SUPERVISOR_SECONDS = 25.0
HELPER_SECONDS = 10.0
KILL_SECONDS = 5.0
NO_HELPER = ErrorCode("down.no_helper", Kind.FAILED, "the privileged helper did not start", hint="try again")
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
        print(f"stopped {_end_guests(config, instance)} VMs")
    print("ussycode is down")
    return 0


def _end_guests(config: Config, instance: Instance) -> int:
    """Shut all guests down; how many there were. The helper is root, what drives it is control's user.

    Control's folders are not trusted by root: a link planted there must not lead a root process elsewhere.
    """
    instance.helper_socket.unlink(missing_ok=True)
    child = os.fork()
    if child == 0:
        nothing = BootFiles(config.data_dir, config.data_dir, "", "")  # to boot from
        server.serve(instance, nothing, 0, containers=True)
        os._exit(0)
    place = instance.run / "vm"
    names = [folder.name for folder in place.iterdir()] if place.exists() else []
    try:
        _wait_for(instance)
        os.setgroups([])
        os.setegid(instance.control_uid)
        os.seteuid(instance.control_uid)
        return asyncio.run(_stop_all(config, instance, names))
    finally:
        os.seteuid(0)
        os.setegid(0)
        os.kill(child, signal.SIGTERM)
        os.waitpid(child, 0)


def _wait_for(instance: Instance) -> None:
    deadline = time.monotonic() + HELPER_SECONDS
    while not (instance.helper_socket.exists() and instance.helper_socket.stat().st_uid == instance.control_uid):
        if time.monotonic() > deadline:
            raise NO_HELPER()
        time.sleep(0.02)


async def _stop_all(config: Config, instance: Instance, names: list[str]) -> int:
    helper, clock = ContainerClient(instance.helper_socket), SystemClock()
    images = ImageStore(config.data_dir / "images")
    vms = QemuDriver(instance, images, helper, Accel.TCG, clock)
    driver = Both(vms, ContainerDriver(instance, images, helper, clock))
    await driver.open()
    alive = [one.vm for one in await driver.seen() if one.phase in (Phase.RUNNING, Phase.STARTING)]
    with suppress(TimeoutError):
        async with asyncio.timeout(GUEST_SECONDS):
            await asyncio.gather(*(_stop(driver, vm) for vm in alive))
    await driver.close()
    for name in names:
        await _kill_what_is_left(instance, helper, name)
    await helper.net_down()
    return len(alive)


async def _kill_what_is_left(instance: Instance, helper: HelperClient, name: str) -> None:
    record = processes.read(instance.vm_run(name))
    if record is None or not processes.alive(record):
        return
    await helper.kill(name, record.number)
    with Watch(record) as watch:
        await watch.ended_within(KILL_SECONDS)
    await helper.remove_traces(name, record.number)


async def _stop(driver: Both, vm: str) -> None:
    try:
        await driver.stop(vm)
    except Failure as failure:
        print(f"{vm}: {failure.sentence}")
