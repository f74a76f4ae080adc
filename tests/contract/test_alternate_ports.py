"""A port of its own on the internet is that port of the VM: judged for it, never for what a client writes instead."""
from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tests.contract.edge_rig import ALICE, BOB, Answer, Client, Rig, running_edge, vm
from tests.contract.test_front_socket import TOLD, asks

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def rig(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Rig]:
    async with running_edge(tmp_path_factory.mktemp("edge")) as rig:
        other = rig.alternate
        for machine, port in (
            (vm("demo", public_ports=(8000,)), 8000), (vm("demo", public_ports=(8000,)), other),
            (vm("shop", public_ports=(other,)), other), (vm("shop", public_ports=(other,)), 8000),
        ):
            app = await rig.app(machine, port)
            app.name = f"{machine.name}:{port}"
        yield rig


async def at(rig: Rig, port: int, host: str, session: str = "", headers: str = "") -> Answer:
    """One request to `port`, with exactly this Host."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=rig.tls, server_hostname="demo.localhost")
    client = Client(reader, writer)
    cookie = f"Cookie: __Host-ussycode={session}\r\n" if session else ""
    await client.send(f"GET / HTTP/1.1\r\nHost: {host}\r\n{cookie}{headers}\r\n".encode())
    answer = await client.answer()
    client.close()
    return answer


def who(answer: Answer) -> str:
    """The app that answered."""
    assert answer.status == 200, answer.body
    return str(json.loads(answer.body)["app"])


async def test_a_public_primary_port_opens_no_alternate_one(rig: Rig) -> None:
    other = rig.alternate
    assert who(await at(rig, rig.port, f"demo.localhost:{rig.port}")) == "demo:8000"
    assert (await at(rig, other, f"demo.localhost:{other}")).status == 401
    page = await at(rig, other, f"demo.localhost:{other}", headers="Accept: text/html\r\n")
    assert page.status == 302 and page.header("location").startswith("/__ussycode/login")


async def test_owner_reaches_it_with_the_session_of_the_host_and_strangers_never(rig: Rig) -> None:
    other = rig.alternate
    alice, bob = await rig.sign_in(ALICE, "demo.localhost"), await rig.sign_in(BOB, "demo.localhost")
    answer = await at(rig, other, f"demo.localhost:{other}", alice)
    assert who(answer) == f"demo:{other}"
    seen = dict(json.loads(answer.body)["headers"])
    assert seen["X-Forwarded-Host"] == f"demo.localhost:{other}" and seen["X-Ussycode-UserID"] == "usr_alice"
    assert (await at(rig, other, f"demo.localhost:{other}", bob)).status == 404
    elsewhere = await rig.sign_in(ALICE, "shop.localhost")
    assert (await at(rig, other, f"demo.localhost:{other}", elsewhere)).status == 401


async def test_a_public_alternate_port_opens_no_primary_one(rig: Rig) -> None:
    other = rig.alternate
    assert who(await at(rig, other, f"shop.localhost:{other}")) == f"shop:{other}"
    assert (await at(rig, rig.port, f"shop.localhost:{rig.port}")).status == 401


@pytest.mark.parametrize("written", [
    "{name}.localhost", "{name}.localhost:443", "{name}.localhost:{port}", "{name}.localhost:8000",
    "{other}--{name}.localhost", "{name}.localhost:0{other}", "{name}.localhost:",
])
@pytest.mark.parametrize("name", ["demo", "shop"])
async def test_who_writes_another_port_than_they_are_at_gets_neither(rig: Rig, written: str, name: str) -> None:
    host = written.format(name=name, port=rig.port, other=rig.alternate)
    session = await rig.sign_in(ALICE, f"{name}.localhost")
    answer = await at(rig, rig.alternate, host, session)
    assert answer.status in (400, 421), answer.body


async def test_on_the_ordinary_port_a_written_port_changes_nothing(rig: Rig) -> None:
    assert (await at(rig, rig.port, f"shop.localhost:{rig.alternate}")).status == 401
    assert who(await at(rig, rig.port, f"demo.localhost:{rig.alternate}")) == "demo:8000"


async def test_neither_the_platform_nor_named_ports_are_there(rig: Rig) -> None:
    other = rig.alternate
    session = await rig.sign_in(ALICE, f"{other}--demo.localhost")
    for host in ("localhost", f"{other}--demo.localhost", "3000--demo.localhost", "example.org"):
        assert (await at(rig, other, f"{host}:{other}", session)).status == 404


async def test_a_revocation_bites_there_too(rig: Rig) -> None:
    other = rig.alternate
    await rig.feed.change(put_vms=[vm("shop", public_ports=())])
    assert (await at(rig, other, f"shop.localhost:{other}")).status == 401
    await rig.feed.change(put_vms=[vm("shop", public_ports=(other,))])
    assert who(await at(rig, other, f"shop.localhost:{other}")) == f"shop:{other}"


async def test_what_is_under_way_there_goes_on_when_something_else_changes(rig: Rig) -> None:
    reader, writer = await asyncio.open_connection(
        "127.0.0.1", rig.alternate, ssl=rig.tls, server_hostname="shop.localhost", limit=1 << 20,
    )
    writer.write(f"GET /download?n=50000000 HTTP/1.1\r\nHost: shop.localhost:{rig.alternate}\r\n\r\n".encode())
    head = await reader.readuntil(b"\r\n\r\n")
    await rig.feed.change(put_vms=[vm("new")])
    async with asyncio.timeout(20):
        assert b"200" in head and len(await reader.readexactly(50_000_000)) == 50_000_000
    writer.close()


async def test_behind_a_front_the_port_it_tells_counts_and_must_agree(rig: Rig) -> None:
    other = rig.alternate
    told = TOLD.replace("443", str(other))
    assert who(await asks(rig, told, f"shop.localhost:{other}")) == f"shop:{other}"
    assert (await asks(rig, told, f"demo.localhost:{other}")).status == 401
    for host in ("demo.localhost", f"demo.localhost:{rig.port}", f"{other}--demo.localhost"):
        assert (await asks(rig, told, host)).status in (404, 421)
    assert who(await asks(rig, TOLD, f"demo.localhost:{other}")) == "demo:8000"


async def test_the_log_names_the_port(rig: Rig) -> None:
    answer = await at(rig, rig.alternate, f"shop.localhost:{rig.alternate}")
    async with asyncio.timeout(5):
        while not (lines := [line for line in rig.logged() if line["id"] == answer.header("x-request-id")]):
            await asyncio.sleep(0.02)
    assert lines[0]["host"] == f"shop.localhost:{rig.alternate}"
