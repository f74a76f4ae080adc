"""The state: one SQLite file (WAL), one writer thread, plain functions that take a transaction."""
from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import sqlalchemy as sa
import structlog

from ussycode.base.clock import Clock, rfc3339
from ussycode.base.events import Event

T = TypeVar("T")
_log = structlog.get_logger("ussycode.db")
READERS = 2
"""Reader threads. Reads are short; more threads would only fight for the interpreter."""
BUSY_SECONDS = 10
"""How long SQLite waits for another process's lock (a backup, an operator's shell)."""

metadata = sa.MetaData()
"""Every table of the product; slices declare theirs in their `store.py`."""

events_table = sa.Table(
    "events",
    metadata,
    sa.Column("seq", sa.Integer, primary_key=True, autoincrement=True),
    sa.Column("at", sa.Float, nullable=False),
    sa.Column("kind", sa.String, nullable=False),
    sa.Column("actor", sa.String, nullable=False),
    sa.Column("subject", sa.String, nullable=False),
    sa.Column("data", sa.String, nullable=False),
    sa.Index("events_by_subject", "subject", "seq"),
)


@dataclass
class Tx:
    """One transaction: a connection, the time it began, and the events it will have caused."""

    conn: sa.Connection
    now: float
    events: list[Event] = field(default_factory=list)

    def emit(self, event: Event) -> None:
        """Record `event` in this transaction; it is told to others only after the commit."""
        row = {"at": self.now, "kind": event.kind, "actor": event.actor, "subject": event.subject}
        self.conn.execute(events_table.insert(), row | {"data": json.dumps(dict(event.data))})
        self.events.append(event)

    @property
    def stamp(self) -> str:
        """The transaction's time as RFC 3339."""
        return rfc3339(self.now)


Listener = Callable[[Sequence[Event]], Awaitable[None]]
"""Called after a commit with its events, before the write returns to its caller."""


class Database:
    """Runs plain functions off the event loop: any number of readers, exactly one writer."""

    def __init__(self, path: Path | None, clock: Clock) -> None:
        """Open the file at `path`, or a private in-memory database when it is None."""
        self._clock = clock
        self._engine = _engine(path)
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="db-write")
        self._readers = self._writer if path is None else ThreadPoolExecutor(READERS, "db-read")
        self._listeners: list[Listener] = []

    @property
    def engine(self) -> sa.Engine:
        """For migrations and for tests of the schema."""
        return self._engine

    def listen(self, listener: Listener) -> None:
        """Tell `listener` the events of every later commit."""
        self._listeners.append(listener)

    async def read(self, fn: Callable[[Tx], T]) -> T:
        """Result of `fn` in a read transaction."""
        return await asyncio.get_running_loop().run_in_executor(self._readers, self._run_read, fn)

    def read_now(self, fn: Callable[[Tx], T]) -> T:
        """The same for a program without an event loop."""
        return self._run_read(fn)

    async def write(self, fn: Callable[[Tx], T]) -> T:
        """Run `fn` in one transaction, commit, tell the listeners, return its result.

        Whatever `fn` raises rolls everything back. Once committed the listeners are told even when
        the caller is cancelled.
        """
        return await asyncio.shield(asyncio.ensure_future(self._write(fn)))

    async def _write(self, fn: Callable[[Tx], T]) -> T:
        loop = asyncio.get_running_loop()
        result, events = await loop.run_in_executor(self._writer, self._run_write, fn)
        for listener in self._listeners if events else ():
            try:
                await listener(events)
            except Exception:
                # The change is committed: whoever asked must hear that, and the other listeners must hear of it.
                _log.exception("a listener of events failed", listener=repr(listener))
        return result

    def _run_read(self, fn: Callable[[Tx], T]) -> T:
        with self._engine.connect() as conn:
            return fn(Tx(conn, self._clock.now()))

    def _run_write(self, fn: Callable[[Tx], T]) -> tuple[T, list[Event]]:
        with self._engine.connect() as conn:
            conn.exec_driver_sql("BEGIN IMMEDIATE")
            tx = Tx(conn, self._clock.now())
            try:
                result = fn(tx)
            except BaseException:
                conn.exec_driver_sql("ROLLBACK")
                raise
            conn.exec_driver_sql("COMMIT")
            return result, tx.events

    def close(self) -> None:
        """Wait for running work and close the file."""
        self._writer.shutdown()
        self._readers.shutdown()
        self._engine.dispose()


def _engine(path: Path | None) -> sa.Engine:
    where = "sqlite://" if path is None else f"sqlite:///{path}"
    pool = {"poolclass": sa.StaticPool} if path is None else {}
    engine = sa.create_engine(
        where, isolation_level="AUTOCOMMIT",
        connect_args={"check_same_thread": False, "timeout": BUSY_SECONDS}, **pool,
    )
    sa.event.listen(engine, "connect", _pragmas)
    return engine


def _pragmas(connection: object, _record: object) -> None:
    cursor = connection.cursor()  # type: ignore[attr-defined]
    for pragma in ("journal_mode=WAL", "synchronous=NORMAL", "foreign_keys=ON", "temp_store=MEMORY"):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()
