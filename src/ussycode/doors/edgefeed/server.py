"""Tells edges what they must know: a snapshot on connecting, then every commit's change, acknowledged.

    FeedServer     numbers the changes and waits for the edges
      Edge         one connected edge: what it was sent, what it acknowledged, what it asked
"""
from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec
from prometheus_client import Counter, Gauge

from ussycode.base.events import Event
from ussycode.base.unreadable import UNREADABLE
from ussycode.ports import App
from ussycode.sharing import ops, visitors
from ussycode.wire.edge import MAX_FRAME, Ack, Answer, Change, Down, Question, Up, Visitors

ACK_SECONDS = 2.0
"""How long a commit waits for an edge; one that is slower is cut off and must take a new snapshot."""
MAX_UP = 10 * 1024
"""Bytes of one message from an edge: a token of 8 KiB and what surrounds it."""
MAX_QUESTIONS = 1024
"""Questions of one edge that are worked on at once; one that asks more is cut off."""
Reply = Callable[[Question], Awaitable[Answer]]
MAX_EDGES = 128
"""Edges connected at once."""


@dataclass(eq=False)
class Edge:
    """A connected edge. `sent` and `acked` are sequence numbers; nothing was acknowledged at -1."""

    writer: asyncio.StreamWriter
    sent: int = 0
    acked: int = -1
    gone: bool = False
    waiting: dict[int, asyncio.Future[None]] = field(default_factory=dict)
    questions: set[asyncio.Task[None]] = field(default_factory=set)

    def ask(self, question: Question, reply: Reply) -> None:
        """Work on a question beside everything else. Raises ValueError when the edge asks too much at once."""
        self.work_on(self._answer(question, reply))

    def work_on(self, work: Coroutine[Any, Any, None]) -> None:
        """Run something that the edge wants. Raises ValueError when that is too much at once."""
        if len(self.questions) >= MAX_QUESTIONS:
            work.close()
            raise ValueError("an edge asks too much at once")
        task = asyncio.create_task(work)
        self.questions.add(task)
        task.add_done_callback(self.questions.discard)

    async def _answer(self, question: Question, reply: Reply) -> None:
        answer = await reply(question)
        if not self.gone:
            self.writer.write(frame(answer))

    def send(self, frame: bytes, seq: int) -> None:
        """Queue one frame. What an edge does not read is bounded by the time it may take to acknowledge."""
        self.sent = seq
        self.writer.write(frame)

    def reached(self, seq: int) -> asyncio.Future[None]:
        """Done when the edge has acknowledged `seq`, or is gone."""
        made = self.waiting.setdefault(seq, asyncio.get_running_loop().create_future())
        if self.gone or self.acked >= seq:
            self._wake(seq)
        return made

    def acknowledge(self, seq: int) -> None:
        """Take in an acknowledgement. Raises ValueError when it cannot be true."""
        if not self.acked <= seq <= self.sent:
            raise ValueError("an edge acknowledged what it was not sent")
        self.acked = seq
        self._wake(seq)

    def leave(self) -> None:
        """The connection is over: nobody waits for this edge any more."""
        self.gone = True
        for task in self.questions:
            task.cancel()
        self.writer.transport.abort()
        self._wake(max(self.waiting, default=0))

    def _wake(self, upto: int) -> None:
        for seq in [s for s in self.waiting if s <= upto]:
            waiter = self.waiting.pop(seq)
            if not waiter.done():
                waiter.set_result(None)


