"""Slow, greedy and half-gone clients and apps, on real sockets: memory stays flat, and whoever goes is noticed."""
from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from pathlib import Path

import pytest
import pytest_asyncio

from tests.contract.edge_rig import Client, Rig, Serve, running_edge, vm

pytestmark = pytest.mark.asyncio(loop_scope="module")
MB = 1 << 20
BIG = 100 * MB
"""More than the sockets on the way hold, which is some 30 MB."""
MOST = 12 * MB
"""Growth of the edge's memory that is allowed while BIG passes through, or waits."""
BLOCK = bytes(MB)


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def rig(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Rig]:
    async with running_edge(tmp_path_factory.mktemp("edge")) as rig:
        await rig.app(vm("open", public_ports=(8000,)))
        for _ in range(2):  # buffers that every process grows once
            client = await rig.connect("open.localhost")
            await client.send(ask("open", "/download?n=4000000"))
            await read(client, 4_000_000)
            client.close()
        yield rig


def ask(name: str, path: str = "/", headers: str = "", method: str = "GET") -> bytes:
    return f"{method} {path} HTTP/1.1\r\nHost: {name}.localhost\r\n{headers}\r\n".encode()


def memory(rig: Rig) -> int:
    """Resident bytes of the edge process."""
    return int(Path(f"/proc/{rig.process.pid}/statm").read_text().split()[1]) * 4096


async def read(client: Client, size: int) -> int:
    """The body of one response, thrown away; its size."""
    async with asyncio.timeout(60):
        await client.reader.readuntil(b"\r\n\r\n")
        got = 0
        while got < size and (data := await client.reader.read(MB)):
            got += len(data)
    return got


async def until(holds: Callable[[], bool]) -> None:
    """Ten seconds at most."""
    async with asyncio.timeout(10):
        while not holds():
            await asyncio.sleep(0.02)


async def stands_still(count: Callable[[], int]) -> int:
    """Wait until a count has not moved for half a second; the count."""
    async with asyncio.timeout(60):
        while True:
            before = count()
            await asyncio.sleep(0.5)
            if before and count() == before:
                return before


async def test_who_does_not_read_stops_the_app_and_costs_nothing(rig: Rig) -> None:
    sent = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % BIG)
        while sent < BIG:
            writer.write(BLOCK)
            await writer.drain()
            sent += MB

    await rig.app(vm("faucet", public_ports=(8000,)), serve=serve)
    before = memory(rig)
    client = await rig.connect("faucet.localhost")
    await client.send(ask("faucet"))
    waits = await stands_still(lambda: sent)
    assert waits < 3 * BIG / 4 and memory(rig) - before < MOST
    assert await read(client, BIG) == BIG
    assert memory(rig) - before < MOST
    client.close()


async def test_an_app_that_does_not_read_stops_the_visitor_and_costs_nothing(rig: Rig) -> None:
    gate, got, sent = asyncio.Event(), 0, 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal got
        await reader.readuntil(b"\r\n\r\n")
        await gate.wait()
        while got < BIG:
            got += len(await reader.read(MB))
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")

    async def upload(client: Client) -> None:
        nonlocal sent
        await client.send(ask("sink", headers=f"Content-Length: {BIG}\r\n", method="POST"))
        while sent < BIG:
            await client.send(BLOCK)
            sent += MB

    await rig.app(vm("sink", public_ports=(8000,)), serve=serve)
    before = memory(rig)
    client = await rig.connect("sink.localhost")
    sending = asyncio.create_task(upload(client))
    waits = await stands_still(lambda: sent)
    assert waits < 3 * BIG / 4 and memory(rig) - before < MOST
    gate.set()
    async with asyncio.timeout(60):
        await sending
    assert (await client.answer()).body == b"ok" and got == BIG
    assert memory(rig) - before < MOST
    client.close()


