"""The page about isolation names the test of each claim: each is there, and none of them is missing from the page."""
from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "guide" / "isolation.md").read_text()


@pytest.mark.parametrize("file", ["test_isolation", "test_confinement"])
def test_each_claim_has_its_test_and_each_test_is_a_claim(file: str) -> None:
    tests = re.findall(r"^async def (test_\w+)", (ROOT / "tests" / "live" / f"{file}.py").read_text(), re.M)
    assert len(tests) > 5
    assert [name for name in tests if f"`{name}`" not in PAGE] == []


def test_no_test_is_named_that_is_not_there() -> None:
    files = (ROOT / "tests" / "live" / f"{name}.py" for name in ("test_isolation", "test_confinement"))
    known = "".join(file.read_text() for file in files)
    named = re.findall(r"`(test_\w+)`", PAGE)
    assert len(named) > 20 and [name for name in named if f"def {name}(" not in known] == []
