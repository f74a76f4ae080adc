"""Who is inside which VM right now, so that losing a key or a VM ends it at once."""
from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any, TypeVar

from ussycode.base.errors import ErrorCode, Kind

T = TypeVar("T")
ENDED = ErrorCode("ssh.ended", Kind.UNAVAILABLE, "this session was ended: {why}", hint="ls shows your VMs")


@dataclass(frozen=True, eq=False)
class Visit:
    """One session or forwarded connection into a VM. `key` is the fingerprint it came with."""

    vm: str
    key: str
    ended: asyncio.Future[str]


class Visits:
    """All visits of one door."""

    def __init__(self) -> None:
        self._open: set[Visit] = set()

    async def during(self, vm: str, key: str, work: Coroutine[Any, Any, T]) -> T:
        """Result of `work`, which is a visit while it runs. Raises ENDED when `end` cut it short."""
        task = asyncio.create_task(work)
        visit = Visit(vm, key, asyncio.get_running_loop().create_future())
        self._open.add(visit)
        try:
            both: list[asyncio.Future[Any]] = [task, visit.ended]
            await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
            if task.done():
                return task.result()
            raise ENDED(why=visit.ended.result())
        finally:
            task.cancel()
            visit.ended.cancel()
            self._open.discard(visit)

    def end(self, matches: Callable[[Visit], bool], why: str) -> None:
        """End every visit that `matches`."""
        for visit in [v for v in self._open if matches(v) and not v.ended.done()]:
            visit.ended.set_result(why)
