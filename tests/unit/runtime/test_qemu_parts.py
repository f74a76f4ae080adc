"""The parts of the QEMU driver that need no QEMU: endings, console, saved state, disks."""
from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

from tests.contract.check_driver import want
from ussycode.base.errors import Failure
from ussycode.runtime import disks
from ussycode.runtime.driver import Phase
from ussycode.runtime.drivers.qemu import console, endings, fullness, saved
from ussycode.runtime.privileged.processes import Record


@pytest.mark.parametrize(("booted", "reason", "status", "phase", "word"), [
    (True, "guest-shutdown", 0, Phase.STOPPED, "powered itself off"),
    (True, "guest-reset", 0, Phase.STARTING, ""),
    (True, "", 0, Phase.STOPPED, "powered itself off"),
    (True, "", -9, Phase.FAILED, "SIGKILL"),
    (True, "host-signal", -15, Phase.FAILED, "SIGTERM"),
    (True, "", 1, Phase.FAILED, "exit status 1"),
    (True, "", None, Phase.FAILED, "unexpectedly"),
    (False, "guest-reset", 0, Phase.FAILED, "while it was booting"),
    (False, "", 1, Phase.FAILED, "exit status 1"),
])
def test_how_it_ended_says_what_it_became(
    booted: bool, reason: str, status: int | None, phase: Phase, word: str
) -> None:
    ending = endings.watched(booted, reason, status)
    assert ending.phase is phase
    assert word in ending.detail


def test_after_a_restart_of_the_host_machines_are_started_again() -> None:
    assert endings.unwatched(None).phase is Phase.PREPARED
    assert endings.unwatched(Record(1, 1, 2, 3)).phase is Phase.PREPARED
    assert endings.unwatched(Record(1, 1, 2, 3, exit=0)).phase is Phase.STOPPED
    assert endings.unwatched(Record(1, 1, 2, 3, exit=-9)).phase is Phase.FAILED


def test_a_hostile_console_is_shown_as_plain_lines(tmp_path: Path) -> None:
    log = tmp_path / "console.log"
    log.write_bytes(b"\x1b[2J\x1b]0;title\x07one\r\n\n\x1b[31mtwo\x1b[0m \x9b\xff\xe2\x80\xaetxt\n" + b"x" * 5000)
    lines = console.last_lines(log).split("\n")
    assert lines[0] == "one"
    assert lines[1].startswith("two ") and "\u202e" not in lines[1]
    assert len(lines[2]) <= 200
    assert console.last_lines(tmp_path / "none") == ""
    log.write_bytes(b"line\n" * 100_000)
    assert len(console.last_lines(log).split("\n")) == console.MAX_LINES


def test_a_flooded_console_is_cut_and_goes_on(tmp_path: Path) -> None:
    log = tmp_path / "console.log"
    console.trim(log)
    writer = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.write(writer, b"early\n" + b"z" * console.MAX_BYTES)
    console.trim(log)
    assert log.stat().st_size == console.KEPT_BYTES
    os.write(writer, b"\nlate\n")
    os.close(writer)
    assert console.last_lines(log).endswith("\nlate")


def test_state_survives_and_one_bad_folder_hides_no_other(tmp_path: Path) -> None:
    state = saved.Saved(want(), "digest", "tiny", "ussy", 8000, Phase.RUNNING, boot=3)
    for name in (want().vm, "vm_broken", "vm_misplaced"):
        (tmp_path / name).mkdir()
    saved.save(tmp_path / want().vm, state)
    saved.save(tmp_path / "vm_misplaced", state)
    (tmp_path / "vm_broken" / "vm.json").write_bytes(b'{"digest": "\xff"}')
    assert list(saved.every(tmp_path)) == [state]
    assert (tmp_path / want().vm / "vm.json").stat().st_mode & 0o777 == 0o600
    saved.forget(tmp_path / want().vm)
    saved.forget(tmp_path / want().vm)


def test_a_disk_is_an_overlay_and_is_made_once(tmp_path: Path) -> None:
    base, disk = tmp_path / "disk.raw", tmp_path / "disk.qcow2"
    base.write_bytes(b"\0" * 4096)
    disks.make_overlay(base, disk, 5)
    made = disk.stat()
    disks.make_overlay(base, disk, 5)
    assert (disk.stat().st_ino, made.st_size < 1 << 20, made.st_mode & 0o777) == (made.st_ino, True, 0o600)
    said = subprocess.run(["qemu-img", "info", "--output=json", disk], capture_output=True, check=True).stdout
    told = json.loads(said)
    assert (told["virtual-size"], told["backing-filename"]) == (5 << 30, str(base))
    assert told["backing-filename-format"] == "raw"
    subprocess.run(["qemu-img", "check", "-q", disk], check=True)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["disk.qcow2", "disk.raw"]


@pytest.mark.parametrize(("used", "said"), [
    (0, ""), (79, ""), (80, "its disk is 80 % full"), (94, "its disk is 94 % full"),
    (95, "its disk is 95 % full: remove something, or make it larger with resize, before writing fails"),
    (100, "its disk is 100 % full: remove something, or make it larger with resize, before writing fails"),
])
def test_an_owner_is_warned_at_80_and_urged_at_95_percent(used: int, said: str) -> None:
    assert fullness.warning(100 << 20, 100 - used << 20) == said


@pytest.mark.parametrize(("total", "free"), [(-1, -1), (0, 0), (10, 11), (10, -1)])
def test_a_guest_that_says_nonsense_of_its_disk_is_not_warned(total: int, free: int) -> None:
    assert fullness.warning(total, free) == ""


def test_a_full_host_and_a_missing_image_say_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(Failure, match="could not be made"):
        disks.make_overlay(tmp_path / "none.raw", tmp_path / "disk.qcow2", 5)
    assert list(tmp_path.iterdir()) == []
    monkeypatch.setattr(disks, "SPARE_MIB", 1 << 40)
    with pytest.raises(Failure, match="disk is full"):
        disks.make_overlay(tmp_path / "none.raw", tmp_path / "disk.qcow2", 5)
