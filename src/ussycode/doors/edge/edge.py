"""What all connections of one edge process share."""
from __future__ import annotations

import asyncio
from collections.abc import Coroutine

from ussycode.base.clock import Clock
from ussycode.doors.edge.accesslog import AccessLog
from ussycode.doors.edge.assertions import Assertions
from ussycode.doors.edge.bearer import Tokens
from ussycode.doors.edge.counters import Counters
from ussycode.doors.edge.domains import Domains
from ussycode.doors.edge.facts import Known
from ussycode.doors.edge.feed import Questions
from ussycode.doors.edge.hosts import Hosts
from ussycode.doors.edge.limits import Limits
from ussycode.doors.edge.pool import Pool
from ussycode.doors.edge.requestids import RequestIds
from ussycode.doors.edge.settings import EdgeSettings
from ussycode.doors.edge.timed import Deadlines
from ussycode.doors.edge.verdicts import Verdicts
from ussycode.doors.edge.visitorlog import EVERY, VisitorLog

MAX_CONNECTIONS = 8192
"""Visitors connected to one process at a time; further ones are told so."""

ARRIVAL = 12.0
"""Seconds after which a handshake is over, one way or the other: a little more than it may take."""
READ_SIZE = 256 * 1024
"""Bytes taken from a connection at a time."""


class Edge:
    """State of the process; one per event loop."""

    def __init__(self, settings: EdgeSettings, clock: Clock, log: AccessLog) -> None:
        self.settings = settings
        self.clock = clock
        self.questions = Questions()
        self.tokens = Tokens(self.questions, clock)
        self.known = Known(self.tokens)
        self.domains = Domains(lambda: self.known.vms)
        self.hosts = Hosts(settings.domain, self.domains.vm_name)
        self.assertions = Assertions(settings.issuer)
        self.verdicts = Verdicts(self.hosts, self.known, clock, settings.agent_port, self.assertions)
        self.platform = Pool(settings.control_socket)
        self.deadlines = Deadlines()
        self.limits = Limits(settings)
        self.counters = Counters()
        self.visitors = VisitorLog(self.counters)
        self.log = log
        self.request_ids = RequestIds()
        self.degraded = b""
        """Header line that every response carries while control is unreachable."""
        self.read_buffer = memoryview(bytearray(READ_SIZE))
        self.draining = False
        self.arriving: dict[object, float] = {}
        """Connections whose handshake is under way, oldest first, each with the moment by which it is over."""
        self.informed = asyncio.Event()
        """The first snapshot has come."""
        self._ticks = 0
        self._tasks: set[asyncio.Task[None]] = set()

    def spawn(self, work: Coroutine[None, None, None]) -> None:
        """Run `work` beside the caller; it is kept until it ends."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def quiet(self, patient: bool) -> None:
        """Serve nobody anew: idle connections end now, the others with their response.

        `patient` leaves those that have not asked anything yet the time to do so.
        """
        self.draining = True
        for member in list(self.deadlines.members):
            member.leave_when_idle(patient)

    def farewell(self, code: int) -> None:
        """End every WebSocket in good order."""
        for member in list(self.deadlines.members):
            member.farewell(code)

    def tick(self) -> None:
        """Once a second: deadlines, idle connections, sessions that have expired."""
        now = self.deadlines.tick()
        while self.arriving and next(iter(self.arriving.values())) <= now:
            del self.arriving[next(iter(self.arriving))]  # nobody is told when a handshake fails
        self.verdicts.tick(now)
        self.platform.prune(now)
        self._ticks += 1
        if self._ticks % EVERY == 0:
            self.tell_visitors()

    def tell_visitors(self) -> None:
        """Tell control who came; what it cannot be told now is lost."""
        for message in self.visitors.take():
            self.questions.tell(message)