async def test_many_big_bodies_at_once_in_flat_memory(rig: Rig) -> None:
    size = 16 * MB

    async def down() -> None:
        client = await rig.connect("open.localhost")
        await client.send(ask("open", f"/download?n={size}"))
        assert await read(client, size) == size
        client.close()

    async def up() -> None:
        client = await rig.connect("open.localhost")
        await client.send(ask("open", headers="Transfer-Encoding: chunked\r\n", method="PUT"))
        for _ in range(size // MB):
            await client.send(b"%x\r\n%b\r\n" % (MB, BLOCK))
        await client.send(b"0\r\n\r\n")
        assert (await client.answer()).status == 200
        client.close()

    before = memory(rig)
    async with asyncio.timeout(60):
        await asyncio.gather(*(down() for _ in range(4)), *(up() for _ in range(4)))
    assert memory(rig) - before < 2 * MOST


def watched(said: bytes) -> tuple[Serve, asyncio.Event, asyncio.Event]:
    """An app that says something and then watches whether its visitor goes; when it was asked, when it ended."""
    asked, ended = asyncio.Event(), asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(said)
        asked.set()
        with suppress(ConnectionError):
            while await reader.read(MB):
                pass
        ended.set()
        writer.close()

    return serve, asked, ended


EVENTS = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n"
SWITCH = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n"
GONE = {
    "before the answer": (b"", ""), "in a stream": (EVENTS, ""),
    "in a WebSocket": (SWITCH, "Connection: Upgrade\r\nUpgrade: websocket\r\n"),
    "in an upload": (b"", "Content-Length: 1000\r\n"),
}


@pytest.mark.parametrize("how", ["closes", "half closes", "is cut off"])
@pytest.mark.parametrize("when", GONE)
async def test_an_app_hears_at_once_that_its_visitor_is_gone(rig: Rig, when: str, how: str) -> None:
    said, headers = GONE[when]
    serve, asked, ended = watched(said)
    await rig.app(vm("gone", public_ports=(8000,)), serve=serve)
    client = await rig.connect("gone.localhost")
    await client.send(ask("gone", headers=headers))
    async with asyncio.timeout(10):
        await asked.wait()
        if said:
            await client.reader.readuntil(b"\r\n\r\n")
        raw = client.writer.get_extra_info("socket")
        if how == "closes":
            client.close()
        elif how == "half closes":  # FIN without the end of TLS: whoever does that cannot read on either
            _fin(raw.fileno())
        else:
            client.writer.transport.abort()
        await ended.wait()
    client.close()


def _fin(fd: int) -> None:
    copy = socket.fromfd(fd, socket.AF_INET, socket.SOCK_STREAM)
    copy.shutdown(socket.SHUT_WR)
    copy.close()


async def test_an_app_that_ends_a_websocket_ends_it_for_the_visitor_after_its_last_words(rig: Rig) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(SWITCH + BLOCK + b"last words")
        await writer.drain()
        writer.write_eof()
        await reader.read(-1)
        writer.close()

    await rig.app(vm("brief", public_ports=(8000,)), serve=serve)
    client = await rig.connect("brief.localhost")
    await client.send(ask("brief", headers="Connection: Upgrade\r\nUpgrade: websocket\r\n"))
    out = await client.ended()
    assert out.endswith(b"last words") and len(out) > MB


async def test_an_app_that_half_closes_in_its_body_is_seen_to_have_broken_off(rig: Rig) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(EVENTS)
        writer.write_eof()
        await reader.read(-1)
        writer.close()

    await rig.app(vm("half", public_ports=(8000,)), serve=serve)
    client = await rig.connect("half.localhost")
    await client.send(ask("half") + ask("open"))
    out = await client.ended()
    assert out.endswith(b"5\r\nhello\r\n") and out.count(b"HTTP/1.1 ") == 1


async def test_a_silent_visitor_is_probed_for(rig: Rig) -> None:
    """One whose network is gone would hold its WebSocket for ever otherwise."""
    client = await rig.connect("open.localhost")
    established, keepalive, ours = "01", "02", f":{rig.port:04X}"

    def probed() -> bool:
        rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
        timers = [row[5].partition(":")[0] for row in rows if row[1].endswith(ours) and row[3] == established]
        return bool(timers) and set(timers) == {keepalive}

    await until(probed)
    client.close()


async def test_nothing_is_left_behind(rig: Rig) -> None:
    """Everybody above has gone: the edge holds no connection of theirs."""
    async def open_connections() -> bool:
        _, out = await rig.curl("--unix-socket", str(rig.folder / "edge.sock"), "http://edge/__edge/metrics")
        return "\nussycode_edge_connections_open 0\n" not in out

    async with asyncio.timeout(20):
        while await open_connections():
            await asyncio.sleep(0.1)
