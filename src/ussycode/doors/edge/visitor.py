"""A visitor's connection: reads requests, asks for the verdict, then copies bytes both ways."""
from __future__ import annotations

import asyncio
import enum
import time
from contextlib import suppress
from typing import cast

from ussycode.doors.edge import pages
from ussycode.doors.edge.bearer import MARK
from ussycode.doors.edge.edge import MAX_CONNECTIONS, Edge
from ussycode.doors.edge.facts import Outcome
from ussycode.doors.edge.feed import Unanswered
from ussycode.doors.edge.framing import ByChunks, ByLength, Framing, Malformed, UntilClose
from ussycode.doors.edge.head import BARE_LF, CHUNKED, MAX_HEAD, Refused, Request, outgoing, parse, trailer_allowed
from ussycode.doors.edge.hosts import HostKind
from ussycode.doors.edge.pages import Local
from ussycode.doors.edge.pool import Pool, Unreachable
from ussycode.doors.edge.response import Response
from ussycode.doors.edge.timed import NEVER
from ussycode.doors.edge.upstream import Upstream
from ussycode.doors.edge.verdicts import Verdict
from ussycode.wire.edge import Wake

IDLE_TIMEOUT = 75.0
"""Seconds a connection is kept between requests."""
STALL_TIMEOUT = 300.0
"""Seconds without progress of a request body, or without the visitor taking a byte of a response."""
ANSWER_TIMEOUT = 600.0
"""Seconds an app may think before its response head."""
WAKE_SECONDS = 120.0
"""Seconds a visitor waits for a machine that is being started; control gives up earlier."""
MAX_AHEAD = 64 * 1024
"""Bytes read ahead of what can be passed on; then reading pauses."""
MAX_LINGER = 1 << 20
"""Bytes of an unwanted request body that are read and dropped, so that the reply arrives."""
LINGER_TIMEOUT = 2.0
SAFE_TO_REPEAT = frozenset({b"GET", b"HEAD", b"OPTIONS"})
"""Methods repeated once when a kept connection turns out to be dead."""
FRESH = 2.0
"""Seconds after which a kept connection is not trusted with a request that cannot be repeated."""
_SPECIAL = (b"/__ussycode", b"/__exe.dev")
_FACTS = (
    b"X-Forwarded-For: %b\r\nX-Forwarded-Host: %b\r\nX-Forwarded-Proto: https\r\nX-Request-Id: %b\r\n%b\r\n"
)


class Phase(enum.Enum):
    """What the connection is doing."""

    HEAD = enum.auto()
    DIAL = enum.auto()
    BUSY = enum.auto()
    TUNNEL = enum.auto()
    LINGER = enum.auto()
    GONE = enum.auto()


# Python 3.11 reads an enum member through a descriptor, 100 ns each, and a request would do it 25 times.
HEAD, DIAL, BUSY, TUNNEL, LINGER, GONE = Phase
PLATFORM, STOPPED, VM = Outcome.PLATFORM, Outcome.STOPPED, HostKind.VM


