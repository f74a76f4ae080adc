"""Golden files: `make golden` writes them anew, the tests compare."""
from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest


@pytest.fixture
def golden(request: pytest.FixtureRequest) -> Callable[[str, str], None]:
    """`golden(name, text)`: compare `text` with the file, or write it under --write-golden."""

    def check(name: str, text: str) -> None:
        file = Path(__file__).parent / name
        if request.config.getoption("--write-golden"):
            file.write_text(text)
        assert file.read_text() == text, f"{name} is not what the code says; run make golden and review the diff"

    return check
