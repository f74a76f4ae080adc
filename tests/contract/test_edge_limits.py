"""Who asks too much hears so, with the time to come back; everybody else notices nothing."""
from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tests.contract.edge_rig import ALICE, Answer, Client, Rig, running_edge, vm
from tests.contract.front_rig import fronted
from tests.contract.test_front_socket import TOLD, asks
from ussycode.doors.edge.limits import BURST_SECONDS

pytestmark = pytest.mark.asyncio(loop_scope="module")
REQUESTS, ACCOUNT, CONNECTIONS = 4, 3, 5


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def rig(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Rig]:
    limits = {"limit_requests": REQUESTS, "limit_account": ACCOUNT, "limit_connections": CONNECTIONS}
    async with running_edge(tmp_path_factory.mktemp("edge"), **limits) as rig:
        await rig.app(vm("open", public_ports=(8000,)))
        yield rig


def of(address: str) -> str:
    """What the front tells about a visitor there."""
    return TOLD.replace("192.0.2.7", address)


async def many(rig: Rig, count: int, headers: str) -> list[Answer]:
    """So many requests on one connection of the front."""
    reader, writer = await asyncio.open_unix_connection(rig.folder / "front.sock")
    client = Client(reader, writer)
    answers = []
    for _ in range(count):
        await client.send(f"GET / HTTP/1.1\r\nHost: open.localhost\r\n{headers}\r\n".encode())
        answers.append(await client.answer())
    client.close()
    return answers


async def test_one_address_may_so_much_and_others_are_not_touched(rig: Rig) -> None:
    answers = await many(rig, 60, of("198.51.100.1"))
    good = [a for a in answers if a.status == 200]
    assert REQUESTS * BURST_SECONDS <= len(good) < 60
    refused = next(a for a in answers if a.status == 429)
    assert refused.header("retry-after") == "1" and b"too many requests from your address" in refused.body
    assert (await asks(rig, of("198.51.100.2"))).status == 200
    async with asyncio.timeout(10):
        while (await asks(rig, of("198.51.100.1"))).status != 200:
            await asyncio.sleep(0.2)


async def test_one_account_may_so_much_from_wherever_it_comes(rig: Rig) -> None:
    session = await rig.sign_in(ALICE, "open.localhost")
    answers = [
        (await many(rig, 1, of(f"203.0.113.{n}") + f"Cookie: __Host-ussycode={session}\r\n"))[0] for n in range(1, 40)
    ]
    refused = [a for a in answers if a.status == 429]
    assert refused and b"too many requests from your account" in refused[0].body
    assert refused[0].header("retry-after") == "1" and answers[0].status == 200


async def test_one_connection_too_many_hears_why_and_is_ended(rig: Rig) -> None:
    clients = [await rig.connect("open.localhost") for _ in range(CONNECTIONS)]
    late = await rig.connect("open.localhost")
    await late.send(b"GET / HTTP/1.1\r\nHost: open.localhost\r\n\r\n")
    answer = await late.answer()
    assert answer.status == 429 and answer.header("retry-after") == "5" and answer.header("connection") == "close"
    assert b"too many connections from your address" in answer.body and await late.ended() == b""
    await clients[0].send(b"GET / HTTP/1.1\r\nHost: open.localhost\r\n\r\n")
    assert (await clients[0].answer()).status == 200
    for client in clients:
        client.close()
    async with asyncio.timeout(10):
        while (await rig.get("open.localhost")).status != 200:
            await asyncio.sleep(0.1)


async def test_the_operator_sees_what_was_refused(rig: Rig) -> None:
    reader, writer = await asyncio.open_unix_connection(rig.folder / "edge.sock")
    writer.write(b"GET /__edge/metrics HTTP/1.1\r\n\r\n")
    said = (await asyncio.wait_for(reader.read(), 5)).decode()
    writer.close()
    for reason in ("limit_requests", "limit_account", "limit_connections"):
        assert f'ussycode_edge_requests_total{{status="429",reason="{reason}"}}' in said
    assert "ussycode_edge_addresses_known" in said
    async with asyncio.timeout(10):
        while not {"limit_requests", "limit_account"} <= {x["reason"] for x in rig.logged() if x["status"] == 429}:
            await asyncio.sleep(0.05)


async def test_new_connections_have_a_rate(tmp_path_factory: pytest.TempPathFactory) -> None:
    async with running_edge(tmp_path_factory.mktemp("edge"), limit_handshakes=2) as rig:
        await rig.app(vm("open", public_ports=(8000,)))
        statuses = [await rig.get("open.localhost") for _ in range(16)]
        refused = [a for a in statuses if a.status == 429]
        assert statuses[0].status == 200 and refused
        assert b"too many new connections" in refused[0].body and refused[0].header("retry-after") == "1"


async def test_haproxy_counts_connections_for_the_edge() -> None:
    async with fronted("haproxy", limit_connections="2", limit_handshakes="0", limit_exempt="") as front:
        await front.rig.app(vm("open", public_ports=(8000,)))
        idle = [await asyncio.open_connection("127.0.0.1", front.port) for _ in range(3)]
        _, out = await front.curl("-i", front.url("open.localhost"))
        assert " 429" in out and "retry-after: 5" in out.lower()
        for _, writer in idle:
            writer.close()
        async with asyncio.timeout(10):
            while "HTTP/2 200" not in (await front.curl("-i", front.url("open.localhost")))[1]:
                await asyncio.sleep(0.1)
