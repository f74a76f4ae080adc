"""Everything exe.dev's command line has is here, or says why it is not; each row names a test that exists."""
from __future__ import annotations

import importlib.util
import re
import sys
from pathlib import Path
from types import ModuleType

import pytest

from tests.world import world
from ussycode.catalog import COMMANDS

ROOT = Path(__file__).parents[2]


def load() -> ModuleType:
    spec = importlib.util.spec_from_file_location("parity", ROOT / "scripts" / "parity.py")
    assert spec is not None and spec.loader is not None
    module = sys.modules["parity"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


ROWS = load().rows()


@pytest.mark.parametrize("row", ROWS, ids=lambda r: r.usage.split()[0])
def test_each_row_is_here_or_says_why_not(row: object) -> None:
    assert row.ours is not None or row.absent, f"{row.theirs} is an unknown command"  # type: ignore[attr-defined]
    assert row.verdict == "same" or ": " in row.verdict  # type: ignore[attr-defined]


@pytest.mark.parametrize("row", ROWS, ids=lambda r: r.usage.split()[0])
def test_each_row_names_a_test_that_exists(row: object) -> None:
    path, _, name = row.test.partition("::")  # type: ignore[attr-defined]
    assert re.search(rf"^(async )?def {name}\(", (ROOT / path).read_text(), re.M), row


def test_the_page_says_what_the_declarations_say() -> None:
    kept = (ROOT / "docs" / "parity-with-exe-dev.md").read_text()
    assert all(f"`{c.name}`" in kept or any(r.ours is c for r in ROWS) for c in COMMANDS)
    assert "missing:" not in kept or any(r.ours is None for r in ROWS)


async def test_copies_take_no_pool_either() -> None:
    async with world() as w:
        olive = await w.person("olive")
        await w.does(olive, "new --name demo")
        for flag in ("--pool big", "--standalone", "--sandbox"):
            assert (await w.fails(olive, f"cp demo other {flag}"))[0] == "new.flag_not_offered"
