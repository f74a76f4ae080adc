"""One build of the guest program for all tests here, and an agent of its own for each."""
from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from host_agent import HostAgent, start_configured

from ussycode.runtime.guest.build import build


@pytest.fixture(scope="session")
def guest_program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("guest-program"))


@pytest.fixture
async def agent(guest_program: Path, tmp_path: Path) -> AsyncIterator[HostAgent]:
    running = await start_configured(guest_program, tmp_path / "root")
    yield running
    await running.stop()
