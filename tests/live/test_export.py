"""What a running VM holds is in the file that it is exported to, over SSH and over /exec."""
from __future__ import annotations

import json
import subprocess
import time
from pathlib import Path

from tests.live.rig import Platform
from tests.live.test_main_loop import token


def test_an_exported_disk_is_whole_for_any_qemu(lived: Platform, tmp_path: Path) -> None:
    assert lived.lobby("new --name leaves", seconds=120).status == 0
    assert lived.ssh("leaves@localhost", "head -c 20M /dev/urandom > big; echo precious > note; sync").status == 0
    disk, began = tmp_path / "leaves.qcow2", time.monotonic()
    done = lived.program("sh", "-c", f"ssh -p {lived.ports['ssh']} localhost export leaves > {disk}", seconds=100)
    assert done.status == 0, done
    print(f"export of {disk.stat().st_size >> 20} MiB over SSH: {time.monotonic() - began:.1f} s")
    subprocess.run(["qemu-img", "check", "-q", "-f", "qcow2", disk], check=True, timeout=60)
    assert file_in(disk, "/home/ussy/note", tmp_path) == "precious\n"
    bearer = token(lived, "admin", json.dumps({"cmds": ["export", "rm"]}))
    again = tmp_path / "again.qcow2"
    got = lived.curl("-H", f"Authorization: Bearer {bearer}", "-d", "export leaves", "-o", str(again), "-w",
                     "%{http_code}", lived.url("localhost", "/exec"), seconds=60)
    assert got.out == "200", got
    subprocess.run(["qemu-img", "check", "-q", "-f", "qcow2", again], check=True, timeout=60)
    assert lived.lobby("rm leaves --now", seconds=60).status == 0


def file_in(disk: Path, path: str, folder: Path) -> str:
    """What a file holds, read without the VM and without us."""
    flat = folder / "flat.raw"
    subprocess.run(["qemu-img", "convert", "-f", "qcow2", "-O", "raw", disk, flat], check=True, timeout=60)
    words = ["debugfs", "-R", f"cat {path}", str(flat)]
    said = subprocess.run(words, check=True, capture_output=True, text=True, timeout=30)
    flat.unlink()
    return said.stdout
