"""One connection from outside: its bytes, what it is doing, how long it may, and whether both sides keep up."""
from __future__ import annotations

import abc
import asyncio
import enum
from typing import cast

from ussycode.doors.edge import pages
from ussycode.doors.edge.edge import ARRIVAL, MAX_CONNECTIONS, Edge
from ussycode.doors.edge.fields import Refused
from ussycode.doors.edge.framing import Framing
from ussycode.doors.edge.head import BARE_LF, MAX_HEAD
from ussycode.doors.edge.limits import Payer
from ussycode.doors.edge.pages import Local
from ussycode.doors.edge.timed import NEVER
from ussycode.doors.edge.upstream import Upstream

IDLE_TIMEOUT = 75.0
"""Seconds a connection is kept between requests."""
STALL_TIMEOUT = 300.0
"""Seconds without progress of a request body, or without the visitor taking a byte of a response."""
MAX_AHEAD = 64 * 1024
"""Bytes read ahead of what can be passed on; then reading pauses."""
MAX_LINGER = 1 << 20
"""Bytes of an unwanted request body that are read and dropped, so that the reply arrives."""
LINGER_TIMEOUT = 2.0
MAX_OVERFLOW = 1024
"""Connections beyond the most that are served, which are answered with 503; further ones are dropped."""
VISITOR_LEFT = 499
"""Logged as status when there was no response."""


class Phase(enum.Enum):
    """What a connection is doing."""

    HEAD = enum.auto()
    DIAL = enum.auto()
    BUSY = enum.auto()
    TUNNEL = enum.auto()
    LINGER = enum.auto()
    GONE = enum.auto()


# Python 3.11 reads an enum member through a descriptor, 100 ns each, and a request would do it 25 times.
HEAD, DIAL, BUSY, TUNNEL, LINGER, GONE = Phase


