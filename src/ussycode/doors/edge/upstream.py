"""One connection towards an app: the agent's greeting, then HTTP/1.1 responses, or a tunnel."""
from __future__ import annotations

import asyncio
import enum
from typing import Protocol, cast

from ussycode.base.errors import Failure
from ussycode.doors.edge.framing import WHOLE, Framing, Malformed
from ussycode.doors.edge.response import MAX_RESPONSE_HEAD, Response, hopeful, parse
from ussycode.runtime.guest.protocol import parse_reply

MAX_INTERIM = 16
"""Responses 1xx before the final one."""


class Visitor(Protocol):
    """The other half of an exchange: the connection that asked."""

    def on_interim(self, response: Response) -> bool:
        """A 1xx response. For 101: True when from now on bytes are relayed untouched."""
        ...

    def on_response(self, response: Response, framing: Framing, body: bytes) -> None:
        """The final head, how its body ends, and what came of the body already."""
        ...

    def on_bytes(self, data: bytes) -> None:
        """More of the body, or of the tunnel."""
        ...

    def on_end(self, reusable: bool) -> None:
        """The response is complete."""
        ...

    def on_failure(self, reason: str, untouched: bool) -> None:
        """The exchange broke. `untouched`: nothing of a response had come on a connection used before."""
        ...

    def pause_sending(self) -> None:
        """The app does not take more at present."""
        ...

    def resume_sending(self) -> None:
        """The app takes bytes again."""
        ...


class Lane(Protocol):
    """The pool that a connection belongs to."""

    def release(self, upstream: Upstream, now: float) -> None: ...

    def made(self) -> None: ...

    def lost(self, upstream: Upstream) -> None: ...


class Stage(enum.Enum):
    """Where an upstream connection is."""

    IDLE = enum.auto()
    HEAD = enum.auto()
    BODY = enum.auto()
    TUNNEL = enum.auto()


# As locals of the module: Python 3.11 takes 100 ns to read a member of an enum.
IDLE, HEAD, BODY, TUNNEL = Stage


