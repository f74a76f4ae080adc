"""Programs of the host: bounded, and their failures are sentences."""
from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from ussycode.base.errors import Failure
from ussycode.runtime import host_tool, publish


def test_a_missing_program_names_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host_tool, "ADMIN_PATH", "")
    monkeypatch.setenv("PATH", "/nonexistent")
    with pytest.raises(Failure) as refused:
        host_tool.find("mkfs.ext4")
    assert "apt-get install e2fsprogs" in refused.value.hint


def test_a_failing_program_is_told_by_its_last_words() -> None:
    with pytest.raises(Failure) as failed:
        host_tool.run(["sh", "-c", "echo first >&2; echo the reason >&2; echo >&2; exit 3"], timeout=10)
    assert failed.value.sentence == "sh failed: the reason"
    assert "first" in failed.value.detail


def test_a_slow_program_ends_with_everything_it_started(tmp_path: Path) -> None:
    with pytest.raises(Failure) as late:
        host_tool.run(["sh", "-c", f"sleep 60 & echo $! > {tmp_path}/pid; wait"], timeout=0.3)
    assert late.value.error is host_tool.TOOL_SLOW
    child = (tmp_path / "pid").read_text().strip()
    state = subprocess.run(["ps", "-o", "stat=", "-p", child], capture_output=True, text=True, check=False)
    assert state.stdout.strip()[:1] in {"", "Z"}


def test_output_is_returned_and_input_is_never_asked_for() -> None:
    assert host_tool.run(["sh", "-c", "cat; echo $LC_ALL"], timeout=10) == "C.UTF-8\n"


def test_scratch_folders_go_away_also_when_the_work_fails(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), publish.staging(tmp_path) as folder:
        (folder / "half").write_text("made")
        raise ZeroDivisionError
    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_builder_left_is_removed_by_the_next(tmp_path: Path) -> None:
    (tmp_path / ".building-old/half").mkdir(parents=True)
    with publish.staging(tmp_path) as folder:
        assert list(tmp_path.iterdir()) == [folder]


def test_the_first_to_publish_wins(tmp_path: Path) -> None:
    for content in ("first", "second"):
        with publish.staging(tmp_path) as folder:
            (folder / "built").mkdir()
            (folder / "built/file").write_text(content)
            publish.publish(folder / "built", tmp_path / "final")
    assert (tmp_path / "final/file").read_text() == "first"
    assert [path.name for path in tmp_path.iterdir()] == ["final"]
