"""What the root helper refuses: everything that is not one of its verbs, and files that are not the VM's own."""
from __future__ import annotations

import ipaddress
import mmap
import os
import subprocess
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ussycode.base.unreadable import UNREADABLE
from ussycode.runtime.instance import Instance
from ussycode.runtime.privileged import cgroups, command_line, processes, vm_files
from ussycode.runtime.privileged.cgroups import Limits
from ussycode.runtime.privileged.command_line import Descriptors, Machine
from ussycode.runtime.privileged.processes import Record
from ussycode.runtime.privileged.protocol import (
    MAX_TEMPLATES,
    Accel,
    DiskOwn,
    DiskSeal,
    NetUp,
    Spawn,
    decode_request,
    encode,
)
from ussycode.runtime.privileged.template_memory import TemplateMemory

VM = "vm_aaaaaaaaaaaaaaaa"
DISK = "d1" * 16
MACHINE = Machine(
    name=VM, kernel=Path("/k"), initrd=Path("/i"), disk=Path("/data,with/comma.qcow2"), mac="02:75:07:00:00:02",
    vcpus=2, memory_mib=512, init="/sbin/init", accel=Accel.TCG, tsc_khz=2_600_000,
)


def spawn(**changes: object) -> bytes:
    good = {"type": "Spawn", "vm": VM, "number": 2, "vcpus": 1, "memory_mib": 512, "init": "/sbin/init", "accel": "tcg",
            "disk": DISK}
    return msgspec.json.encode(good | changes)


def test_requests_survive_the_wire() -> None:
    spawned = Spawn(VM, 2, 1, 512, "tiny", Accel.KVM, DISK)
    for request in (NetUp(), DiskOwn(VM, 2, DISK), DiskSeal(VM, 2, DISK), spawned):
        assert decode_request(encode(request)) == request


@pytest.mark.parametrize("bad", [
    {"vm": "../../etc"}, {"vm": "vm/x"}, {"vm": "vm.x"}, {"vm": ""}, {"vm": "a" * 41}, {"vm": "vm_a\n"},
    {"number": 0}, {"number": 1}, {"number": 16_065}, {"number": 2.5}, {"number": "2"},
    {"vcpus": 0}, {"vcpus": 65}, {"memory_mib": 1}, {"memory_mib": 1 << 40},
    {"init": "/sbin/init panic=0"}, {"init": "/sbin/../init"}, {"init": "sh"}, {"init": "/a,b"},
    {"init": "/sbin/init\n"}, {"disk": "../vms/x"}, {"disk": "D1" * 16}, {"disk": DISK + "\n"}, {"disk": DISK + ".new"},
    {"template": "../x"}, {"template": "A" * 32},
    {"accel": "tcg,thread=single"}, {"path": "/etc/shadow"}, {"type": "Exec"},
])
def test_what_is_not_a_bounded_verb_is_not_understood(bad: dict[str, object]) -> None:
    decode_request(spawn())
    with pytest.raises(msgspec.DecodeError):
        decode_request(spawn(**bad))


@given(st.binary(max_size=200), st.sampled_from([b"%b", b'{"type":"Kill","vm":"%b","number":2}', b'{"%b":1}']))
def test_noise_is_only_ever_unreadable(noise: bytes, around: bytes) -> None:
    with pytest.raises(UNREADABLE):
        decode_request(around % noise)
    with pytest.raises(UNREADABLE):
        decode_request(b"[" * 100_000 + noise)


def test_mitigations_are_off_only_where_they_protect_nothing() -> None:
    assert "mitigations=off" in command_line.kernel_words(MACHINE)
    assert "tsc_early_khz=2600000" in command_line.kernel_words(MACHINE)
    kvm = command_line.kernel_words(replace(MACHINE, accel=Accel.KVM))
    assert "mitigations" not in kvm
    assert "tsc_early_khz" not in kvm


def test_qemu_is_walled_in_and_gets_files_by_descriptor() -> None:
    words = command_line.command_line(MACHINE, Descriptors(tap=5, qmp=6, agent=7, console=8))
    assert words[words.index("-sandbox") + 1].startswith("on,") and "spawn=deny" in " ".join(words)
    assert "socket,id=agent,fd=7,server=on,wait=off" in words
    assert any("file=/data,,with/comma.qcow2,format=qcow2" in word for word in words)


@pytest.fixture
def instance(tmp_path: Path) -> Instance:
    one = Instance(7, tmp_path, ipaddress.IPv4Network("10.199.0.0/16"))
    one.vm_data(VM).mkdir(parents=True)
    one.layers.mkdir()
    for folder in (one.vm_data(VM), one.layers):
        os.chown(folder, one.control_uid, one.control_uid)
    return one


