"""What product tests share."""
from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.product.ssh_world import SshWorld, ssh_world
from ussycode.runtime.guest.build import build


@pytest.fixture(scope="session")
def guest_program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The guest program, compiled once."""
    return build(tmp_path_factory.mktemp("guest"))


@pytest.fixture
async def place(guest_program: Path, tmp_path: Path) -> AsyncIterator[SshWorld]:
    """A platform with an SSH door and open registration."""
    async with ssh_world(guest_program, tmp_path) as made:
        yield made