class VisitorConnection(asyncio.BufferedProtocol):
    """One connection from outside. Requests on it are served one after another."""

    __slots__ = (
        "_address", "_began", "_buffer", "_close", "_deaf", "_edge", "_framing", "_head", "_id", "_lingered",
        "_partial", "_phase", "_pool", "_repeated", "_request", "_sending_paused", "_sent", "_started", "_status",
        "_transport", "_upstream", "_verdict", "_woken", "deadline",
    )

    _request: Request | None
    _verdict: Verdict | None
    _pool: Pool | None
    _upstream: Upstream | None
    _framing: Framing | None
    """Follows the request body while it is not complete."""
    _status: int
    """Status that went to the visitor, 0 before."""

    def __init__(self, edge: Edge) -> None:
        self.deadline = NEVER
        self._edge = edge
        self._phase = HEAD
        self._buffer = b""
        self._partial = True
        """The deadline of a request head runs."""
        self._deaf = False
        """Reading is paused."""
        self._sending_paused = False
        self._lingered = 0
        self._forget()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Wait for a request head, unless the process is full."""
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is no subclass of it
        peer = transport.get_extra_info("peername")
        self._address = peer[0].encode() if isinstance(peer, tuple) else b"127.0.0.1"
        members = self._edge.deadlines.members
        if len(members) >= MAX_CONNECTIONS:
            self._edge.counters.add("connections_refused")
            self._phase = GONE
            self._transport.abort()
            return
        self._edge.counters.add("connections")
        members.add(self)
        self.deadline = self._edge.deadlines.now + self._edge.settings.head_timeout

    def get_buffer(self, sizehint: int) -> memoryview:
        """One buffer serves all connections: what is in it is taken out before anything else is read."""
        return self._edge.read_buffer

    def buffer_updated(self, nbytes: int) -> None:
        """Bytes from the visitor are in the buffer."""
        self._take(bytes(self._edge.read_buffer[:nbytes]))

    def _take(self, data: bytes) -> None:
        phase = self._phase
        if phase is TUNNEL:
            assert self._upstream is not None
            self._upstream.write(data)
        elif phase is BUSY and self._framing is not None:
            self._body(data)
        elif phase is LINGER:
            self._drop(len(data))
        elif phase is not GONE:
            self._buffer = self._buffer + data if self._buffer else data
            if phase is HEAD and not self._sending_paused:
                self._pump()
            elif len(self._buffer) > MAX_AHEAD:
                self._read_no_more()

    def connection_lost(self, error: Exception | None) -> None:
        """The visitor left, or the connection was closed from here."""
        self._edge.deadlines.members.discard(self)
        tunnel, self._phase = self._phase is TUNNEL, GONE
        upstream, self._upstream = self._upstream, None
        if upstream is not None and tunnel:
            upstream.close_after_sending()
        elif upstream is not None:
            upstream.abort()
        if self._began:
            self._note(self._status or VISITOR_LEFT, "" if tunnel else "visitor_left")

    def pause_writing(self) -> None:
        """The visitor does not keep up."""
        self._sending_paused = True
        self.deadline = self._edge.deadlines.now + STALL_TIMEOUT
        if self._upstream is not None:
            self._upstream.pause()

    def resume_writing(self) -> None:
        """The visitor takes bytes again."""
        self._sending_paused = False
        if self._upstream is not None:
            self.deadline = NEVER
            self._upstream.resume()
        elif self._phase is HEAD:
            self.deadline = self._edge.deadlines.now + IDLE_TIMEOUT
            self._read_on()
            self._pump()

    def pause_sending(self) -> None:
        """The app does not keep up with the request."""
        self._read_no_more()

    def resume_sending(self) -> None:
        """The app takes bytes again."""
        self._read_on()

    def cut(self) -> None:
        """What allowed this exchange has ended: end it now, with nothing more said."""
        self._note(self._status or VISITOR_LEFT, "cut")
        self._edge.counters.add("cut")
        self._abort()

    def on_deadline(self) -> None:
        """The present phase took too long."""
        if self._phase is HEAD and self._partial and self._buffer:
            seconds = self._edge.settings.head_timeout
            self._refuse(Refused(408, f"the request head did not arrive within {seconds:g} seconds"))
        elif self._phase is BUSY and not self._status:
            self._leave_upstream()
            self._reply(pages.REQUEST_STALLED if self._framing is not None else pages.APP_SLOW)
            self._pump()
        elif self._phase in (HEAD, LINGER) and not self._sending_paused:
            self._say_goodbye()
        else:
            self._abort()

    def leave_when_idle(self) -> None:
        """The process is ending."""
        if self._phase is HEAD and not self._buffer:
            self._say_goodbye()
        else:
            self._close = True

    def _read_no_more(self) -> None:
        self._deaf = True
        self._transport.pause_reading()

    def _read_on(self) -> None:
        if self._deaf:  # asking the transport for what it does already would cost every request
            self._deaf = False
            self._transport.resume_reading()

    def _say_goodbye(self) -> None:
        self._phase = GONE
        self.deadline = self._edge.deadlines.now + LINGER_TIMEOUT
        self._transport.close()

    def _abort(self) -> None:
        self._leave_upstream()
        self._phase = GONE
        self.deadline = NEVER
        self._transport.abort()

    def _leave_upstream(self) -> None:
        upstream, self._upstream = self._upstream, None
        if upstream is not None:
            upstream.abort()

    # Reading requests

    def _pump(self) -> None:
        while self._phase is HEAD and self._buffer and not self._sending_paused:
            end = self._buffer.find(b"\r\n\r\n", 0, MAX_HEAD + 4)
            if end < 0:
                self._incomplete()
                return
            head, self._buffer = self._buffer[:end], self._buffer[end + 4 :]
            self._serve(head)

    def _incomplete(self) -> None:
        if len(self._buffer) > MAX_HEAD:
            self._refuse(Refused(431, f"the request head is longer than {MAX_HEAD} bytes"))
        elif BARE_LF(self._buffer) is not None:
            self._refuse(Refused(400, "the request head is malformed"))
        elif not self._partial:
            self._partial = True
            self.deadline = self._edge.deadlines.now + self._edge.settings.head_timeout

    def _serve(self, head: bytes) -> None:
        edge = self._edge
        self._began = True
        self._started = time.perf_counter()
        self._id = self._edge.request_ids.new()
        try:
            request = self._read(head)
        except Refused as refused:
            self._refuse(refused)
            return
        self._request = request
        self._close = request.close or edge.draining
        if request.has_body:
            length = request.length or 0
            self._framing = ByChunks(trailer_allowed) if length == CHUNKED else ByLength(length)
        self._decide(request)

    def _read(self, head: bytes) -> Request:
        return parse(head)

    def _decide(self, request: Request) -> None:
        if request.token is not None and (name := self._guarded(request)):
            self._with_token(request, name, request.token)
        else:
            self._judge(request, request.session)

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
            self._reply(pages.bad_token(known.sentence))
        else:
            self._judge(request, MARK + token)

    async def _ask_about(self, request: Request, name: str, token: bytes) -> None:
        try:
            await self._edge.tokens.ask(name, token)
        except Unanswered:
            local: Local | None = pages.CONTROL_DOWN
        else:
            local = None
        if self._phase is not DIAL or self._request is not request:
            return
        self._phase = HEAD
        if local is not None:
            self._reply(local)
        else:
            self._with_token(request, name, token)
        self._pump()

    def _judge(self, request: Request, credential: bytes | None) -> None:
        edge = self._edge
        verdict = self._verdict = edge.verdicts.get(request.hostname, credential)
        vm = verdict.judgement.vm
        if verdict.judgement.outcome is STOPPED and vm is not None and vm.wakes and not self._woken:
            self._phase, self.deadline = DIAL, NEVER  # starting a machine has its own time
            edge.spawn(self._wake(request, credential, vm.vm))
            return
        pool = self._pool = self._destination(verdict, request)
        if pool is None:
            self._reply(_local(verdict, request, edge.settings.domain))
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

    def _refuse(self, refused: Refused) -> None:
        if not self._began:
            self._began, self._started, self._id = True, time.perf_counter(), self._edge.request_ids.new()
        self._framing = UntilClose()  # whatever else comes is not read as a request
        self._reply(Local(refused.status, "malformed", refused.sentence))

    # The exchange

    def _proxy(self, verdict: Verdict, request: Request, pool: Pool) -> None:
        for_platform = pool is self._edge.platform
        identity = b"" if for_platform else verdict.identity
        facts = _FACTS % (self._address, request.host, self._id, identity)
        self._head = outgoing(request, facts, for_platform)
        if not for_platform:
            verdict.flows.add(self)
        repeatable = request.method in SAFE_TO_REPEAT and not request.has_body
        upstream = pool.take(0.0 if repeatable else self._edge.deadlines.now - FRESH)
        self._repeated = not repeatable
        if upstream is not None:
            self._begin(upstream)
        else:
            self._phase = DIAL
            self.deadline = NEVER  # dialling has its own
            self._edge.spawn(self._dial(pool))

    async def _dial(self, pool: Pool) -> None:
        try:
            upstream = await pool.connect()
        except Unreachable as failure:
            if self._phase is DIAL:
                self.on_failure(failure.reason, untouched=False)
            return
        if self._phase is DIAL:
            self._begin(upstream)
        else:
            upstream.abort()

    def _begin(self, upstream: Upstream) -> None:
        assert self._request is not None
        self._phase = BUSY
        self._upstream = upstream
        self.deadline = self._edge.deadlines.now + (ANSWER_TIMEOUT if self._framing is None else STALL_TIMEOUT)
        upstream.begin(self, self._head, self._request.method == b"HEAD")
        if self._framing is not None and self._buffer:
            data, self._buffer = self._buffer, b""
            self._body(data)
        if len(self._buffer) <= MAX_AHEAD:
            self._read_on()

    def _body(self, data: bytes) -> None:
        assert self._framing is not None and self._upstream is not None
        try:
            own, rest = self._framing.feed(data)
        except Malformed:
            self._broken_body()
            return
        self._upstream.write(own)
        self.deadline = self._edge.deadlines.now + STALL_TIMEOUT
        if self._framing.done:
            self._framing = None
            self._buffer = rest
            self.deadline = self._edge.deadlines.now + ANSWER_TIMEOUT
        if self._status:
            self.deadline = NEVER

    def _broken_body(self) -> None:
        if self._status:
            self._note(self._status, "malformed")
            self._abort()
            return
        self._leave_upstream()
        self._refuse(Refused(400, "the request body is malformed"))

    def on_interim(self, response: Response) -> bool:
        """Pass on 1xx; 101 opens the tunnel that the visitor asked for."""
        assert self._request is not None and self._upstream is not None
        if response.status != 101:
            if self._request.modern:
                self._send(response.outgoing(b"", close=False))
            return False
        if self._request.upgrade is None:
            return False
        self._status, self._phase, self.deadline = 101, TUNNEL, NEVER
        self._send(response.outgoing(self._extra(), close=False))
        data, self._buffer = self._buffer, b""
        if data:
            self._upstream.write(data)
        self._read_on()
        return True

    def on_response(self, response: Response, framing: Framing, body: bytes) -> None:
        """Pass on the head, with what came of the body."""
        self._status = response.status
        if isinstance(framing, UntilClose):
            self._close = True
        self.deadline = NEVER
        self._send(response.outgoing(self._extra(), self._close or self._framing is not None) + body)

    def on_bytes(self, data: bytes) -> None:
        """Pass on more of the body or tunnel."""
        self._send(data)

    def on_end(self, reusable: bool) -> None:
        """The response is complete: on to the next request."""
        upstream, self._upstream = self._upstream, None
        if upstream is not None and reusable and self._framing is None:
            upstream.free(self._edge.deadlines.now)
        elif upstream is not None:
            upstream.abort()
        self._finish("")
        self._pump()

    def on_failure(self, reason: str, untouched: bool) -> None:
        """The app's side broke."""
        self._upstream = None
        if self._phase is TUNNEL:
            self._note(101, "")
            self._say_goodbye()
        elif self._status:
            self._note(self._status, reason)
            self._abort()  # the visitor must see that the body is not whole
        elif untouched and not self._repeated and self._pool is not None:
            self._repeated, self._phase = True, DIAL
            self._edge.spawn(self._dial(self._pool))
        else:
            self._reply(self._failure(reason), reason)
            self._pump()

    def _failure(self, reason: str) -> Local:
        if self._pool is self._edge.platform:
            return pages.CONTROL_DOWN
        judgement = self._verdict.judgement if self._verdict is not None else None
        if reason == "guest.refused" and judgement is not None and judgement.vm is not None:
            return pages.nothing_listens(judgement.vm.name, judgement.port, judgement.owner)
        return _FAILURES.get(reason, pages.APP_SILENT)

    # Answering

    def _extra(self) -> bytes:
        timing = b"Server-Timing: wake;dur=%d\r\n" % (self._woken * 1000) if self._woken else b""
        return b"X-Request-Id: %b\r\n%b%b" % (self._id, timing, self._edge.degraded)

    def _send(self, data: bytes) -> None:
        self._sent += len(data)
        self._transport.write(data)

    def _reply(self, local: Local, reason: str = "") -> None:
        request = self._request
        self._skip_body()
        close = self._close or self._framing is not None
        to_head = request is not None and request.method == b"HEAD"
        self._status = local.status
        self._close = close
        page = request is not None and request.wants_page
        self._send(local.render(page, self._extra(), close, to_head))
        self._finish(reason or local.reason)

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

    def _finish(self, reason: str) -> None:
        self._note(self._status, reason)
        unread, close = self._framing is not None, self._close
        self._forget()
        if unread:
            self._phase, self._buffer = LINGER, b""
            self.deadline = self._edge.deadlines.now + LINGER_TIMEOUT
        elif close:
            self._say_goodbye()
        else:
            self._phase, self._partial = HEAD, False
            self.deadline = self._edge.deadlines.now + (STALL_TIMEOUT if self._sending_paused else IDLE_TIMEOUT)
        if self._phase is not GONE and not self._sending_paused:
            self._read_on()

    def _forget(self) -> None:
        """Nothing is under way."""
        self._began = False
        self._started = 0.0
        self._id = b""
        self._request = None
        self._verdict = None
        self._pool = None
        self._upstream = None
        self._framing = None
        self._head = b""
        self._status = 0
        self._sent = 0
        self._close = False
        self._repeated = False
        self._woken = 0.0

    def _drop(self, size: int) -> None:
        self._lingered += size
        if self._lingered > MAX_LINGER:
            self._abort()

    def _note(self, status: int, reason: str) -> None:
        """Count and log the request, and let go of what covered it."""
        self._began = False
        verdict, request, edge = self._verdict, self._request, self._edge
        if verdict is not None:
            verdict.flows.discard(self)
            user = verdict.judgement.caller.user
            reason = reason or ("platform" if self._pool is edge.platform else verdict.judgement.reason)
        else:
            user = ""
        edge.counters.requests[status, reason] += 1
        host, method, path = b"", b"", b""
        if request is not None:
            host, method, path = request.hostname, request.method, request.path
            if path.startswith(b"/login/") and path != b"/login/to":
                path = b"/login/-"  # the rest signs somebody in
        seconds = time.perf_counter() - self._started
        edge.log.request(
            edge.clock.now(), self._id, self._address, host, method, path, status, reason, user, seconds, self._sent,
        )


