"""A revocation is in force when the command returns: every edge has it, or is no longer fed."""
from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import msgspec
import pytest

from tests.world import World, world
from ussycode.access.facts import Caller
from ussycode.doors.edgefeed import server as module
from ussycode.doors.edgefeed.answers import Answers
from ussycode.doors.edgefeed.server import FeedServer
from ussycode.tokens.verify import TokenVerifier
from ussycode.wire.edge import Ack, Change, Down, Snapshot


@dataclass
class Fed:
    """A hand-driven edge."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def next(self) -> Down:
        async with asyncio.timeout(5):
            size = int.from_bytes(await self.reader.readexactly(4), "big")
            return msgspec.msgpack.decode(await self.reader.readexactly(size), type=Down)

    def ack(self, seq: int) -> None:
        body = msgspec.msgpack.encode(Ack(seq))
        self.writer.write(len(body).to_bytes(4, "big") + body)

    async def ended(self) -> bool:
        async with asyncio.timeout(5):
            try:
                return await self.reader.read() == b""
            except ConnectionError:
                return True


@dataclass
class Place:
    base: World
    alice: Caller
    feed: FeedServer
    path: Path

    async def edge(self) -> tuple[Fed, Snapshot]:
        fed = Fed(*await asyncio.open_unix_connection(str(self.path)))
        first = await fed.next()
        assert isinstance(first, Snapshot)
        fed.ack(first.seq)
        return fed, first

    def counted(self, reason: str) -> float:
        registry = self.base.app.telemetry.registry
        return registry.get_sample_value("ussycode_edges_dropped_total", {"reason": reason}) or 0


@asynccontextmanager
async def feeding(folder: Path, uids: frozenset[int]) -> AsyncIterator[Place]:
    async with world() as base:
        alice = await base.person("alice")
        feed = FeedServer(base.app, uids, Answers(base.app, TokenVerifier(base.app)))
        base.app.db.listen(feed.heard)
        listening = socket.socket(socket.AF_UNIX)
        listening.bind(str(folder / "feed.sock"))
        listening.listen()
        listening.setblocking(False)
        task = asyncio.create_task(feed.serve(listening))
        yield Place(base, alice, feed, folder / "feed.sock")
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


@pytest.fixture
async def place(tmp_path: Path) -> AsyncIterator[Place]:
    async with feeding(tmp_path, frozenset({os.getuid()})) as made:
        yield made


async def test_an_edge_begins_with_everything(place: Place) -> None:
    await place.base.does(place.alice, "new --name demo")
    _, first = await place.edge()
    assert [vm.name for vm in first.vms] == ["demo"]
    assert [user.handle for user in first.users] == ["alice"]


async def test_a_command_returns_only_after_every_edge_has_applied_its_change(place: Place) -> None:
    await place.base.does(place.alice, "new --name demo")
    (one, first), (two, _) = await place.edge(), await place.edge()
    command = asyncio.create_task(place.base.does(place.alice, "share set-public demo"))
    for fed in (one, two):
        told = await fed.next()
        assert isinstance(told, Change) and told.seq == first.seq + 1
        assert told.put_vms[0].public_ports == (8000,)
        assert not command.done()
        fed.ack(told.seq)
    await asyncio.wait_for(command, 5)


async def test_changes_come_numbered_without_gaps(place: Place) -> None:
    await place.base.does(place.alice, "new --name demo")
    fed, first = await place.edge()
    for n in range(1, 4):
        command = asyncio.create_task(place.base.does(place.alice, f"share port demo {3000 + n}"))
        told = await fed.next()
        assert (told.seq, isinstance(told, Change)) == (first.seq + n, True)
        fed.ack(told.seq)
        await command
    assert (await place.edge())[1].seq == first.seq + 3


async def test_what_concerns_no_edge_is_not_sent(place: Place) -> None:
    fed, first = await place.edge()
    await place.base.does(place.alice, "ssh-key add ssh-ed25519 " + "AAAAC3NzaC1lZDI1NTE5AAAAI" + "G" * 42 + "A two")
    command = asyncio.create_task(place.base.run(place.alice, "new --name demo"))
    told = await fed.next()
    assert told.seq == first.seq + 1 and isinstance(told, Change) and told.put_vms
    fed.writer.close()
    await command


async def test_a_silent_edge_is_cut_off_and_counted(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "ACK_SECONDS", 0.05)
    await place.base.does(place.alice, "new --name demo")
    silent, _ = await place.edge()
    await asyncio.wait_for(place.base.does(place.alice, "share set-public demo"), 5)
    await silent.next()
    assert await silent.ended()
    assert (place.feed.edges, place.counted("slow")) == (0, 1)
    again, first = await place.edge()
    assert first.vms[0].public_ports == (8000,)
    again.writer.close()


async def test_an_edge_that_dies_holds_nobody_up(place: Place) -> None:
    await place.base.does(place.alice, "new --name demo")
    fed, _ = await place.edge()
    command = asyncio.create_task(place.base.does(place.alice, "share set-public demo"))
    await fed.next()
    fed.writer.transport.abort()
    await asyncio.wait_for(command, 1)


@pytest.mark.parametrize("said", [
    b"\0\0\0\0", b"\xff\xff\xff\xff", b"\0\0\0\1\xc1", b"\0\0\0\2{}",
    (lambda b: len(b).to_bytes(4, "big") + b)(msgspec.msgpack.encode(Ack(99))),
    (lambda b: len(b).to_bytes(4, "big") + b)(msgspec.msgpack.encode(Ack(-7))),
])
async def test_nonsense_ends_the_connection(place: Place, said: bytes) -> None:
    fed = Fed(*await asyncio.open_unix_connection(str(place.path)))
    await fed.next()
    fed.writer.write(said)
    assert await fed.ended()
    assert place.counted("nonsense") == 1


async def test_other_users_are_not_fed(tmp_path: Path) -> None:
    async with feeding(tmp_path, frozenset({os.getuid() + 1})) as place:
        fed = Fed(*await asyncio.open_unix_connection(str(place.path)))
        assert await fed.ended()
        assert place.counted("refused") == 1
