"""Two installations on one host never share a number."""
from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from ussycode.base.errors import Failure
from ussycode.runtime import instance as instances
from ussycode.runtime.instance import LAST_TEMPLATE, NO_SLOT, SLOTS, claim, load


def folder(tmp_path: Path, name: str) -> Path:
    path = tmp_path / name
    path.mkdir()
    return path


def test_a_folder_keeps_its_slot(tmp_path: Path) -> None:
    data = folder(tmp_path, "a")
    first = claim(data, run_root=tmp_path / "run")
    assert claim(data, run_root=tmp_path / "run") == first == load(data, run_root=tmp_path / "run")
    assert load(folder(tmp_path, "never-claimed")) is None


def test_a_restart_of_the_host_forgets_claims_but_not_slots(tmp_path: Path) -> None:
    data, run = folder(tmp_path, "a"), tmp_path / "run"
    slot = claim(data, run_root=run).slot
    shutil.rmtree(run)
    assert claim(data, run_root=run).slot == slot


def test_two_live_instances_share_nothing(tmp_path: Path) -> None:
    made = [claim(folder(tmp_path, f"i{n}"), run_root=tmp_path / "run") for n in range(SLOTS)]
    for facet in ("slot", "tap_prefix", "table", "pool", "uid_base", "metadata_port", "dns_port", "run"):
        assert len({getattr(one, facet) for one in made}) == SLOTS
    prefixes = [one.tap(2) for one in made]
    assert not [p for one in made for p in prefixes if p.startswith(one.tap_prefix) and p != one.tap(2)]
    with pytest.raises(Failure) as refused:
        claim(folder(tmp_path, "one-too-many"), run_root=tmp_path / "run")
    assert refused.value.error is NO_SLOT


def test_a_removed_instance_gives_its_slot_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(instances, "SLOTS", 1)
    claim(folder(tmp_path, "gone"), run_root=tmp_path / "run")
    shutil.rmtree(tmp_path / "gone")
    assert claim(folder(tmp_path, "next"), run_root=tmp_path / "run").slot == 0


def test_every_vm_number_fits(tmp_path: Path) -> None:
    one = claim(folder(tmp_path, "a"), run_root=tmp_path / "run")
    assert len(one.tap(LAST_TEMPLATE)) <= 15
    assert one.uid(LAST_TEMPLATE) < one.uid_base + 65536
    assert one.address(258).endswith(".1.2")
    assert one.mac(258).endswith(":01:02")
    for number in (-1, 0, 1, LAST_TEMPLATE + 1):
        with pytest.raises(ValueError, match="outside"):
            one.uid(number)


def test_the_operator_may_choose_another_pool(tmp_path: Path) -> None:
    data = folder(tmp_path, "a")
    assert claim(data, "100.64.0.0/16", tmp_path / "run").address(2) == "100.64.0.2"
    with pytest.raises(ValueError, match="too small"):
        claim(data, "192.168.7.0/24", tmp_path / "run")