def disk(instance: Instance) -> Path:
    path = instance.layers / DISK
    path.write_bytes(b"disk")
    os.chown(path, instance.control_uid, instance.control_uid)
    return path


def test_the_disk_goes_to_the_vms_uid(instance: Instance) -> None:
    path = disk(instance)
    vm_files.own_disk(instance, 2, DISK)
    vm_files.own_disk(instance, 2, DISK)
    vm_files.require_disk(instance, 2, DISK)
    assert (path.stat().st_uid, path.stat().st_mode & 0o777) == (instance.uid(2), 0o600)


def test_a_vm_cannot_be_given_another_vms_disk(instance: Instance) -> None:
    disk(instance)
    vm_files.own_disk(instance, 2, DISK)
    with pytest.raises(PermissionError):
        vm_files.own_disk(instance, 3, DISK)


def test_a_sealed_disk_is_read_by_all_and_written_by_nobody(instance: Instance) -> None:
    path = disk(instance)
    vm_files.own_disk(instance, 2, DISK)
    with pytest.raises(PermissionError):
        vm_files.seal_disk(instance, 3, DISK)
    vm_files.seal_disk(instance, 2, DISK)
    vm_files.seal_disk(instance, 2, DISK)
    assert (path.stat().st_uid, path.stat().st_mode & 0o777) == (instance.control_uid, 0o444)
    with pytest.raises(PermissionError):
        vm_files.require_disk(instance, 2, DISK)


def test_links_lead_nowhere(instance: Instance, tmp_path: Path) -> None:
    secret = tmp_path / "shadow"
    secret.write_text("root")
    os.chown(secret, instance.control_uid, instance.control_uid)
    path = instance.layers / DISK
    path.symlink_to(secret)
    with pytest.raises(OSError, match="Too many levels"):
        vm_files.own_disk(instance, 2, DISK)
    path.unlink()
    path.hardlink_to(secret)
    with pytest.raises(PermissionError):
        vm_files.own_disk(instance, 2, DISK)
    (instance.vm_data(VM) / vm_files.CONSOLE).symlink_to(secret)
    with pytest.raises(OSError, match="Too many levels"):
        vm_files.open_console(instance, VM)
    assert secret.stat().st_uid == instance.control_uid


def test_the_folder_itself_may_not_be_a_link_or_anothers(instance: Instance, tmp_path: Path) -> None:
    disk(instance)
    os.chown(instance.layers, 12345, 12345)
    with pytest.raises(PermissionError):
        vm_files.own_disk(instance, 2, DISK)
    instance.layers.rename(tmp_path / "elsewhere")
    instance.layers.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OSError, match=r"Not a directory|Too many levels"):
        vm_files.own_disk(instance, 2, DISK)


def test_a_reused_pid_is_nobodys_machine() -> None:
    child = subprocess.Popen(["sleep", "60"])
    try:
        started = processes.start_time(child.pid)
        assert started is not None
        mine = Record(child.pid, started, 2, os.getuid())
        assert processes.alive(mine)
        for other in (Record(child.pid, started + 1, 2, os.getuid()), Record(child.pid, started, 2, 12345)):
            assert not processes.alive(other)
            processes.kill(other)
        assert child.poll() is None, "a record that does not fit kills nothing"
        processes.kill(mine)
        assert child.wait(10) == -9
        assert not processes.alive(mine)
    finally:
        child.kill()
        child.wait(10)


def test_records_survive_and_broken_ones_are_none(tmp_path: Path) -> None:
    record = Record(4, 5, 6, 7, exit=-9)
    processes.write(tmp_path, record)
    assert processes.read(tmp_path) == record
    for broken in (b'{"pid": 4', b'{"pid": 4, "started": "\xff"}', b""):
        (tmp_path / "process.json").write_bytes(broken)
        assert processes.read(tmp_path) is None


def test_a_host_without_cgroups_is_served_and_told_so(tmp_path: Path) -> None:
    none = cgroups.detect("ussycode-7", tmp_path)
    assert (none.version, none.enter(2, Limits(1, 2, 3)), none.used(2)) == (0, [], (-1, -1, -1))
    assert "limited by nothing" in none.why