class Upstream(asyncio.Protocol):
    """Carries one exchange at a time. Bytes that nobody asked for end the connection."""

    __slots__ = (
        "_buffer", "_deaf", "_framing", "_greeting", "_hello", "_interim", "_lane", "_looked", "_platform", "_reusable",
        "_served",
        "_stage", "_to_head", "_transport", "_visitor", "idle_since",
    )

    def __init__(self, lane: Lane, hello: bytes) -> None:
        self.idle_since = 0.0
        self._lane = lane
        self._hello = hello
        self._greeting = bool(hello)
        self._platform = not hello
        self._stage = IDLE
        self._visitor: Visitor | None = None
        self._framing: Framing | None = None
        self._buffer = b""
        self._looked = 0
        """Bytes of the buffer that hold no end of a head."""
        self._deaf = False
        """Reading is paused."""
        self._reusable = False
        self._served = 0
        self._interim = 0
        self._to_head = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Nothing is said before the first request."""
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is no subclass of it
        self._lane.made()

    def begin(self, visitor: Visitor, head: bytes, to_head: bool) -> None:
        """Start an exchange by sending `head`; a body follows through `write`."""
        self._visitor = visitor
        self._stage = HEAD
        self._to_head = to_head
        self._interim = 0
        if self._hello:
            head, self._hello = self._hello + head, b""
        self._transport.write(head)

    def write(self, data: bytes) -> None:
        """Send more of the request body or tunnel."""
        self._transport.write(data)

    def pause(self) -> None:
        """Read no more until `resume`: the visitor does not keep up."""
        self._deaf = True
        self._transport.pause_reading()

    def resume(self) -> None:
        """Read on."""
        if self._deaf:
            self._deaf = False
            self._transport.resume_reading()

    def abort(self) -> None:
        """End at once; the visitor hears nothing."""
        self._visitor = None
        self._transport.abort()

    def close_after_sending(self) -> None:
        """The visitor left a tunnel: deliver what it sent, then end."""
        self._visitor = None
        self._transport.close()

    def free(self, now: float) -> None:
        """The exchange ended cleanly on both sides: serve another one."""
        self._visitor = None
        self._stage = IDLE
        self._framing = None
        self._served += 1
        if self._deaf:
            self.resume()
        self._lane.release(self, now)

    def data_received(self, data: bytes) -> None:
        """Bytes from the app (or its agent)."""
        visitor = self._visitor
        if visitor is None or self._stage is IDLE:
            self._transport.abort()
        elif self._stage is TUNNEL:
            visitor.on_bytes(data)
        elif self._stage is BODY:
            self._body(visitor, data)
        else:
            self._buffer = self._buffer + data if self._buffer else data
            self._head(visitor)

    def connection_lost(self, error: Exception | None) -> None:
        """The app closed, or `abort` was called."""
        self._lane.lost(self)
        visitor, self._visitor = self._visitor, None
        if visitor is None:
            return
        if error is None and self._stage is BODY and self._framing is not None and self._framing.open_ended:
            visitor.on_end(reusable=False)
            return
        untouched = self._stage is HEAD and not self._buffer and self._served > 0 and not self._interim
        visitor.on_failure("app_closed", untouched)

    def pause_writing(self) -> None:
        """The socket's buffer is full."""
        if self._visitor is not None:
            self._visitor.pause_sending()

    def resume_writing(self) -> None:
        """The socket's buffer has room."""
        if self._visitor is not None:
            self._visitor.resume_sending()

    def _fail(self, visitor: Visitor, reason: str) -> None:
        self._visitor = None
        self._transport.abort()
        visitor.on_failure(reason, untouched=False)

    def _body(self, visitor: Visitor, data: bytes) -> None:
        framing = self._framing
        assert framing is not None
        try:
            own, rest = framing.feed(data)
        except Malformed:
            self._fail(visitor, "app_malformed")
            return
        visitor.on_bytes(own)
        if framing.done and self._visitor is visitor:
            visitor.on_end(reusable=self._reusable and not rest)

    def _head(self, visitor: Visitor) -> None:
        try:
            while self._stage is HEAD and self._visitor is visitor and self._buffer:
                if not self._step(visitor):
                    return
        except Malformed:
            self._fail(visitor, "app_malformed")
        except Failure as failure:
            self._fail(visitor, failure.code)

    def _step(self, visitor: Visitor) -> bool:
        """Read one piece of what is buffered; False when it is not complete yet."""
        if self._greeting:
            return self._greet()
        buffer = self._buffer
        end = buffer.find(b"\r\n\r\n", self._looked, MAX_RESPONSE_HEAD + 4)
        if end < 0:
            self._incomplete()
            return False
        self._looked = 0
        response = parse(buffer[:end], self._platform)
        self._buffer = buffer[end + 4 :]
        if response.status < 200:
            self._on_interim(visitor, response)
        else:
            self._on_final(visitor, response)
        return True

    def _incomplete(self) -> None:
        # What was looked at is not looked at again: a head that comes byte by byte must not cost its square.
        looked, self._looked = self._looked, max(0, len(self._buffer) - 3)
        if len(self._buffer) > MAX_RESPONSE_HEAD or not hopeful(self._buffer, looked):
            raise Malformed("the response head is malformed")

    def _greet(self) -> bool:
        reply = parse_reply(self._buffer)
        if reply is None:
            return False
        if not reply.ok:
            raise reply.failure
        self._greeting = False
        self._buffer = self._buffer[reply.used :]
        return True

    def _on_interim(self, visitor: Visitor, response: Response) -> None:
        self._interim += 1
        tunnel = visitor.on_interim(response)
        if self._interim > MAX_INTERIM or (response.status == 101 and not tunnel):
            raise Malformed("interim responses out of turn")
        if tunnel:
            self._stage = TUNNEL
            rest, self._buffer = self._buffer, b""
            if rest:
                visitor.on_bytes(rest)

    def _on_final(self, visitor: Visitor, response: Response) -> None:
        data, self._buffer = self._buffer, b""
        self._stage = BODY
        self._reusable = not response.close
        if data and len(data) == response.length and not self._to_head and response.has_body:
            framing: Framing = WHOLE  # most responses come in one piece
            own, rest = data, b""
        else:
            framing = response.framing(self._to_head)
            own, rest = framing.feed(data) if data and not framing.done else (b"", data)
        self._framing = framing
        visitor.on_response(response, framing, own)
        if framing.done and self._visitor is visitor:
            visitor.on_end(self._reusable and not rest)
