"""A visitor's connection: who asks for what is decided here, and answered here when nothing else may."""
from __future__ import annotations

import time
from contextlib import suppress

from ussycode.doors.edge import local, pages
from ussycode.doors.edge.bearer import MARK
from ussycode.doors.edge.connection import DIAL, HEAD
from ussycode.doors.edge.edge import Edge
from ussycode.doors.edge.exchange import Exchange
from ussycode.doors.edge.facts import Outcome
from ussycode.doors.edge.feed import Unanswered
from ussycode.doors.edge.fields import CHUNKED, Refused, trailer_allowed
from ussycode.doors.edge.framing import ByChunks, ByLength, Malformed, UntilClose
from ussycode.doors.edge.head import Request, parse
from ussycode.doors.edge.hosts import HostKind
from ussycode.doors.edge.local import SECRET, SPECIAL, is_special
from ussycode.doors.edge.pages import Local
from ussycode.doors.edge.pool import Pool
from ussycode.doors.edge.timed import NEVER
from ussycode.doors.edge.verdicts import Verdict
from ussycode.wire.edge import Wake

WAKE_SECONDS = 120.0
"""Seconds a visitor waits for a machine that is being started; control gives up earlier."""
# Members of an enum, read once: see `connection`.
PLATFORM, STOPPED, VM = Outcome.PLATFORM, Outcome.STOPPED, HostKind.VM