VISITOR_LEFT = 499
"""Logged as status when there was no response."""
_FAILURES = {
    "too_many": pages.BUSY, "guest.busy": pages.BUSY, "app_closed": pages.APP_BROKE, "app_malformed": pages.APP_BROKE,
}


def is_special(target: bytes) -> bool:
    """Paths that the platform answers on every VM host, whether or not the VM exists."""
    if not target.startswith(_SPECIAL):
        return False
    return any(target.startswith(p) and target[len(p) : len(p) + 1] in (b"", b"/", b"?") for p in _SPECIAL)


def _local(verdict: Verdict, request: Request, domain: str) -> Local:
    """The edge's own reply where nothing is proxied."""
    judgement = verdict.judgement
    if judgement.outcome is Outcome.LOGIN:
        return pages.login(request.target, request.wants_page, request.is_git)
    if judgement.outcome is Outcome.STOPPED and judgement.owner and judgement.vm is not None:
        return pages.stopped(judgement.vm.name, judgement.vm.phase, domain)
    return _REPLIES[judgement.outcome]


_REPLIES = {
    Outcome.NOWHERE: pages.NOT_FOUND, Outcome.STOPPED: pages.STOPPED, Outcome.CLOSED: pages.GRACE_OVER,
    Outcome.STARTING: pages.STARTING,
}
