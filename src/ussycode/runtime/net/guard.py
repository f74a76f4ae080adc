"""Looks after the rules on a timer: somebody else's firewall script must not open the walls for long."""
from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import structlog

from ussycode.base.errors import Failure

CHECK_SECONDS = 10.0
"""Longest time for which removed rules or a lost interface stay unnoticed."""
_log = structlog.get_logger("ussycode.net")


async def watch(check: Callable[[], Awaitable[tuple[str, ...]]], interval: float = CHECK_SECONDS) -> None:
    """Call `check` every `interval` seconds until cancelled; what it mended is logged as a warning each."""
    while True:
        await asyncio.sleep(interval)
        try:
            for sentence in await check():
                _log.warning("network mended", what=sentence)
        except Failure as failure:
            _log.warning("network not checked", why=failure.sentence, detail=failure.detail)