class FeedServer:
    """Serves edges on a unix socket. Register `heard` with the database."""

    def __init__(self, app: App, uids: frozenset[int], reply: Reply) -> None:
        """`uids` are the users whose processes may connect; `reply` answers edges and never raises."""
        self._app = app
        self._reply = reply
        self._uids = uids
        self._seq = 0
        self._edges: set[Edge] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        # Held while a snapshot is made and while a change is numbered and sent, so that neither overtakes.
        self._order = asyncio.Lock()
        registry = app.telemetry.registry
        self._connected = Gauge("ussycode_edges", "edges connected to the feed", registry=registry)
        self._dropped = Counter("ussycode_edges_dropped", "edges cut off", ["reason"], registry=registry)

    @property
    def edges(self) -> int:
        """Edges connected now."""
        return len(self._edges)

    async def serve(self, listening: socket.socket) -> None:
        """Serve a listening unix socket until cancelled; then every edge is let go."""
        server = await asyncio.start_unix_server(self._accept, sock=listening)
        try:
            await server.serve_forever()
        finally:
            server.close()
            for edge in tuple(self._edges):
                edge.leave()
            await asyncio.gather(*self._tasks, return_exceptions=True)

    async def heard(self, events: Sequence[Event]) -> None:
        """Tell every edge what `events` changed; returns when all have applied it or were cut off."""
        async with self._order:
            if not self._edges:
                return
            change = await ops.edge_change(self._app, self._seq + 1, events)
            if _empty(change):
                return
            self._seq = change.seq
            told = self._send_all(frame(change), change.seq)
        if not told:  # the last edge left while the change was gathered
            return
        _, late = await asyncio.wait(told, timeout=ACK_SECONDS)
        for waiter in late:
            self._drop(told[waiter], "slow")

    def _send_all(self, data: bytes, seq: int) -> dict[asyncio.Future[None], Edge]:
        for edge in self._edges:
            edge.send(data, seq)
        return {edge.reached(seq): edge for edge in self._edges}

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if _peer(writer) not in self._uids or len(self._edges) >= MAX_EDGES:
            self._dropped.labels("refused").inc()
            writer.transport.abort()
            return
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        edge = Edge(writer)
        try:
            await self._welcome(edge)
            await self._listen(edge, reader)
        except (OSError, asyncio.IncompleteReadError):
            self._drop(edge, "closed")
        except (ValueError, *UNREADABLE):
            self._drop(edge, "nonsense")
        finally:
            self._drop(edge, "closed")

    async def _welcome(self, edge: Edge) -> None:
        async with self._order:
            snapshot = await ops.edge_snapshot(self._app, self._seq)
            edge.send(frame(snapshot), self._seq)
            self._edges.add(edge)
            self._connected.set(len(self._edges))

    async def _listen(self, edge: Edge, reader: asyncio.StreamReader) -> None:
        while True:
            length = int.from_bytes(await reader.readexactly(4), "big")
            if not 0 < length <= MAX_UP:
                raise ValueError("an edge sent more than a message")
            message = _DECODER.decode(await reader.readexactly(length))
            if isinstance(message, Ack):
                edge.acknowledge(message.seq)
            elif isinstance(message, Visitors):
                edge.work_on(self._record(message))
            else:
                edge.ask(message, self._reply)

    async def _record(self, message: Visitors) -> None:
        try:
            await visitors.record(self._app, message.visitors)
        except Exception:  # the outermost frame of what nobody waits for
            self._app.telemetry.log.exception("visitors were not recorded")

    def _drop(self, edge: Edge, reason: str) -> None:
        edge.leave()
        if edge in self._edges:
            self._edges.discard(edge)
            self._connected.set(len(self._edges))
            self._dropped.labels(reason).inc()


def frame(message: Down) -> bytes:
    """One message as it goes over the feed. Raises ValueError when it is larger than a frame may be."""
    body = msgspec.msgpack.encode(message)
    if len(body) > MAX_FRAME:
        raise ValueError("the state is too large for one frame")
    return len(body).to_bytes(4, "big") + body


def _empty(change: Change) -> bool:
    return not any((
        change.put_vms, change.drop_vms, change.put_users, change.drop_users, change.put_sessions,
        change.drop_sessions, change.forget_tokens, change.signers, change.put_domains, change.drop_domains,
    ))


def _peer(writer: asyncio.StreamWriter) -> int:
    peer = writer.get_extra_info("socket").getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    return int(struct.unpack("3i", peer)[1])


_DECODER: msgspec.msgpack.Decoder[Up] = msgspec.msgpack.Decoder(Up)
