"""A new edge takes over from the old one: nobody who is connected notices, and who must go is told to come back."""
from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from websockets.asyncio.client import ClientConnection
from websockets.asyncio.client import connect as ws_connect
from websockets.asyncio.server import ServerConnection
from websockets.asyncio.server import serve as ws_serve
from websockets.exceptions import ConnectionClosed

from tests.contract.edge_rig import ALICE, Rig, running_edge, vm

pytestmark = pytest.mark.asyncio(loop_scope="function")
OPEN = vm("open", public_ports=(8000,))


class Sockets:
    """An app with WebSockets: echoes, sends much when asked, and remembers how each ended."""

    def __init__(self) -> None:
        self.codes: list[int | None] = []
        self.flowing = asyncio.Event()

    async def serve(self, connection: ServerConnection) -> None:
        try:
            async for message in connection:
                if message == "flood":
                    await self.flood(connection)
                await connection.send(message)
        except ConnectionClosed:
            pass
        finally:
            self.codes.append(connection.close_code)

    async def flood(self, connection: ServerConnection) -> None:
        """Messages without end, so that frames are always under way."""
        while True:
            await connection.send(b"z" * 300_000)
            self.flowing.set()


@pytest_asyncio.fixture
async def place(tmp_path: Path) -> AsyncIterator[tuple[Rig, Sockets]]:
    app = Sockets()
    talk = ws_serve(app.serve, "127.0.0.1", 0, max_size=None, compression=None)
    async with running_edge(tmp_path, retire=3.0) as rig, talk as server:
        machine = vm("sockets")
        rig.agents.apps[machine.secret, 8000] = next(iter(server.sockets)).getsockname()[:2]
        await rig.feed.change(put_vms=[machine])
        await rig.app(OPEN)
        yield rig, app


async def opened(rig: Rig, session: str = "") -> ClientConnection:
    """A WebSocket to the machine `sockets`."""
    session = session or await rig.sign_in(ALICE, "sockets.localhost")
    return await ws_connect(
        f"wss://sockets.localhost:{rig.port}/", host="127.0.0.1", port=rig.port, ssl=rig.tls, proxy=None,
        server_hostname="sockets.localhost", additional_headers={"Cookie": f"__Host-ussycode={session}"}, max_size=None,
        compression=None,
    )


async def echoes(socket: ClientConnection) -> None:
    await socket.send("hello")
    assert await asyncio.wait_for(socket.recv(), 10) == "hello"


async def test_websockets_go_on_and_end_with_a_word_when_their_time_is_over(place: tuple[Rig, Sockets]) -> None:
    rig, app = place
    old_socket = await opened(rig)
    old = await rig.replace(retire=600.0)
    await echoes(old_socket)
    new_socket = await opened(rig)
    await echoes(new_socket)
    assert old.returncode is None
    with pytest.raises(ConnectionClosed):  # the old edge's three seconds
        await asyncio.wait_for(old_socket.recv(), 15)
    assert old_socket.close_code == 1012
    assert await asyncio.wait_for(old.wait(), 15) == 0
    await echoes(new_socket)
    async with asyncio.timeout(10):
        while not app.codes:
            await asyncio.sleep(0.05)
    assert app.codes == [1012]


async def test_an_edge_without_visitors_goes_at_once(place: tuple[Rig, Sockets]) -> None:
    rig, _ = place
    old = await rig.replace(retire=600.0)
    assert await asyncio.wait_for(old.wait(), 2.5) == 0


async def test_requests_under_way_finish_and_none_is_lost(place: tuple[Rig, Sockets]) -> None:
    rig, _ = place
    going, asked = True, 0

    async def ask() -> None:
        nonlocal asked
        while going:
            answer = await rig.get("open.localhost")
            assert answer.status == 200, answer.body
            asked += 1

    clients = [asyncio.create_task(ask()) for _ in range(4)]
    for _ in range(2):
        before = asked
        await rig.replace()
        async with asyncio.timeout(20):
            while asked < before + 40:
                await asyncio.sleep(0.02)
    going = False
    await asyncio.gather(*clients)
    reader, writer = await asyncio.open_connection(
        "127.0.0.1", rig.port, ssl=rig.tls, server_hostname="open.localhost", limit=1 << 20,
    )
    writer.write(b"GET /download?n=60000000 HTTP/1.1\r\nHost: open.localhost\r\n\r\n")
    assert b"200 OK" in await reader.readuntil(b"\r\n\r\n")
    old = await rig.replace()
    async with asyncio.timeout(20):
        assert len(await reader.readexactly(60_000_000)) == 60_000_000
        assert await reader.read() == b""
        assert await old.wait() == 0


async def test_a_revocation_bites_in_the_old_edge_too(place: tuple[Rig, Sockets]) -> None:
    rig, _ = place
    session = await rig.sign_in(ALICE, "sockets.localhost")
    cut, stays = await opened(rig, session), await opened(rig)
    await rig.replace()
    await rig.feed.change(drop_sessions=[hashlib.sha256(session.encode()).hexdigest()])
    with pytest.raises(ConnectionClosed):
        await asyncio.wait_for(cut.recv(), 2)
    await echoes(stays)


async def test_when_the_platform_stops_websockets_are_told_so(place: tuple[Rig, Sockets]) -> None:
    rig, _ = place
    socket = await opened(rig)
    await echoes(socket)
    rig.process.terminate()
    with pytest.raises(ConnectionClosed):
        await asyncio.wait_for(socket.recv(), 10)
    assert socket.close_code == 1001
    assert await asyncio.wait_for(rig.process.wait(), 10) == 0


async def test_the_word_comes_between_two_frames_of_the_app(place: tuple[Rig, Sockets]) -> None:
    rig, app = place
    socket = await opened(rig)
    await socket.send("flood")
    await asyncio.wait_for(app.flowing.wait(), 10)
    rig.process.terminate()
    whole = 0
    with pytest.raises(ConnectionClosed):
        async with asyncio.timeout(20):
            while True:
                assert len(await socket.recv()) == 300_000
                whole += 1
    assert socket.close_code == 1001 and whole > 0


async def test_a_new_edge_that_knows_nothing_serves_nobody(place: tuple[Rig, Sockets]) -> None:
    rig, _ = place
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(1.5):
            await rig.replace(feed_socket=str(rig.folder / "nothing.sock"))
    assert (await rig.get("open.localhost")).status == 200


async def test_the_operator_reads_the_new_ones_figures(place: tuple[Rig, Sockets]) -> None:
    rig, _ = place
    socket = await opened(rig)
    await rig.replace()
    said = b""
    async with asyncio.timeout(10):  # the old one accepts for a moment more
        while b'ussycode_edge_requests_total{status="200",reason="public"} 1' not in said:
            await rig.get("open.localhost")
            reader, writer = await asyncio.open_unix_connection(rig.folder / "edge.sock")
            writer.write(b"GET /__edge/metrics HTTP/1.1\r\n\r\n")
            said = await reader.read()
            writer.close()
    await socket.close()
    assert json.loads((await rig.get("open.localhost")).body)["app"] == "open"
