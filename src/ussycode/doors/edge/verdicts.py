"""Judgements kept while they hold, and the live exchanges that each of them covers."""
from __future__ import annotations

import math
from typing import Protocol

from ussycode.base.clock import Clock
from ussycode.doors.edge.assertions import PLAIN, Assertions
from ussycode.doors.edge.facts import Judgement, Known, Outcome
from ussycode.doors.edge.hosts import Hosts, Target
from ussycode.doors.edge.pool import Guest, Pool

MAX_KEPT = 4096
"""Judgements kept; past that those without a live exchange are forgotten and made again."""


class Live(Protocol):
    """An exchange that ends when what allowed it ends."""

    def cut(self) -> None: ...


class Verdict:
    """One visitor on one host. `flows` are the exchanges under way because of it."""

    __slots__ = ("credential", "flows", "identity", "judgement", "listener", "pool", "renew_at", "target", "until")

    def __init__(
        self, target: Target, listener: int, credential: bytes | None, judgement: Judgement, pool: Pool | None,
    ) -> None:
        self.target = target
        self.listener = listener
        self.credential = credential
        self.flows: set[Live] = set()
        self.renew(judgement, pool)

    def renew(self, judgement: Judgement, pool: Pool | None) -> None:
        """Hold for a newer judgement; what is under way goes on."""
        self.judgement = judgement
        self.pool = pool
        self.until = judgement.expires
        self.identity = identity(judgement)
        self.renew_at = 0.0 if self.identity and pool is not None else math.inf
        """When the assertion in `identity` must be made (again), in unix seconds."""


class Verdicts:
    """Answers from memory who may what. Every change of the facts goes through `recheck`."""

    def __init__(self, hosts: Hosts, known: Known, clock: Clock, agent_port: int, assertions: Assertions) -> None:
        self.closed = False
        """The grace is over: private hosts are shut. Call `recheck` after setting it."""
        self._hosts = hosts
        self._known = known
        self._clock = clock
        self._agent_port = agent_port
        self._assertions = assertions
        self._kept: dict[tuple[bytes, bytes | None, int], Verdict] = {}
        self._pools: dict[Guest, Pool] = {}

    def get(self, host: bytes, credential: bytes | None, listener: int = 0) -> Verdict:
        """The verdict for lower-case `host` without port and the session cookie's value, or a token behind MARK.

        `listener` is the alternate port that the visitor is connected to; 0 on the ordinary one.
        """
        now = self._clock.now()
        verdict = self._kept.get((host, credential, listener))
        if verdict is None or verdict.until <= now:
            if verdict is not None:
                self.recheck()
            verdict = self._make(host, credential, listener, now)
        if verdict.renew_at <= now:
            self._assert(verdict, now)
        return verdict

    def recheck(self) -> None:
        """Judge again whatever is under way and cut what is not allowed any more; forget the rest."""
        now = self._clock.now()
        for key, verdict in list(self._kept.items()):
            if not verdict.flows or not self._still(verdict, now):
                del self._kept[key]
        current = {(vm.address, vm.secret) for vm in self._known.vms.values()}
        for guest, pool in list(self._pools.items()):
            if (guest.address, guest.secret) not in current:
                pool.shut()
                del self._pools[guest]

    def tick(self, now: float) -> None:
        """Once a second: end idle connections (`now` monotonic) and exchanges whose session has expired."""
        wall = self._clock.now()
        if any(verdict.until <= wall for verdict in self._kept.values()):
            self.recheck()
        wanted = {id(verdict.pool) for verdict in self._kept.values()}
        for guest, pool in list(self._pools.items()):
            pool.prune(now)
            if pool.unused and id(pool) not in wanted:
                del self._pools[guest]

    def shut(self) -> None:
        """Cut everything under way and end every connection."""
        for verdict in list(self._kept.values()):
            _cut(verdict)
        for pool in self._pools.values():
            pool.shut()

    def _make(self, host: bytes, credential: bytes | None, listener: int, now: float) -> Verdict:
        target = self._hosts.target(host.decode("ascii"), listener)
        judgement = self._known.judge(target, credential, now, self.closed)
        verdict = Verdict(target, listener, credential, judgement, self._pool(judgement))
        if len(self._kept) >= MAX_KEPT:
            self._kept = {key: kept for key, kept in self._kept.items() if kept.flows}
        self._kept[host, credential, listener] = verdict
        return verdict

    def _assert(self, verdict: Verdict, now: float) -> None:
        line, verdict.renew_at = self._assertions.line(verdict.judgement.caller, verdict.target.host, now)
        verdict.identity = identity(verdict.judgement) + line

    def _still(self, verdict: Verdict, now: float) -> bool:
        target = self._hosts.target(verdict.target.host, verdict.listener)
        judgement = self._known.judge(target, verdict.credential, now, self.closed)
        pool = self._pool(judgement)
        same_user = judgement.caller.user == verdict.judgement.caller.user
        if judgement.outcome is verdict.judgement.outcome and pool is verdict.pool and same_user:
            verdict.target = target  # a VM that was renamed goes on under its own domain
            verdict.renew(judgement, pool)
            return True
        _cut(verdict)
        return False

    def _pool(self, judgement: Judgement) -> Pool | None:
        vm = judgement.vm
        if judgement.outcome is not Outcome.PROXY or vm is None:
            return None
        guest = Guest(vm.address, vm.secret, judgement.port, self._agent_port)
        pool = self._pools.get(guest)
        if pool is None:
            pool = self._pools[guest] = Pool(guest)
        return pool


def identity(judgement: Judgement) -> bytes:
    """Header lines that tell an app who is asking, each with CRLF; empty for nobody."""
    user, email = judgement.caller.user, judgement.caller.email
    if PLAIN.fullmatch(user) is None:
        return b""
    text = f"X-Ussycode-UserID: {user}\r\nX-ExeDev-UserID: {user}\r\n"
    if PLAIN.fullmatch(email) is not None:
        text += f"X-Ussycode-Email: {email}\r\nX-ExeDev-Email: {email}\r\n"
    if judgement.ctx:
        text += f"X-Ussycode-Token-Ctx: {judgement.ctx}\r\nX-ExeDev-Token-Ctx: {judgement.ctx}\r\n"
    return text.encode()


def _cut(verdict: Verdict) -> None:
    flows, verdict.flows = verdict.flows, set()
    for flow in flows:
        flow.cut()