class Connection(asyncio.BufferedProtocol, abc.ABC):
    """Reads request heads one after another and hands them to `_serve`; everything else is passed on or dropped."""

    __slots__ = (
        "_address", "_arrival", "_began", "_buffer", "_close", "_deaf", "_edge", "_framing", "_lingered", "_looked",
        "_overflow", "_partial", "_payer", "_phase", "_sending_paused", "_sent", "_status", "_transport", "_upstream",
        "deadline",
    )

    _payer: Payer
    """Who pays for its requests."""

    _upstream: Upstream | None
    _framing: Framing | None
    """Follows the request body while it is not complete."""
    _status: int
    """Status that went to the visitor, 0 before."""
    _sent: int
    """Bytes sent to the visitor for this request."""
    _began: bool
    """A request is under way."""
    _close: bool
    """The connection ends with this response."""

    def __init__(self, edge: Edge) -> None:
        self.deadline = NEVER
        self._edge = edge
        edge.arriving[self] = edge.deadlines.now + ARRIVAL
        self._phase = HEAD
        self._buffer = b""
        self._partial = True
        """The deadline of a request head runs."""
        self._deaf = False
        """Reading is paused."""
        self._sending_paused = False
        self._lingered = 0
        self._arrival: Payer | None = None
        """Whose connection this is; None when it was not counted."""
        self._overflow: Local | None = None
        """Why its first request is refused: it is one connection too many."""
        self._looked = 0
        """Bytes of the buffer that hold no end of a head."""

    @abc.abstractmethod
    def _serve(self, head: bytes) -> None:
        """A whole request head, without its empty line."""

    @abc.abstractmethod
    def _body(self, data: bytes) -> None:
        """More of the request body."""

    @abc.abstractmethod
    def _on_tunnel(self, data: bytes) -> None:
        """More of what the visitor sends through a tunnel."""

    @abc.abstractmethod
    def _refuse(self, refused: Refused, said: bytes = b"") -> None:
        """What comes cannot be served; nothing further on this connection is. `said` is what there is of the head."""

    @abc.abstractmethod
    def _reply(self, reply: Local, reason: str = "", to_head: bool = False) -> None:
        """Answer the request under way from here; `to_head` says that it is HEAD although it could not be read."""

    @abc.abstractmethod
    def _note(self, status: int, reason: str) -> None:
        """Count and log the request under way, and let go of what covered it."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Wait for a request head. One connection too many hears why, unless even that is too much."""
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is no subclass of it
        self._edge.arriving.pop(self, None)
        peer = transport.get_extra_info("peername")
        self._address = peer[0].encode() if isinstance(peer, tuple) else b""
        members = self._edge.deadlines.members
        if len(members) >= MAX_CONNECTIONS + MAX_OVERFLOW:
            self._edge.counters.add("connections_refused")
            self._phase = GONE
            self._transport.abort()
            return
        self._edge.counters.add("connections")
        self._overflow = self._admit(len(members))
        members.add(self)
        self.deadline = self._edge.deadlines.now + self._edge.settings.head_timeout

    def _admit(self, crowd: int) -> Local | None:
        limits, now = self._edge.limits, self._edge.deadlines.now
        self._payer = limits.of_requests(self._address, now)
        arrival = self._arrival = limits.of_arrivals(self._address, now)
        arrival.open += 1
        if crowd >= MAX_CONNECTIONS:
            return pages.FULL
        if limits.too_many(arrival):
            return pages.TOO_MANY_OPEN
        return None if arrival.spend(now) else pages.ARRIVES_TOO_FAST

    def get_buffer(self, sizehint: int) -> memoryview:
        """One buffer serves all connections: what is in it is taken out before anything else is read."""
        return self._edge.read_buffer

    def buffer_updated(self, nbytes: int) -> None:
        """Bytes from the visitor are in the buffer."""
        self._take(bytes(self._edge.read_buffer[:nbytes]))

    def _take(self, data: bytes) -> None:
        phase = self._phase
        if phase is HEAD and not self._sending_paused:
            self._buffer = self._buffer + data if self._buffer else data
            self._pump()
        elif phase is TUNNEL:
            self._on_tunnel(data)
        elif phase is BUSY and self._framing is not None:
            self._body(data)
        elif phase is LINGER:
            self._drop(len(data))
        elif phase is not GONE:
            self._buffer += data
            if len(self._buffer) > MAX_AHEAD:
                self._read_no_more()

    def connection_lost(self, error: Exception | None) -> None:
        """The visitor left, or the connection was closed from here."""
        self._edge.deadlines.members.discard(self)
        if self._arrival is not None:
            self._arrival.open -= 1
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

    def on_deadline(self) -> None:
        """The present phase took too long."""
        if self._phase is HEAD and self._partial and self._buffer:
            seconds = self._edge.settings.head_timeout
            self._refuse(Refused(408, f"the request head did not arrive within {seconds:g} seconds"), self._buffer)
        elif self._phase is BUSY and not self._status:
            self._leave_upstream()
            self._reply(pages.REQUEST_STALLED if self._framing is not None else pages.APP_SLOW)
            self._pump()
        elif self._phase in (HEAD, LINGER) and not self._sending_paused:
            self._say_goodbye()
        else:
            self._abort()

    def leave_when_idle(self, patient: bool) -> None:
        """The process is ending. `patient` leaves a client that has just come the time for its first request."""
        if self._phase is HEAD and not self._buffer and not (patient and self._partial):
            self._say_goodbye()
        else:
            self._close = True

    def farewell(self, code: int) -> None:
        """End a WebSocket in good order; everything else goes on."""

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

    def _pump(self) -> None:
        while self._buffer and self._phase is HEAD and not self._sending_paused:
            buffer = self._buffer
            end = buffer.find(b"\r\n\r\n", self._looked, MAX_HEAD + 4)
            if end < 0:
                self._incomplete()
                return
            self._looked = 0
            self._buffer = buffer[end + 4 :]
            self._serve(buffer[:end])

    def _incomplete(self) -> None:
        # What was looked at is not looked at again: a head that comes byte by byte must not cost its square.
        looked, self._looked = self._looked, max(0, len(self._buffer) - 3)
        if len(self._buffer) > MAX_HEAD and self._buffer.find(b"\r\n", 0, MAX_HEAD) < 0:
            self._refuse(Refused(414, f"the request line is longer than {MAX_HEAD} bytes"), self._buffer)
        elif len(self._buffer) > MAX_HEAD:
            self._refuse(Refused(431, f"the request head is longer than {MAX_HEAD} bytes"), self._buffer)
        elif BARE_LF(self._buffer, looked) is not None:
            self._refuse(Refused(400, "the request head is malformed"), self._buffer)
        elif not self._partial:
            self._partial = True
            self.deadline = self._edge.deadlines.now + self._edge.settings.head_timeout

    def _send(self, data: bytes) -> None:
        self._sent += len(data)
        self._transport.write(data)

    def _drop(self, size: int) -> None:
        self._lingered += size
        if self._lingered > MAX_LINGER:
            self._abort()
