"""Who is inside which VM right now, so that losing a key, a share or a VM ends it at once."""
from __future__ import annotations

import asyncio
import inspect
import math
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from ussycode.access.decide import Decision, Reply
from ussycode.base.errors import ErrorCode, Kind
from ussycode.base.events import Event
from ussycode.ports import App, Attach
from ussycode.sharing import standing

T = TypeVar("T")
ENDED = ErrorCode("ssh.ended", Kind.UNAVAILABLE, "this session was ended: {why}", hint="ls shows your VMs")
KEY_GONE = "its key was removed"
NO_MORE = "you may no longer be in this VM"
CHANGES = ("share.", "email.", "user.", "vm.transferred", "vm.tagged", "key.tagged")
"""Events after which somebody may have lost a VM."""


@dataclass(frozen=True, eq=False)
class Visit:
    """One session or forwarded connection into a VM. `key` is the fingerprint it came with."""

    vm: str
    key: str
    ended: asyncio.Future[str]


class Visits:
    """All visits of one door."""

    def __init__(self, app: App) -> None:
        self._app = app
        self._open: set[Visit] = set()

    async def during(self, where: Attach, key: str, work: Coroutine[Any, Any, T]) -> T:
        """Result of `work`, which is a visit while it runs. Raises ENDED when it may not go on, or not even begin."""
        task = asyncio.create_task(self._begin(where, key, work))
        visit = Visit(where.vm, key, asyncio.get_running_loop().create_future())
        self._open.add(visit)
        until = where.until
        try:
            both: list[asyncio.Future[Any]] = [task, visit.ended]
            while not task.done():
                await asyncio.wait(both, timeout=self._left(until), return_when=asyncio.FIRST_COMPLETED)
                if task.done():
                    break
                if visit.ended.done():
                    raise ENDED(why=visit.ended.result())
                until = await self._again(where.vm, key)
            return task.result()
        finally:
            task.cancel()
            if inspect.getcoroutinestate(work) == inspect.CORO_CREATED:
                work.close()
            visit.ended.cancel()
            self._open.discard(visit)

    async def _begin(self, where: Attach, key: str, work: Coroutine[Any, Any, T]) -> T:
        # It was allowed before the VM was waited for: what changed since was told to visits that had begun.
        await self._again(where.vm, key)
        return await work

    def _left(self, until: float) -> float | None:
        return None if math.isinf(until) else max(0.0, until - self._app.clock.now())

    async def _again(self, vm: str, key: str) -> float:
        """Until when it may go on. Raises ENDED when it may not."""
        decision = (await standing.of(self._app, [(key, vm)]))[key, vm]
        if not decision.allowed:
            raise ENDED(why=_why(decision))
        return decision.until

    async def heard(self, events: Sequence[Event]) -> None:
        """End what a removed key, a removed VM or a share taken back no longer allows."""
        for event in events:
            if event.kind == "key.removed":
                gone = event.data.get("fingerprint")
                self._end(lambda visit, gone=gone: visit.key == gone, KEY_GONE)  # type: ignore[misc]
            elif event.kind in ("vm.removed", "vm.trashed"):
                vm = event.subject
                self._end(lambda visit, vm=vm: visit.vm == vm, "the VM was removed")  # type: ignore[misc]
        if any(event.kind.startswith(CHANGES) for event in events):
            await self._recheck()

    async def _recheck(self) -> None:
        stays = {(visit.key, visit.vm) for visit in self._open}
        if not stays:
            return
        for stay, decision in (await standing.of(self._app, stays)).items():
            if not decision.allowed:
                self._end(lambda visit, stay=stay: (visit.key, visit.vm) == stay, _why(decision))  # type: ignore[misc]

    def _end(self, matches: Callable[[Visit], bool], why: str) -> None:
        for visit in [v for v in self._open if matches(v) and not v.ended.done()]:
            visit.ended.set_result(why)


def _why(decision: Decision) -> str:
    return KEY_GONE if decision.reply is Reply.LOGIN else NO_MORE
