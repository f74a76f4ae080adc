"""The KVM probe: tells a missing device, a forbidden one, a QEMU that ends and a guest that hangs apart."""
from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import get_args

import pytest

from ussycode.runtime import kvm
from ussycode.runtime.kernel import BootFiles
from ussycode.runtime.kvm import Trial

BOOT = BootFiles(Path("/nonexistent/vmlinux"), Path("/nonexistent/initrd"), "6.1", "digest")


@pytest.fixture
def trial(tmp_path: Path) -> Trial:
    boot_id = tmp_path / "boot_id"
    boot_id.write_text("this-boot")
    return Trial(pvm=tmp_path / "no-pvm", device=tmp_path / "kvm", boot_id=boot_id, seconds=5.0)


@pytest.fixture
def qemu(tmp_path: Path) -> Callable[[str], str]:
    """A stand-in for QEMU: a shell script that knows --version and then does `body`."""
    def write(body: str) -> str:
        path = tmp_path / "qemu"
        path.write_text(f'#!/bin/sh\necho run >> {tmp_path}/runs\n[ "$1" = --version ] && exec echo QEMU 7\n{body}\n')
        path.chmod(0o755)
        return str(path)
    return write


def test_a_host_without_the_device(trial: Trial) -> None:
    verdict = kvm.glance(trial)
    assert verdict is not None and verdict.outcome == "no-device"
    assert not verdict.usable


def test_a_device_that_is_something_else(trial: Trial) -> None:
    verdict = kvm.glance(replace(trial, device=Path("/dev/null")))
    assert verdict is not None and verdict.outcome == "no-device"


def test_a_paravirtual_host_is_recognised_before_anything_is_started(trial: Trial, tmp_path: Path) -> None:
    verdict = kvm.probe(BOOT, tmp_path, replace(trial, pvm=tmp_path, qemu="/nonexistent/qemu"))
    assert (verdict.usable, verdict.outcome) == (False, "pvm")


def test_a_qemu_that_ends_is_told_with_its_words(trial: Trial, qemu: Callable[[str], str]) -> None:
    refusing = replace(trial, qemu=qemu("echo 'failed to initialize kvm: Invalid argument' >&2; exit 1"))
    verdict = kvm.attempt(BOOT, refusing)
    assert verdict.outcome == "qemu-exited"
    assert "failed to initialize kvm" in verdict.why


def test_a_guest_that_says_nothing_is_a_hang_within_the_bound(trial: Trial, qemu: Callable[[str], str]) -> None:
    verdict = kvm.attempt(BOOT, replace(trial, qemu=qemu("exec sleep 60"), seconds=0.2))
    assert (verdict.usable, verdict.outcome) == (False, "hang")


def test_every_outcome_but_ok_says_what_to_do() -> None:
    for outcome in get_args(kvm.Outcome):
        verdict = kvm.KvmVerdict(outcome == "ok", outcome, "why")
        assert bool(verdict.todo) == (outcome != "ok")


@pytest.mark.parametrize(("body", "kept"), [("exec sleep 60", True), ("exit 1", False)], ids=["hang", "exited"])
def test_a_hang_is_remembered_and_a_refusal_is_tried_again(
    trial: Trial, qemu: Callable[[str], str], tmp_path: Path, body: str, kept: bool,
) -> None:
    slow = replace(trial, qemu=qemu(body), seconds=0.2)
    cache = tmp_path / "cache"
    first = kvm.tried(BOOT, cache, slow)
    runs = (tmp_path / "runs").read_text().count("run")
    assert kvm.tried(BOOT, cache, slow).outcome == first.outcome
    again = (tmp_path / "runs").read_text().count("run") - runs
    assert again == (1 if kept else 2)  # asking for QEMU's version always happens, the boot only when not kept
    trial.boot_id.write_text("next-boot")
    assert kvm.tried(BOOT, cache, slow).outcome == first.outcome
    assert len(list(cache.glob("kvm-*.json"))) == (2 if kept else 0)
