"""Who has a command running in which VM over HTTP, so that losing a token, a share or a VM ends it at once."""
from __future__ import annotations

import asyncio
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ussycode.base.errors import ErrorCode, Failure, Kind
from ussycode.base.events import Event
from ussycode.ports import App, Attach
from ussycode.sharing import standing
from ussycode.tokens.verify import TokenVerifier

ENDED = ErrorCode("exec.ended", Kind.FORBIDDEN, "this command was ended: you may no longer be in this VM")
NO_MORE = ENDED().sentence
CHANGES = ("share.", "email.", "user.", "key.", "token.revoked", "vm.tagged", "vm.removed", "vm.trashed")
"""Events after which somebody may have lost a VM."""


@dataclass(frozen=True, eq=False)
class Stay:
    """One command under way, and the token it came with."""

    where: Attach
    token: str
    over: asyncio.Future[None]


class Stays:
    """All of one web door. `heard` is told events after the verifier of tokens was."""

    def __init__(self, app: App, tokens: TokenVerifier) -> None:
        self._app, self._tokens = app, tokens
        self._open: set[Stay] = set()
        app.db.listen(self.heard)

    async def wait(self, where: Attach, token: str, work: set[asyncio.Task[Any]]) -> bool:
        """Return once one of `work` is done, False; or once the command may not go on, True."""
        stay = Stay(where, token, asyncio.get_running_loop().create_future())
        self._open.add(stay)
        # It was allowed before the VM was waited for: what changed since was told to those that had begun.
        until = await self._until(stay)
        try:
            while until > -math.inf and not stay.over.done():
                left = None if math.isinf(until) else max(0.0, until - self._app.clock.now())
                done, _ = await asyncio.wait({*work, stay.over}, timeout=left, return_when=asyncio.FIRST_COMPLETED)
                if done & work:
                    return False
                until = await self._until(stay)
            return True
        finally:
            stay.over.cancel()
            self._open.discard(stay)

    async def heard(self, events: Sequence[Event]) -> None:
        """End what is not allowed any more."""
        if not any(event.kind.startswith(CHANGES) for event in events):
            return
        for stay in list(self._open):
            if await self._until(stay) == -math.inf and not stay.over.done():
                stay.over.set_result(None)

    async def _until(self, stay: Stay) -> float:
        """Until when it may go on, in unix seconds; minus infinity when it may not."""
        try:
            caller = await self._tokens.verify(stay.token)
        except Failure:
            return -math.inf
        decision = await standing.of_caller(self._app, caller, stay.where.vm, f"ssh {stay.where.name}")
        ends = decision.until if caller.expires is None else min(decision.until, caller.expires)
        return ends if decision.allowed else -math.inf
