"""The operator is told what this host's kernel cannot enforce."""
from __future__ import annotations

from pathlib import Path

import pytest

from ussycode import config as settings
from ussycode.cli import doctor
from ussycode.runtime.images import confine
from ussycode.runtime.privileged import cgroups


@pytest.mark.parametrize(("version", "why", "landlock", "said"), [
    (2, "", 1, "cgroup v2 limits each VM's process, and Landlock"),
    (1, "cgroup v1 without blkio", 4, "weaker here: cgroup v1 without blkio"),
    (0, "no memory controller", 0, "nothing limits each VM's process; weaker here: no memory controller; no Landlock"),
])
def test_walls_that_are_missing_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: int, why: str, landlock: int, said: str,
) -> None:
    monkeypatch.setattr(cgroups, "detect", lambda name: cgroups.Cgroups(version, name, why, tmp_path))
    monkeypatch.setattr(confine, "landlock", lambda: landlock)
    (found,) = (one for one in doctor.examine(settings.load({"data_dir": str(tmp_path)}, {})) if one.name == "walls")
    assert said in found.found and bool(found.todo) == ("weaker" in found.found)
