"""Lines of the lobby come back on the next visit; what may be secret does not."""
from __future__ import annotations

import pytest

from tests.world import world
from ussycode.identity import lines


async def test_lines_come_back_in_order_and_the_oldest_go() -> None:
    async with world() as w:
        olive, sam = await w.person("olive"), await w.person("sam")
        for n in range(lines.MAX_LINES + 5):
            await lines.remember(w.app, olive.user, f"ls {n}")
        kept = await lines.remembered(w.app, olive.user)
        assert (len(kept), kept[-1]) == (lines.MAX_LINES, f"ls {lines.MAX_LINES + 4}")
        assert await lines.remembered(w.app, sam.user) == []


@pytest.mark.parametrize("line", [
    "", "   ", " ls", "usy0-to-usy1 usy0.abc", "new --env TOKEN=1", "image pull x --registry-auth a:b",
    "defaults write dev.exe new.env A=1", "ls " + "x" * 1000,
])
async def test_hidden_secret_and_overlong_lines_are_not_kept(line: str) -> None:
    async with world() as w:
        olive = await w.person("olive")
        await lines.remember(w.app, olive.user, line)
        assert await lines.remembered(w.app, olive.user) == []


async def test_the_same_line_twice_is_kept_once() -> None:
    async with world() as w:
        olive = await w.person("olive")
        for line in ("ls", "ls", "whoami", "ls"):
            await lines.remember(w.app, olive.user, line)
        assert await lines.remembered(w.app, olive.user) == ["ls", "whoami", "ls"]
