"""The life of real VMs through the package's two clients."""
from __future__ import annotations

import asyncio
import re
import time
from pathlib import Path

import exedev
import pytest

from tests.conformance.conftest import Cloud
from tests.conformance.driven import Driven, Loop
from tests.live.conftest import ussyuntu  # noqa: F401 - a fixture
from tests.live.rig import Platform
from ussycode.runtime.images.store import Image

covers = pytest.mark.covers
pytestmark = pytest.mark.timeout(300)


@covers("Client.new", "VM.stats", "VM.resize", "VM.rename", "VM.set_comment", "VM.tag", "VM.share.set_public",
        "VM.wait_until_ready")
def test_the_life_of_a_vm(cloud: Cloud, far: Driven) -> None:
    name = f"life-{cloud.flavour}"
    with far.new(name=name, disk=5, memory="256M", prompt="make a page", wait_until="created") as vm:
        assert "no agent" in vm.prompt_error
        vm.wait_until_ready(timeout=120)
        vm.spawn("sleep 6001", name="lost")
        vm.write_file("kept", "still here")
        vm.rename(f"{name}-two")
        assert vm.tag("prod")["tags"] == ["prod"] and vm.set_comment("a note")["comment"] == "a note"
        assert vm.share.set_public()["status"] == "updated"
        assert vm.resize(disk=6)["disk_new_bytes"] == 6 << 30
        assert vm.resize(memory="384M", restart=True)["new_memory"] == 384 << 20
        memory = int(vm.run("awk '/MemTotal/ {print $2}' /proc/meminfo").stdout)
        assert 300 << 10 < memory < 384 << 10
        assert int(vm.run("df -k --output=size / | tail -1").stdout) > 5 << 20
        assert vm.read_file("kept") == b"still here"
        with pytest.raises(exedev.ProcessLostError):
            vm.process("lost").poll()
        found = far.vm(f"{name}-two")
        assert (found.status, found.tags, found.comment) == ("running", ("prod",), "a note")
        assert found.ssh_dest == vm.ssh_dest == f"{name}-two@localhost"
        stats = vm.stats()
        assert (stats["name"], stats["status"], stats["range"]) == (f"{name}-two", "running", "24h")
    assert f"{name}-two" not in [v.name for v in far.vms()]
    with pytest.raises(exedev.NotFoundError):
        vm.run("true")


@pytest.mark.parametrize("cloud", ["async"], indirect=True)
def test_a_vm_whose_making_is_cancelled_is_gone(cloud: Cloud, far: Driven) -> None:
    async def cancel() -> None:
        task = asyncio.ensure_future(far._inner.new(name="unwanted"))
        while "unwanted" not in [vm.name for vm in await far._inner.vms()]:
            assert not task.done()
        task.cancel()
        await asyncio.wait({task})
        assert task.cancelled()

    cloud.loop.run(cancel())
    assert "unwanted" not in [vm.name for vm in far.vms()]


@pytest.mark.parametrize("cloud", ["sync"], indirect=True)
def test_waiting_for_a_setup_script(cloud: Cloud, far: Driven) -> None:
    script = "sleep 2\nprintf 'line\\n%s' \"$WHO\" > ~/done\n"
    with far.new(setup_script=script, env={"WHO": "it's me"}, wait_until="setup", timeout=150) as vm:
        assert vm.read_file("done") == b"line\nit's me"
        began = time.monotonic()
        vm.wait_until_ready("setup")
        assert time.monotonic() - began < 60


@pytest.mark.parametrize("cloud", ["async"], indirect=True)
def test_a_setup_script_that_fails_takes_its_vm_with_it_unless_it_is_kept(cloud: Cloud, far: Driven) -> None:
    with pytest.raises(exedev.VMSetupError) as failed:
        far.new(name=f"bad-{cloud.flavour}", setup_script="exit 3", wait_until="setup", timeout=150)
    assert f"bad-{cloud.flavour}" not in [v.name for v in far.vms()]
    assert failed.value.vm.name == f"bad-{cloud.flavour}"


def test_a_failed_setup_script_is_told_with_its_status_and_its_last_words(
    hosted: Platform, bearer: str, loop: Loop, ussyuntu: Image,  # noqa: F811
) -> None:
    script = "echo the last words; exit 3"
    with Cloud(hosted, "sync", bearer, loop).client() as exe:
        with pytest.raises(exedev.VMSetupError) as failed:
            exe.new(image="ussyuntu", setup_script=script, wait_until="setup", timeout=200, keep_on_failure=True)
        assert (failed.value.exit_code, failed.value.signal) == (3, None)
        assert "the last words" in failed.value.output
        failed.value.vm.delete()


def test_the_program_of_the_guide_runs(
    hosted: Platform, bearer: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:
    page = (Path(__file__).parents[2] / "docs" / "guide" / "python.md").read_text()
    (program,) = re.findall(r"```python\n(.*?)```", page, re.S)
    monkeypatch.setenv("TOKEN", bearer)
    monkeypatch.chdir(hosted.home)
    exec(program.replace("8443", str(hosted.ports["https"])), {})
    assert capsys.readouterr().out == "ready\n\nhello from /home/ussy/hello.py\n\n"


def test_a_paused_vm_goes_on_where_it_was(vm: Driven) -> None:
    process = vm.spawn("sleep 5001")
    vm.pause()
    with pytest.raises(exedev.VMNotRunningError):
        vm.run("true")
    assert vm.resume()["cold_booted"] == "false"
    assert process.poll() is None
    process.kill()


def test_a_copy_has_the_files_and_is_a_machine_of_its_own(cloud: Cloud, far: Driven, vm: Driven) -> None:
    vm.write_file("kept", "from the source")
    with vm.copy(f"copy-{cloud.flavour}", memory="256M") as copy:
        assert copy.read_file("kept") == b"from the source"
        assert copy.run("hostname").stdout == f"copy-{cloud.flavour}\n"
        copy.write_file("kept", "of the copy")
        assert vm.read_file("kept") == b"from the source"
