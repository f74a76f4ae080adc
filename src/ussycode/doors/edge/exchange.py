"""One request with its response: what goes to an app, and what comes back."""
from __future__ import annotations

import abc

from ussycode.doors.edge.connection import (
    BUSY,
    DIAL,
    GONE,
    HEAD,
    IDLE_TIMEOUT,
    LINGER,
    LINGER_TIMEOUT,
    MAX_AHEAD,
    STALL_TIMEOUT,
    TUNNEL,
    VISITOR_LEFT,
    Connection,
)
from ussycode.doors.edge.fields import Refused
from ussycode.doors.edge.framing import Framing, Malformed
from ussycode.doors.edge.head import Request, outgoing
from ussycode.doors.edge.pages import Local
from ussycode.doors.edge.pool import Pool, Unreachable
from ussycode.doors.edge.response import Response
from ussycode.doors.edge.timed import NEVER
from ussycode.doors.edge.upstream import Upstream
from ussycode.doors.edge.verdicts import Verdict
from ussycode.doors.edge.websocket import Frames, close_frame, masked_close_frame

ANSWER_TIMEOUT = 600.0
"""Seconds an app may think before its response head."""
SAFE_TO_REPEAT = frozenset({b"GET", b"HEAD", b"OPTIONS"})
"""Methods repeated once when a kept connection turns out to be dead."""
FRESH = 2.0
"""Seconds after which a kept connection is not trusted with a request that cannot be repeated."""
_FACTS = (
    b"X-Forwarded-For: %b\r\nX-Forwarded-Host: %b\r\nX-Forwarded-Proto: https\r\nX-Request-Id: %b\r\n%b\r\n"
)
"""What only the edge may say of a request: address, host, id, identity."""


class Exchange(Connection):
    """Sends a request that was allowed to its app and copies bytes both ways until the response is complete."""

    __slots__ = ("_frames", "_head", "_id", "_parting", "_pool", "_repeated", "_request", "_verdict")

    _request: Request | None
    _verdict: Verdict | None
    _pool: Pool | None
    _id: bytes
    _frames: tuple[Frames, Frames] | None
    """Of the WebSocket that is open: from the app, and to it."""
    _parting: int
    """Close code with which the WebSocket ends as soon as the frame under way is through; 0 while it goes on."""
    _repeated: bool
    """The request may not be sent a second time."""

    @abc.abstractmethod
    def _failure(self, reason: str) -> Local:
        """What the visitor reads when the app's side broke before it answered."""

    @abc.abstractmethod
    def _extra(self) -> bytes:
        """Header lines that the edge adds to every response, each with CRLF."""

    @abc.abstractmethod
    def _forget(self) -> None:
        """Nothing is under way."""

    def _proxy(self, verdict: Verdict, request: Request, pool: Pool) -> None:
        edge = self._edge
        for_platform = pool is edge.platform
        identity = b"" if for_platform else verdict.identity
        facts = _FACTS % (self._address, request.fields.host, self._id, identity)
        self._head = outgoing(request, facts, for_platform)
        if not for_platform:
            verdict.flows.add(self)
        repeatable = not request.has_body and request.method in SAFE_TO_REPEAT
        upstream = pool.take(0.0 if repeatable else edge.deadlines.now - FRESH)
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
        upstream.begin(self, self._head, self._request.method == b"HEAD")
        if self._framing is None:
            self.deadline = self._edge.deadlines.now + ANSWER_TIMEOUT
        else:
            self.deadline = self._edge.deadlines.now + STALL_TIMEOUT
            self._early_body()
        if self._deaf and len(self._buffer) <= MAX_AHEAD:
            self._read_on()

    def _early_body(self) -> None:
        data, self._buffer = self._buffer, b""
        if data:
            self._body(data)

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
        self._status, self._phase, self.deadline, self._head = 101, TUNNEL, NEVER, b""
        self._send(response.outgoing(self._extra(), close=False))
        if self._request.upgrade.lower() == b"websocket":
            self._frames = Frames(), Frames()
        data, self._buffer = self._buffer, b""
        if data:
            self._on_tunnel(data)
        self._read_on()
        return True

    def _on_tunnel(self, data: bytes) -> None:
        if self._upstream is None:
            return
        if self._frames is not None:
            self._frames[1].feed(data)
        self._upstream.write(data)

    def on_response(self, response: Response, framing: Framing, body: bytes) -> None:
        """Pass on the head, with what came of the body."""
        self._status = response.status
        if framing.open_ended:
            self._close = True
        self.deadline = NEVER
        self._send(response.outgoing(self._extra(), self._close or self._framing is not None, body))

    def on_bytes(self, data: bytes) -> None:
        """Pass on more of the body or tunnel."""
        if self._frames is not None:
            data = self._follow(self._frames[0], data)
        self._send(data)
        if self._parting and self._frames is not None and self._frames[0].between:
            self._part(self._parting)

    def _follow(self, frames: Frames, data: bytes) -> bytes:
        if self._parting:
            return frames.rest(data)
        frames.feed(data)
        return data

    def farewell(self, code: int) -> None:
        """End a WebSocket with a close frame of this code, once the frame under way is through."""
        if self._phase is not TUNNEL or self._frames is None:
            return
        self._parting = code
        if self._frames[0].between:
            self._part(code)

    def _part(self, code: int) -> None:
        assert self._frames is not None and self._upstream is not None
        upstream, self._upstream = self._upstream, None
        if self._frames[1].between:
            upstream.write(masked_close_frame(code))
        upstream.close_after_sending()
        self._send(close_frame(code))
        self._note(101, "restart")
        # What the visitor still sends is dropped, its own close frame among it; then the connection ends.
        self._phase, self._lingered = LINGER, 0
        self.deadline = self._edge.deadlines.now + LINGER_TIMEOUT
        self._read_on()

    def on_end(self, reusable: bool) -> None:
        """The response is complete: on to the next request."""
        upstream, self._upstream = self._upstream, None
        if reusable and upstream is not None and self._framing is None:
            upstream.free(self._edge.deadlines.now)
        elif upstream is not None:
            upstream.abort()
        self._finish("")
        if self._buffer:
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
        if self._deaf and self._phase is not GONE and not self._sending_paused:
            self._read_on()

    def cut(self) -> None:
        """What allowed this exchange has ended: end it now, with nothing more said."""
        self._note(self._status or VISITOR_LEFT, "cut")
        self._edge.counters.add("cut")
        self._abort()
