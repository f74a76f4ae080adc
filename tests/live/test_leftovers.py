"""What a crash leaves on the host: empty groups go at the next start; all else is told and stays where it is."""
from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
import pytest

from tests.live.node import Node, running_node
from ussycode import config as settings
from ussycode.base.clock import SystemClock
from ussycode.base.db import Database
from ussycode.base.schema import migrate
from ussycode.cli.doctor import doctor
from ussycode.runtime.drivers.qemu import template
from ussycode.runtime.images.store import ImageStore
from ussycode.runtime.kernel import BootFiles
from ussycode.runtime.net import taps, wall
from ussycode.runtime.privileged.cgroups import ROOT

GONE = 9_999
"""Number of a VM that does not run."""


@pytest.fixture
async def node(image_store: ImageStore, boot: BootFiles) -> AsyncIterator[Node]:
    async with running_node(image_store, boot) as one:
        yield one


def groups(node: Node, name: str) -> list[Path]:
    """A group in every hierarchy of this host that takes folders."""
    roots = [place for place in ROOT.iterdir() if (place / "cgroup.procs").exists()] or [ROOT]
    return [place / f"ussycode-{node.instance.slot}" / name for place in roots if place.name != "cpuset"]


@contextmanager
def somebody(uid: int | None = None) -> Iterator[subprocess.Popen[bytes]]:
    """A process that does nothing."""
    process = subprocess.Popen(["sleep", "600"], user=uid, group=uid)
    try:
        yield process
    finally:
        process.kill()
        process.wait(10)


async def test_groups_without_a_process_go_when_the_helper_starts(node: Node) -> None:
    node.process.terminate()
    node.process.join(10)
    empty, inner, held = (groups(node, name) for name in (f"vm-{GONE}", f"vm-{GONE - 1}/init", f"vm-{GONE - 2}"))
    for place in (*empty, *inner, *held):
        place.mkdir(parents=True)
    with somebody() as process:
        for place in held:
            (place / "cgroup.procs").write_text(str(process.pid))
        node.start_helper()
        assert [place for place in (*empty, *(place.parent for place in inner)) if place.exists()] == []
        assert [place for place in held if not place.exists()] == [], "a group with a process is nobody's to remove"
    node.process.terminate()
    node.process.join(10)
    node.start_helper()
    assert [place for place in held if place.exists()] == []


def told(node: Node, capsys: pytest.CaptureFixture[str]) -> str:
    config = settings.load({"data_dir": str(node.instance.data)}, {})
    began = time.monotonic()
    doctor(config, argparse.Namespace(json=True))
    assert time.monotonic() - began < 60
    found = {check["name"]: check for check in json.loads(capsys.readouterr().out)}["left"]
    assert found["ok"] is (not found["todo"])
    return str(found["found"])


async def test_doctor_tells_what_is_left_and_removes_nothing(node: Node, capsys: pytest.CaptureFixture[str]) -> None:
    data, instance = node.instance.data, node.instance
    (data / "control").mkdir()
    made = Database(data / "control" / "ussycode.db", SystemClock())
    migrate(made.engine)
    made.close()
    assert "no process, interface, rule or file" in told(node, capsys)
    kind = template.Class(image="debian-min", digest="d", vcpus=1, memory_mib=512, build="b")
    one = template.Template(id="t" * 20, of=kind, layer="0f0f0f", gib=5, crc=0, made=0.0)
    (data / "vms" / one.machine).mkdir()
    (data / "vms" / one.machine / "template.json").write_bytes(msgspec.json.encode(one))
    shutil.copy("/etc/hostname", instance.layers / one.layer)
    assert "no process, interface, rule or file" in told(node, capsys), "a template is no leftover"
    shutil.copy("/etc/hostname", instance.layers / "a1b2c3")
    (data / "vms" / "vm_nobodyknowsitaaa").mkdir()
    subprocess.run(["ip", "tuntap", "add", "dev", instance.tap(GONE), "mode", "tap"], check=True, timeout=10)
    taps.load_rules(f"table netdev {wall.name(instance, GONE)} {{ }}\n")
    with somebody(instance.uid(GONE)) as process:
        said = told(node, capsys)
        for what in (f"ip link del dev {instance.tap(GONE)}", f"nft delete table netdev {wall.name(instance, GONE)}",
                     f"kill {process.pid}", str(data / "vms" / "vm_nobodyknowsitaaa"), str(instance.layers / "a1b2c3")):
            assert what in said, said
        assert process.poll() is None
    assert taps.leftover(instance) == [instance.tap(GONE)] and taps.walls(instance) == [GONE]
    (data / "vms" / "vm_nobodyknowsitaaa" / "vm.json").write_text("{ not a record")
    assert str(instance.layers / "a1b2c3") not in told(node, capsys), "a record that cannot be read may need it"
    taps.remove(instance.tap(GONE))
    taps.load_rules(wall.remove(instance, GONE))
    shutil.rmtree(data / "vms" / "vm_nobodyknowsitaaa")
