"""The edge on a table: its connections, its pools and its judgement, without sockets, clocks or an event loop."""
from __future__ import annotations

import hashlib
from collections.abc import Coroutine
from dataclasses import dataclass

from tests.contract.edge_corpus.recorder import by_the_sloppiest
from ussycode.base.clock import ManualClock
from ussycode.doors.edge.accesslog import AccessLog
from ussycode.doors.edge.edge import READ_SIZE, Edge
from ussycode.doors.edge.pool import Guest, Pool
from ussycode.doors.edge.requestids import RequestIds
from ussycode.doors.edge.settings import EdgeSettings
from ussycode.doors.edge.timed import Deadlines
from ussycode.doors.edge.upstream import TUNNEL, Upstream
from ussycode.doors.edge.visitor import VisitorConnection
from ussycode.wire.edge import EdgeSession, EdgeUser, EdgeVm, Snapshot

SESSION = b"a-session-of-alice-on-demo"
_IDS, _BUFFER = RequestIds(), memoryview(bytearray(READ_SIZE))
"""Shared by all tables: making them is most of the work of one."""
GREETING = b"OK\0\0\0\0"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
VMS = {
    name: EdgeVm(
        f"vm_{name}", name, owner, "running", "127.0.0.1", hashlib.sha256(name.encode()).hexdigest(), 8000, public,
    )
    for name, owner, public in (("open", "usr_bob", (8000,)), ("demo", "usr_alice", ()), ("secret", "usr_bob", ()))
}


class Wire:
    """One end of a connection: what was written, and whether it was ended."""

    def __init__(self) -> None:
        self.out = b""
        self.closing = False
        self.aborted = False
        self.told = False
        """`connection_lost` was called."""
        self.paused = False

    def write(self, data: bytes) -> None:
        if not self.closing:
            self.out += data

    def pause_reading(self) -> None:
        self.paused = True

    def resume_reading(self) -> None:
        self.paused = False

    def close(self) -> None:
        self.closing = True

    def abort(self) -> None:
        self.closing = self.aborted = True

    def get_extra_info(self, name: str) -> object:
        return ("192.0.2.7", 5) if name == "peername" else None


class Arm:
    """One connection to a VM or to the platform, and the app at its end."""

    def __init__(self, place: str, upstream: Upstream, wire: Wire, hello: bytes) -> None:
        self.place, self.upstream, self.wire, self.hello = place, upstream, wire, hello
        self.read = 0
        """Bytes that were read as whole requests."""

    def requests(self) -> list[bytes]:
        """Whole requests that came since the last call, raw."""
        found = []
        if not self.read and self.hello:
            assert self.wire.out.startswith(self.hello[: len(self.wire.out)])
            if len(self.wire.out) < len(self.hello):
                return []
            self.read = len(self.hello)
        while (rest := self.wire.out[self.read :]) and (size := _whole(rest)):
            found.append(rest[:size])
            self.read += size
        return found


def _whole(raw: bytes) -> int:
    """Size of the first whole request by its own framing; 0 while it is not whole."""
    end = raw.find(b"\r\n\r\n") + 4
    if end < 4:
        return 0
    low = raw[:end].lower()
    if b"\r\ntransfer-encoding: chunked\r\n" in low:
        done = raw.find(b"\r\n0\r\n", end - 2)  # only a first guess: the sloppy reader decides
        while done >= 0:
            stop = raw.find(b"\r\n\r\n", done + 3) + 4
            if stop >= 4 and len(by_the_sloppiest(raw[:stop])) == 1:
                return stop
            done = raw.find(b"\r\n0\r\n", done + 1)
        return 0
    at = low.find(b"\r\ncontent-length: ")
    length = int(low[at + 18 : low.find(b"\r\n", at + 18)]) if at >= 0 else 0
    return end + length if len(raw) >= end + length else 0


class TablePool(Pool):
    """A pool whose connections are arms on the table."""

    def __init__(self, table: Table, place: str, destination: Guest | str) -> None:
        super().__init__(destination)
        self._table, self._place = table, place

    async def connect(self) -> Upstream:
        upstream, wire = Upstream(self, self._hello), Wire()
        self._table.arms.append(Arm(self._place, upstream, wire, self._hello))
        upstream.connection_made(wire)  # type: ignore[arg-type]
        return upstream


