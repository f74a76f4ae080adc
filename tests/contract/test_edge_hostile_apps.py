"""Whatever an app answers, its visitor sees one sound response or a broken connection, and nobody else sees anything.

Behind each trick stands a request of the same visitor to another VM, sent at once: a response that could be stretched,
cut or doubled would be taken for the answer to that one.
"""
from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import dataclass

import h11
import pytest
import pytest_asyncio

from tests.contract.edge_corpus.recorder import Recorder
from tests.contract.edge_corpus.responses import FORGED, TRICKS, Trick
from tests.contract.edge_rig import Client, Rig, Serve, running_edge, vm

pytestmark = pytest.mark.asyncio(loop_scope="module")
LONGEST = 20.0
"""Seconds until a trick counts as never answered."""


def answering(trick: Trick) -> Serve:
    """An app that plays the trick once for each connection."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            await reader.readuntil(b"\r\n\r\n")
            writer.write(trick.raw)
            await writer.drain()
            if not trick.hangs_up:
                await reader.read(1)
        writer.close()

    return serve


@dataclass
class Seen:
    """What the visitor read: `(status, body)` of each whole response, and all bytes."""

    whole: list[tuple[int, bytes]]
    broken: bool
    raw: bytes


async def visit(rig: Rig, trick: Trick, name: str) -> Seen:
    client = await rig.connect(f"{name}.localhost")
    await client.send((
        f"{trick.method} / HTTP/1.1\r\nHost: {name}.localhost\r\n\r\n"
        "GET /after HTTP/1.1\r\nHost: honest.localhost\r\nConnection: close\r\n\r\n"
    ).encode())
    return read(await everything(client), [trick.method, "GET"])


async def everything(client: Client) -> bytes:
    """All that comes until the connection ends, or LONGEST is over."""
    out = b""
    with suppress(TimeoutError, ConnectionError):
        async with asyncio.timeout(LONGEST):
            while data := await client.reader.read(1 << 16):
                out += data
    client.close()
    return out


def read(raw: bytes, methods: list[str]) -> Seen:
    """As a strict client reads it that sent these requests."""
    seen = Seen([], False, raw)
    for method in methods:
        if seen.whole and not raw:
            return seen
        said = h11.Connection(h11.CLIENT, max_incomplete_event_size=1 << 20)
        said.send(h11.Request(method=method, target="/", headers=[("Host", "x")]))
        said.send(h11.EndOfMessage())
        said.receive_data(raw)
        said.receive_data(b"")
        status, body = 0, b""
        try:
            while not isinstance(event := said.next_event(), h11.EndOfMessage | h11.ConnectionClosed):
                assert event not in (h11.NEED_DATA, h11.PAUSED), (event, raw)
                if isinstance(event, h11.Response):
                    status = event.status_code
                elif isinstance(event, h11.Data):
                    body += event.data
        except h11.RemoteProtocolError:
            seen.broken = True
            return seen
        if isinstance(event, h11.ConnectionClosed):
            return seen
        seen.whole.append((status, body))
        raw = said.trailing_data[0]
    assert raw == b"", raw
    return seen


@dataclass
class Field:
    rig: Rig
    seen: dict[str, Seen]


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def field(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Field]:
    async with running_edge(tmp_path_factory.mktemp("edge")) as rig:
        await rig.app(vm("honest", public_ports=(8000,)), serve=Recorder().serve)
        for number, trick in enumerate(TRICKS):
            await rig.app(vm(f"c{number:03}", public_ports=(8000,)), serve=answering(trick))
        seen = await asyncio.gather(*(visit(rig, t, f"c{n:03}") for n, t in enumerate(TRICKS)))
        yield Field(rig, {t.name: s for t, s in zip(TRICKS, seen, strict=True)})


@pytest.mark.parametrize("trick", TRICKS, ids=lambda t: t.name.encode("unicode_escape").decode())
async def test_one_sound_answer_or_a_broken_one(field: Field, trick: Trick) -> None:
    seen = field.seen[trick.name]
    if not trick.whole:
        assert (seen.whole, seen.broken) == ([], True)
        assert b" 200 " in seen.raw.split(b"\r\n")[0]
        return
    assert not seen.broken
    status, body = seen.whole[0]
    assert status == trick.status
    assert trick.body is None or body == trick.body
    if b"\r\nConnection: close\r\n" not in seen.raw.partition(b"\r\n\r\n")[0]:
        assert seen.whole[1:] == [(200, b"ok")]
    assert [n for n in trick.lacks if n in seen.raw.lower().rpartition(b"http/1.1 ")[0]] == []


async def test_what_an_app_says_unasked_is_for_nobody(field: Field) -> None:
    """An app that waits until the edge keeps its connection, and then says a response: the next visitor's, it hopes."""
    said, dropped = asyncio.Event(), asyncio.Semaphore(0)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
            await said.wait()
            said.clear()
            writer.write(FORGED.encode())
            await reader.read(-1)
        dropped.release()
        writer.close()

    await field.rig.app(vm("unasked", public_ports=(8000,)), serve=serve)
    client = await field.rig.connect("unasked.localhost")
    ask = b"GET / HTTP/1.1\r\nHost: unasked.localhost\r\n\r\n"
    for _ in range(3):
        await client.send(ask)
        assert (await client.answer()).body == b"ok"
        said.set()
        async with asyncio.timeout(10):
            await dropped.acquire()
    client.close()


async def test_an_answer_before_the_request_is_whole_ends_both(field: Field) -> None:
    """The rest of the upload must not be read as a request, by the app or by the edge."""
    got = bytearray()
    left = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        got.extend(await reader.readuntil(b"\r\n\r\n"))
        writer.write(b"HTTP/1.1 413 Too Large\r\nContent-Length: 2\r\n\r\nno")
        with suppress(ConnectionError):
            while data := await reader.read(1 << 16):
                got.extend(data)
        left.set()
        writer.close()

    await field.rig.app(vm("early", public_ports=(8000,)), serve=serve)
    client = await field.rig.connect("early.localhost")
    await client.send(b"POST / HTTP/1.1\r\nHost: early.localhost\r\nContent-Length: 1000\r\n\r\n")
    answer = await client.answer()
    assert (answer.status, answer.body, answer.header("connection")) == (413, b"no", "close")
    await client.send(b"GET /smuggled HTTP/1.1\r\nHost: early.localhost\r\n\r\n")
    assert await everything(client) == b""
    async with asyncio.timeout(10):
        await left.wait()
    assert b"smuggled" not in got
