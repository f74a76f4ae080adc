"""A node for live tests: its own instance, a privileged helper in a process of its own, real machines."""
from __future__ import annotations

import multiprocessing
import shutil
import socket
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from multiprocessing.process import BaseProcess
from pathlib import Path

from ussycode.base.clock import Clock, SystemClock
from ussycode.runtime.drivers.qemu import saved
from ussycode.runtime.drivers.qemu.driver import QemuDriver
from ussycode.runtime.drivers.qemu.spares import Stock
from ussycode.runtime.drivers.qemu.templates import Limits
from ussycode.runtime.images.store import ImageStore
from ussycode.runtime.instance import Instance, claim, make_folders
from ussycode.runtime.kernel import BootFiles
from ussycode.runtime.net.guard import CHECK_SECONDS
from ussycode.runtime.net.policy import USUAL, Policy
from ussycode.runtime.privileged import server
from ussycode.runtime.privileged.client import HelperClient
from ussycode.runtime.privileged.protocol import Accel
from ussycode.runtime.tsc import tsc_khz

BOOT_SECONDS = 100.0


@dataclass
class Node:
    """One instance and what is needed to make drivers on it."""

    instance: Instance
    images: ImageStore
    boot: BootFiles
    helper: HelperClient
    process: BaseProcess
    policy: Policy = USUAL
    clock: Clock = field(default_factory=SystemClock)

    async def driver(
        self, boot_timeout: float = BOOT_SECONDS, check_seconds: float = CHECK_SECONDS, limits: Limits | None = None,
        spares: Stock | None = None,
    ) -> QemuDriver:
        """An opened driver, as a fresh control process would make it; without `limits` it has no templates."""
        driver = QemuDriver(
            self.instance, self.images, self.helper, Accel.TCG, self.clock, boot_timeout, check_seconds, limits,
            spares,
        )
        await driver.open()
        return driver

    def disk(self, vm: str) -> Path:
        """The file that a VM writes its disk to."""
        record = saved.load(self.instance.vm_data(vm))
        assert record is not None
        return self.instance.layers / record.top

    def start_helper(self) -> None:
        """Start the helper's process and wait until it listens."""
        self.instance.helper_socket.unlink(missing_ok=True)
        self.process = multiprocessing.get_context("fork").Process(
            target=server.serve, args=(self.instance, self.boot, tsc_khz()),
            kwargs={"containers": True, "policy": self.policy, "shown": (self.images.root,)},
        )
        self.process.start()
        with socket.socket(socket.AF_UNIX) as probe:
            while probe.connect_ex(str(self.instance.helper_socket)):  # the file is there before anybody listens
                assert self.process.is_alive(), "the helper did not start"
                self.process.join(0.01)


@asynccontextmanager
async def running_node(
    images: ImageStore, boot: BootFiles, policy: Policy = USUAL, parent: Path = Path("/var/tmp")
) -> AsyncIterator[Node]:
    """A node whose every trace is gone afterwards, whatever the test did."""
    data = Path(tempfile.mkdtemp(prefix="ussycode-node-", dir=parent))
    data.chmod(0o711)
    instance = claim(data)
    make_folders(instance)
    helper = HelperClient(instance.helper_socket)
    node = Node(instance, images, boot, helper, BaseProcess.__new__(BaseProcess), policy)
    node.start_helper()
    try:
        yield node
    finally:
        if not node.process.is_alive():
            node.start_helper()
        driver = await node.driver()
        for seen in await driver.seen():
            await driver.destroy(seen.vm)
        await driver.close()
        await node.helper.net_down()
        node.process.terminate()
        node.process.join(10)
        shutil.rmtree(data)
        shutil.rmtree(instance.run)
        (instance.run_root / f"slot-{instance.slot}").unlink()


def owner(path: Path) -> int:
    """Uid of a file."""
    return path.stat().st_uid