class TableEdge(Edge):
    """An edge whose work in the background waits to be stepped."""

    def __init__(self) -> None:
        settings = EdgeSettings(domain="localhost", https_fds=[], control_socket="", feed_socket="")
        super().__init__(settings, ManualClock(), AccessLog("", "info"))
        self.request_ids, self.read_buffer = _IDS, _BUFFER
        self.at = 0.0
        self.deadlines = Deadlines(lambda: self.at)
        self.waiting: list[Coroutine[None, None, None]] = []

    def spawn(self, work: Coroutine[None, None, None]) -> None:
        self.waiting.append(work)


@dataclass
class Reached:
    """A whole request at a VM or the platform."""

    place: str
    raw: bytes


class Table:
    """One visitor's connection at an edge that knows three VMs."""

    def __init__(self, said: list[bytes]) -> None:
        """`said` is what apps answer, in turn; after that they answer OK."""
        self.said = said
        self.hangs_up = True
        """Apps that say odd things hang up behind them."""
        self.arms: list[Arm] = []
        self.reached: list[Reached] = []
        self.edge = TableEdge()
        digest = hashlib.sha256(SESSION).hexdigest()
        self.edge.known.reset(Snapshot(
            1, list(VMS.values()), [EdgeUser("usr_alice", "alice", "citizen"), EdgeUser("usr_bob", "bob", "citizen")],
            [EdgeSession(digest, "usr_alice", "demo.localhost", 4e9)],
        ))
        self.edge.platform = TablePool(self, "platform", "control")
        for vm in VMS.values():
            guest = Guest(vm.address, vm.secret, 8000, self.edge.settings.agent_port)
            self.edge.verdicts._pools[guest] = TablePool(self, vm.name, guest)
        self.wire = Wire()
        self.visitor = VisitorConnection(self.edge)
        self.visitor.connection_made(self.wire)  # type: ignore[arg-type]

    def send(self, data: bytes) -> None:
        """The visitor sends bytes; everything that follows happens."""
        if self.wire.closing:
            return
        buffer = self.visitor.get_buffer(len(data))
        buffer[: len(data)] = data
        self.visitor.buffer_updated(len(data))
        self.settle()

    def settle(self) -> None:
        """Until nothing moves any more."""
        while self._step():
            pass
        if self.wire.closing and not self.wire.told:
            self.wire.told = True
            self.visitor.connection_lost(None)
            self.settle()

    def after(self, seconds: float) -> None:
        """Time passes, second by second as far as anybody can tell."""
        self.edge.at += seconds
        self.edge.tick()
        self.settle()

    def leave(self) -> None:
        """The visitor goes."""
        if not self.wire.told:
            self.wire.closing = True
            self.settle()

    def _step(self) -> bool:
        if self.edge.waiting:
            try:
                self.edge.waiting.pop(0).send(None)
            except StopIteration:
                return True
            raise AssertionError("work in the background waits for something that is not on the table")
        return any([self._play(arm) for arm in list(self.arms)])

    def _play(self, arm: Arm) -> bool:
        if arm.wire.told:
            return False
        requests = [] if arm.upstream._stage is TUNNEL else arm.requests()
        for raw in requests:
            self.reached.append(Reached(arm.place, raw))
            if not arm.wire.closing:
                self._answer(arm)
        if arm.wire.closing and not arm.wire.told:
            arm.wire.told = True
            arm.upstream.connection_lost(None)
            return True
        return bool(requests)

    def _answer(self, arm: Arm) -> None:
        said = self.said.pop(0) if self.said else OK
        if not said and not self.hangs_up:
            return
        if arm.hello and arm.read and arm.upstream._greeting:
            said = GREETING + said
        if said:
            arm.upstream.data_received(said)
        if self.hangs_up and not said.endswith(OK) and not arm.wire.closing:
            arm.wire.closing = True
