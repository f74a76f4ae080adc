"""A VM leaves as a file and comes back whole: as a disk, as an archive, and as a machine of a stock QEMU."""
from __future__ import annotations

import json
import subprocess
import threading
from pathlib import Path

import pytest

from tests.live.rig import Platform
from tests.live.test_main_loop import token
from ussycode.runtime.kernel import BootFiles
from ussycode.runtime.privileged.command_line import QEMU
from ussycode.runtime.tsc import tsc_khz

_CLOCK = "tsc=reliable no_timer_check nokaslr"
"""Without which this kernel stalls under software emulation."""
pytestmark = pytest.mark.timeout(600)


@pytest.fixture(scope="module")
def files(lived: Platform, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A VM that wrote something, in all three forms."""
    folder = tmp_path_factory.mktemp("exported")
    assert lived.lobby("new --name mover --env COLOUR=green", seconds=120).status == 0
    wrote = lived.ssh("mover@localhost", "head -c 3M /dev/urandom > big; echo precious > note; chmod 600 note; "
                                         "sudo setcap cap_net_raw+ep /bin/ping 2>/dev/null; sync; sha256sum big")
    assert wrote.status == 0, wrote
    (folder / "sum").write_text(wrote.out)
    for form in ("qcow2", "oci", "tar"):
        line = f"ssh -p {lived.ports['ssh']} localhost export mover --format {form} > {folder / form}"
        done = lived.program("sh", "-c", line, seconds=200)
        assert done.status == 0, done
        print(f"{form}: {(folder / form).stat().st_size >> 20} MiB")
    assert lived.lobby("rm mover --now", seconds=60).status == 0
    return folder


@pytest.mark.parametrize("form", ["qcow2", "oci", "tar"])
def test_what_a_vm_held_is_in_the_vm_that_is_made_of_its_file(lived: Platform, files: Path, form: str) -> None:
    line = f"ssh -p {lived.ports['ssh']} localhost import back < {files / form}"
    done = lived.program("sh", "-c", line, seconds=300)
    assert done.status == 0, done
    user = "root" if form == "tar" else "ussy"
    said = lived.ssh("back@localhost", "id -un; cd /home/ussy; sha256sum big; cat note; "
                                     "stat -c '%a %U' note; df -BG / | tail -1")
    lines = said.out.splitlines()
    assert lines[:4] == [user, (files / "sum").read_text().strip(), "precious", "600 ussy"], said
    assert int(lines[4].split()[1].rstrip("G")) >= 4, "it has the size that was asked for, not the file's"
    assert lived.lobby("rm back --now", seconds=60).status == 0
    assert lived.lobby("image rm localhost/back", seconds=60).status == 0


def test_https_takes_it_too_and_a_hostile_one_is_refused(lived: Platform, files: Path, tmp_path: Path) -> None:
    bearer = f"Authorization: Bearer {token(lived, 'admin', json.dumps({'cmds': ['import', 'rm']}))}"
    url = lived.url("localhost", "/import/posted")
    got = lived.curl("-H", bearer, "-T", str(files / "qcow2"), url, seconds=200)
    assert json.loads(got.out)["image"] == "localhost/posted", got
    assert lived.ssh("posted@localhost", "cat note").out == "precious\n"
    assert lived.lobby("rm posted --now", seconds=60).status == 0
    evil = tmp_path / "evil.qcow2"
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", "-F", "raw", "-b", "/etc/shadow", evil, "8M"],
                   check=True, timeout=30)
    got = lived.curl("-H", bearer, "-T", str(evil), lived.url("localhost", "/import/evil"), seconds=60)
    assert "stands on another file" in json.loads(got.out)["error"], got


def test_a_stock_qemu_boots_the_exported_disk(files: Path, boot: BootFiles, tmp_path: Path) -> None:
    """With nothing of ours but kernel and initrd: Debian's QEMU, its usual machine, the disk as the root it is."""
    subprocess.run(["qemu-img", "check", "-q", "-f", "qcow2", files / "qcow2"], check=True, timeout=60)
    process = subprocess.Popen(
        [QEMU, "-M", "microvm,acpi=on", "-accel", "tcg", "-cpu", "max", "-m", "256", "-nodefaults", "-no-user-config",
         "-display", "none", "-no-reboot", "-snapshot", "-kernel", boot.kernel, "-initrd", boot.initrd,
         "-append", f"console=ttyS0 rw panic=-1 {_CLOCK} tsc_early_khz={tsc_khz()} ussy.init=/bin/sh",
         "-serial", "stdio",
         "-drive", f"id=d,file={files / 'qcow2'},format=qcow2,if=none", "-device", "virtio-blk-device,drive=d"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )
    guard = threading.Timer(120, process.kill)
    guard.start()
    seen = b""
    try:
        assert process.stdin is not None and process.stdout is not None
        process.stdin.write(b"cat /home/ussy/note\n")
        process.stdin.flush()
        while b"precious" not in seen:
            line = process.stdout.readline()
            assert line, seen[-3000:].decode(errors="replace")
            seen += line
    finally:
        guard.cancel()
        process.kill()
        process.wait(10)