class VisitorConnection(Exchange):
    """One connection from outside. Requests on it are served one after another."""

    __slots__ = ("_listener", "_started", "_woken")

    def __init__(self, edge: Edge) -> None:
        super().__init__(edge)
        self._listener = 0
        """The alternate port that the visitor is connected to; 0 on the ordinary one."""
        self._started = 0.0
        self._id = b""
        self._repeated = False
        self._forget()

    def _serve(self, head: bytes) -> None:
        edge = self._edge
        self._began = True
        self._started = time.perf_counter()
        self._id = edge.request_ids.new()
        try:
            request = self._read(head)
        except Refused as refused:
            self._refuse(refused, head)
            return
        self._request = request
        self._close = request.close or edge.draining
        if request.has_body:
            length = request.length or 0
            self._framing = ByChunks(trailer_allowed) if length == CHUNKED else ByLength(length)
        if self._overflow is not None:
            self._close = True
            self._reply(self._overflow)
        elif not self._payer.spend(edge.deadlines.now):
            self._reply(pages.TOO_FAST)
        else:
            self._decide(request)

    def _read(self, head: bytes) -> Request:
        return parse(head)

    def _decide(self, request: Request) -> None:
        fields = request.fields
        if fields.token is not None and (name := self._guarded(request)):
            self._with_token(request, name, fields.token)
        else:
            self._judge(request, fields.session)

    def _guarded(self, request: Request) -> str:
        """Name of the VM on whose host a token of the platform counts; empty elsewhere."""
        target = self._edge.hosts.target(request.hostname.decode("ascii"))
        return target.name if target.kind is VM and not is_special(request.target) else ""

    def _with_token(self, request: Request, name: str, token: bytes) -> None:
        known = self._edge.tokens.get(name, token)
        if known is None:
            self._phase, self.deadline = DIAL, NEVER  # control has its own time
            self._edge.spawn(self._ask_about(request, name, token))
        elif known.refused:
            self._reply(pages.bad_token(known.refused, known.sentence))
        else:
            self._judge(request, MARK + token)

    async def _ask_about(self, request: Request, name: str, token: bytes) -> None:
        try:
            await self._edge.tokens.ask(name, token)
        except Unanswered:
            reply: Local | None = pages.CONTROL_DOWN
        else:
            reply = None
        if self._phase is not DIAL or self._request is not request:
            return
        self._phase = HEAD
        if reply is not None:
            self._reply(reply)
        else:
            self._with_token(request, name, token)
        self._pump()

    def _judge(self, request: Request, credential: bytes | None) -> None:
        verdict = self._verdict = self._edge.verdicts.get(request.fields.hostname, credential, self._listener)
        user, now = verdict.judgement.caller.user, self._edge.deadlines.now
        if user and not self._edge.limits.of_account(user, now).spend(now):
            self._reply(pages.ACCOUNT_TOO_FAST)
            return
        pool = verdict.pool
        if pool is None or request.target.startswith(SPECIAL):
            self._elsewhere(verdict, request, credential)
        else:
            self._pool = pool
            self._edge.visitors.note(verdict, self._address)
            self._proxy(verdict, request, pool)

    def _elsewhere(self, verdict: Verdict, request: Request, credential: bytes | None) -> None:
        """The way of requests that do not simply go to a machine that runs."""
        edge, vm = self._edge, verdict.judgement.vm
        if verdict.judgement.outcome is STOPPED and vm is not None and vm.wakes and not self._woken:
            self._phase, self.deadline = DIAL, NEVER  # starting a machine has its own time
            edge.spawn(self._wake(request, credential, vm.vm))
            return
        pool = self._pool = self._destination(verdict, request)
        if pool is not edge.platform:
            edge.visitors.note(verdict, self._address)
        if pool is None:
            self._reply(local.of_judgement(verdict.judgement, request, edge.settings.lobby))
        else:
            self._proxy(verdict, request, pool)

    async def _wake(self, request: Request, credential: bytes | None, vm: str) -> None:
        """Have control start the machine while the visitor waits; then judge again, whatever came of it."""
        began = time.perf_counter()
        with suppress(Unanswered):
            await self._edge.questions.ask(lambda number: Wake(number, vm), WAKE_SECONDS)
        if self._phase is not DIAL or self._request is not request:
            return
        self._woken = time.perf_counter() - began
        self._phase = HEAD
        self._judge(request, credential)
        self._pump()

    def _destination(self, verdict: Verdict, request: Request) -> Pool | None:
        if verdict.judgement.outcome is PLATFORM:
            return self._edge.platform
        if verdict.target.kind is VM and is_special(request.target):
            return self._edge.platform
        return verdict.pool

    # Answering

    def _refuse(self, refused: Refused, said: bytes = b"") -> None:
        if not self._began:
            self._began, self._started, self._id = True, time.perf_counter(), self._edge.request_ids.new()
        self._framing = UntilClose()  # whatever else comes is not read as a request
        self._reply(Local(refused.status, "malformed", refused.sentence), to_head=said.startswith(b"HEAD "))

    def _failure(self, reason: str) -> Local:
        if self._pool is self._edge.platform:
            return pages.CONTROL_DOWN
        return local.of_failure(reason, self._verdict.judgement if self._verdict is not None else None)

    def _extra(self) -> bytes:
        timing = b"Server-Timing: wake;dur=%d\r\n" % (self._woken * 1000) if self._woken else b""
        return b"X-Request-Id: %b\r\n%b%b" % (self._id, timing, self._edge.degraded)

    def _reply(self, reply: Local, reason: str = "", to_head: bool = False) -> None:
        request = self._request
        self._skip_body()
        close = self._close or self._framing is not None
        to_head = to_head or (request is not None and request.method == b"HEAD")
        self._status = reply.status
        self._close = close
        page = request is not None and request.wants_page
        self._send(reply.render(page, self._extra(), close, to_head))
        self._finish(reason or reply.reason)

    def _skip_body(self) -> None:
        """A short body that is here already need not cost the connection."""
        if self._framing is None or self._phase is not HEAD:
            return
        data, self._buffer = self._buffer, b""
        try:
            _, rest = self._framing.feed(data)
        except Malformed:
            self._framing = UntilClose()
            return
        if self._framing.done:
            self._framing, self._buffer = None, rest

    def _forget(self) -> None:
        """Nothing is under way."""
        self._began = False
        self._request = None
        self._verdict = None
        self._pool = None
        self._upstream = None
        self._framing = None
        self._frames = None
        self._parting = 0
        self._head = b""
        self._status = 0
        self._sent = 0
        self._close = False
        self._woken = 0.0

    def _note(self, status: int, reason: str) -> None:
        """Count and log the request, and let go of what covered it."""
        self._began = False
        verdict, request, edge = self._verdict, self._request, self._edge
        user, host, method, path = "", b"", b"", b""
        if verdict is not None:
            verdict.flows.discard(self)
            judgement = verdict.judgement
            user = judgement.caller.user
            reason = reason or ("platform" if self._pool is edge.platform else judgement.reason)
        edge.counters.requests[status, reason] += 1
        if request is not None:
            host = request.fields.host if self._listener else request.fields.hostname
            method, path = request.method, request.path
            if path.startswith(SECRET) and path != b"/login/to":
                path = path[: path.rindex(b"/") + 1] + b"-"
        seconds = time.perf_counter() - self._started
        edge.log.request(
            edge.clock.now(), self._id, self._address, host, method, path, status, reason, user, seconds, self._sent,
        )
