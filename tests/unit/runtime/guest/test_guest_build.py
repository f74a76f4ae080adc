"""The guest program is compiled once per version, and its absence of a compiler is a sentence."""
from __future__ import annotations

from pathlib import Path

import pytest

from ussycode.base import resources
from ussycode.base.errors import Failure
from ussycode.runtime.guest import errors
from ussycode.runtime.guest.build import build, build_id


def test_a_second_build_compiles_nothing(guest_program: Path) -> None:
    before = guest_program.stat().st_mtime_ns
    assert build(guest_program.parent) == guest_program
    assert guest_program.stat().st_mtime_ns == before
    assert guest_program.name.endswith(build_id(resources.path("guest")))


def test_the_program_is_static(guest_program: Path) -> None:
    assert b"ld-musl" not in guest_program.read_bytes()


def test_without_a_compiler_it_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(Failure) as missing:
        build(tmp_path / "out")
    assert missing.value.error is errors.NO_COMPILER
    assert "musl-tools" in missing.value.hint


def test_a_failed_build_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    compiler = tmp_path / "bin" / "musl-gcc"
    compiler.parent.mkdir()
    compiler.write_text("#!/bin/sh\necho 'agent.c:1: error: no' >&2\nexit 1\n")
    compiler.chmod(0o755)
    monkeypatch.setenv("PATH", f"{compiler.parent}:/usr/bin:/bin")
    with pytest.raises(Failure) as failed:
        build(tmp_path / "out")
    assert "agent.c:1" in failed.value.sentence
    assert list((tmp_path / "out").iterdir()) == []
