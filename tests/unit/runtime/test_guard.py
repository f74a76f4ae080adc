"""The network is looked after on a timer, whatever one look comes to."""
from __future__ import annotations

import asyncio

import pytest
from structlog.testing import capture_logs

from ussycode.runtime.net import guard
from ussycode.runtime.privileged.protocol import HELPER_GONE


async def test_it_is_looked_after_again_and_again_also_after_a_failure() -> None:
    looks: list[int] = []

    async def check() -> tuple[str, ...]:
        looks.append(len(looks))
        if len(looks) == 1:
            raise HELPER_GONE()
        if len(looks) == 4:
            raise asyncio.CancelledError
        return ("the rules had been removed",) if len(looks) == 2 else ()

    with capture_logs() as told, pytest.raises(asyncio.CancelledError):
        async with asyncio.timeout(5):
            await guard.watch(check, 0.001)
    assert [line["event"] for line in told] == ["network not checked", "network mended"]
    assert told[1]["what"] == "the rules had been removed"
    assert 0 < guard.CHECK_SECONDS <= 10, "what the guide says"