def test_version_2_is_preferred_and_its_limits_are_written(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "ussycode-7"):
        folder.mkdir(exist_ok=True)
        (folder / "cgroup.controllers").write_text("cpu memory pids")
        (folder / "cgroup.subtree_control").write_text("memory pids cpu")
    two = cgroups.detect("ussycode-7", tmp_path)
    assert two.version == 2
    place = tmp_path / "ussycode-7" / "vm-2"
    place.mkdir()
    for file in ("cgroup.procs", "cpu.weight", "cpu.max", "io.max"):
        (place / file).touch()
    for join in two.enter(2, Limits(memory=1 << 29, threads=130, shares=100, vcpus=1, disk="8:0")):
        os.close(join)
    written = [(place / name).read_text() for name in ("memory.max", "pids.max", "cpu.weight", "cpu.max")]
    assert written == ["536870912", "130", "100", "200000 100000"]
    assert (place / "io.max").read_text().startswith("8:0 rbps=524288000 wbps=")
    assert two.why == "cgroup v2 without io", "the fake host does not offer it"


def test_version_1_gets_the_same_limits_controller_by_controller(tmp_path: Path) -> None:
    for controller in ("memory", "pids", "cpu", "cpuacct", "blkio"):
        place = tmp_path / controller / "ussycode-7" / "vm-2"
        place.mkdir(parents=True)
        (tmp_path / controller / "cgroup.procs").touch()
    for file in ("cpu/{}/cpu.shares", "cpu/{}/cpu.cfs_quota_us", "cpu/{}/cpu.cfs_period_us", "blkio/{}/cgroup.procs",
                 "blkio/{}/blkio.throttle.write_bps_device", "memory/{}/cgroup.procs", "pids/{}/cgroup.procs",
                 "cpu/{}/cgroup.procs", "cpuacct/{}/cgroup.procs"):
        (tmp_path / file.format("ussycode-7/vm-2")).touch()
    one = cgroups.detect("ussycode-7", tmp_path)
    assert (one.version, one.why) == (1, "cgroup v1 does not bound writes that the host's memory takes first")
    for join in one.enter(2, Limits(memory=1 << 29, threads=130, shares=200, vcpus=2, disk="254:0")):
        os.close(join)

    def said(file: str) -> str:
        return (tmp_path / file.format("ussycode-7/vm-2")).read_text()

    assert (said("memory/{}/memory.limit_in_bytes"), said("pids/{}/pids.max")) == ("536870912", "130")
    assert (said("cpu/{}/cpu.shares"), said("cpu/{}/cpu.cfs_quota_us")) == ("2048", "300000")
    assert said("blkio/{}/blkio.throttle.write_bps_device") == "254:0 524288000"


def test_a_clone_reads_its_templates_memory_and_shares_nothing_it_writes() -> None:
    fds = Descriptors(tap=5, qmp=6, agent=7, console=8, memory=9)
    making = command_line.command_line(MACHINE, fds)
    assert any(word.endswith("mem-path=/proc/self/fd/9,share=on") for word in making) and "-kernel" in making
    clone = command_line.command_line(replace(MACHINE, incoming=True), fds)
    assert any(word.endswith("mem-path=/proc/self/fd/9,share=off") for word in clone) and "-kernel" not in clone
    assert "balloon" not in " ".join(making + clone), "inflated in one clone, it would empty pages of all"
    assert 9 in fds.all


def test_a_templates_memory_cannot_be_changed_once_it_is_sealed() -> None:
    held = TemplateMemory()
    one, other = "a" * 32, "b" * 32
    fd = held.make(one, 1)
    os.pwrite(fd, b"written", 0)
    with pytest.raises(PermissionError):
        held.sealed(one, 1)
    with mmap.mmap(fd, 0), pytest.raises(OSError, match="busy"):
        held.seal(one)
    held.seal(one)
    assert [(h.template, h.size, h.sealed) for h in held.held()] == [(one, 4096, True)]
    assert os.pread(held.sealed(one, 1), 7, 0) == b"written"
    for refused in (lambda: os.pwrite(fd, b"x", 0), lambda: os.ftruncate(fd, 0), lambda: mmap.mmap(fd, 0),
                    lambda: held.make(one, 1), lambda: held.sealed(one, 2), lambda: held.sealed(other, 1),
                    lambda: held.seal(other)):
        with pytest.raises(PermissionError):
            refused()
    held.drop(one)
    held.drop(one)
    assert not [*held.held()]
    for number in range(MAX_TEMPLATES):
        held.make(f"{number:032x}", 1)
    with pytest.raises(PermissionError):
        held.make(one, 1)
    for number in range(MAX_TEMPLATES):
        held.drop(f"{number:032x}")
