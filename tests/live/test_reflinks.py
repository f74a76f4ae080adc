"""Real machines on a host whose files share bytes: copies and snapshots of running VMs make no chain longer."""
from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.contract.check_driver import look, until, want
from tests.live.node import Node, running_node
from tests.live.test_disks import COPY, VM, copy_of
from tests.live.test_driver_live import booted, says
from ussycode.runtime.driver import Origin, OriginKind, Phase
from ussycode.runtime.drivers.qemu import saved
from ussycode.runtime.images.store import Image, ImageStore
from ussycode.runtime.kernel import BootFiles

pytestmark = pytest.mark.timeout(300)


@pytest.fixture
async def node(
    image_store: ImageStore, boot: BootFiles, debian_min: Image, tmp_path: Path
) -> AsyncIterator[Node]:
    image, folder = tmp_path / "xfs.img", tmp_path / "xfs"
    folder.mkdir()
    for parent in (folder, *folder.parents[:3]):
        parent.chmod(0o755)
    with image.open("wb") as file:
        file.truncate(4 << 30)
    subprocess.run(["/usr/sbin/mkfs.xfs", "-q", image], check=True, timeout=60)
    subprocess.run(["mount", "-o", "loop", image, folder], check=True, timeout=30)
    try:
        async with running_node(image_store, boot, parent=folder) as one:
            yield one
    finally:
        subprocess.run(["umount", folder], check=True, timeout=30)


def used(node: Node) -> int:
    os.sync()
    return shutil.disk_usage(node.instance.data).used


async def test_a_running_vm_is_kept_copied_and_restored_by_shared_bytes(node: Node) -> None:
    driver = await booted(node)
    assert driver.layers.reflinks
    await says(driver, "head -c 100M /dev/urandom > big; sha256sum big > sum; (while :; do date > tick; sync; done) &")
    before = used(node)
    await driver.keep_snapshots(want(snapshots=("snap_1",)))
    await driver.prepare(copy_of(VM))
    print(f"a snapshot and a copy of {before >> 20} MiB took {(used(node) - before) >> 20} MiB")
    assert used(node) - before < 24 << 20
    await says(driver, "rm big")
    await driver.start(copy_of(VM))
    await until(driver, COPY, Phase.RUNNING)
    assert await says(driver, "sha256sum -c sum", COPY) == "big: OK"
    record = saved.load(node.instance.vm_data(VM))
    assert record is not None and record.chain == (), "it still writes the disk it was made with"
    (kept,) = (await look(driver, VM)).snapshots
    assert kept.id == "snap_1" and kept.size >= 0
    await driver.stop(VM)
    back = want(boot=2, disk_turn=2, origin=Origin(OriginKind.SNAPSHOT, VM, "snap_1"), snapshots=("snap_1",))
    await driver.prepare(back)
    await driver.start(back)
    await until(driver, VM, Phase.RUNNING)
    assert await says(driver, "sha256sum -c sum") == "big: OK"
    await driver.close()
