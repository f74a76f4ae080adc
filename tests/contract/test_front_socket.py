"""Whoever stands in front of the edge is believed about visitors' addresses; nobody else ever is."""
from __future__ import annotations

import asyncio
import ipaddress
import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from tests.contract.edge_rig import ALICE, Answer, Client, Rig, running_edge, vm
from tests.contract.front_rig import nobody
from tests.contract.test_edge_proxy import said
from ussycode.cli.listeners import bind_front
from ussycode.config import load
from ussycode.runtime import instance as instances

pytestmark = pytest.mark.asyncio(loop_scope="module")
PORT = "X-Forwarded-Port: 443\r\n"
TOLD = "X-Forwarded-For: 192.0.2.7\r\nX-Forwarded-Proto: https\r\n" + PORT


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def rig(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Rig]:
    async with running_edge(tmp_path_factory.mktemp("edge")) as rig:
        await rig.app(vm("open", public_ports=(8000,)))
        yield rig


async def asks(rig: Rig, headers: str, host: str = "open.localhost", path: str = "/") -> Answer:
    """One request on the front's socket."""
    reader, writer = await asyncio.open_unix_connection(rig.folder / "front.sock")
    client = Client(reader, writer)
    await client.send(f"GET {path} HTTP/1.1\r\nHost: {host}\r\n{headers}\r\n".encode())
    answer = await client.answer()
    client.close()
    return answer


async def test_the_fronts_word_reaches_the_app_and_the_log(rig: Rig) -> None:
    seen = said((await asks(rig, TOLD)).body)
    assert seen["x-forwarded-for"] == ["192.0.2.7"] and seen["x-forwarded-proto"] == ["https"]
    session = await rig.sign_in(ALICE, "open.localhost")
    seen = said((await asks(rig, TOLD + f"Cookie: __Host-ussycode={session}\r\n")).body)
    assert seen["x-ussycode-userid"] == ["usr_alice"] and "cookie" not in seen


@pytest.mark.parametrize(("given", "shown"), [
    ("2001:DB8:0:0::1", "2001:db8::1"), ("::ffff:192.0.2.9", "192.0.2.9"), ("fe80::1%eth0", "fe80::1"),
])
async def test_addresses_have_one_spelling(rig: Rig, given: str, shown: str) -> None:
    answer = await asks(rig, f"x-forwarded-for:{given}\r\nX-FORWARDED-PROTO: https \r\n" + PORT)
    assert said(answer.body)["x-forwarded-for"] == [shown]


@pytest.mark.parametrize("headers", [
    "", PORT, "X-Forwarded-For: 192.0.2.7\r\n" + PORT, "X-Forwarded-Proto: https\r\n" + PORT,
    TOLD.replace(PORT, ""), TOLD + PORT, TOLD.replace("443", "0"), TOLD.replace("443", "443, 3456"),
    TOLD + "X-Forwarded-For: 203.0.113.5\r\n", TOLD + "X-Forwarded-Proto: https\r\n",
    "X-Forwarded-For: 203.0.113.5, 192.0.2.7\r\nX-Forwarded-Proto: https\r\n" + PORT,
    "X-Forwarded-For: somebody\r\nX-Forwarded-Proto: https\r\n" + PORT,
    "X-Forwarded-For:\r\nX-Forwarded-Proto: https\r\n" + PORT,
    "X-Forwarded-For: 192.0.2.7:4711\r\nX-Forwarded-Proto: https\r\n" + PORT,
    "X-Forwarded-For: 192.0.2.7\r\nX-Forwarded-Proto: https,http\r\n" + PORT,
    "X_Forwarded_For: 192.0.2.7\r\nX_Forwarded_Proto: https\r\nX_Forwarded_Port: 443\r\n",
], ids=range(16))
async def test_a_front_that_does_not_say_who_asks_is_refused(rig: Rig, headers: str) -> None:
    answer = await asks(rig, headers)
    assert answer.status == 400 and b"does not say who asks" in answer.body


async def test_the_visitor_cannot_have_the_fronts_word_removed(rig: Rig) -> None:
    answer = await asks(rig, TOLD + "Connection: X-Forwarded-For, X-Forwarded-Proto, X-Forwarded-Port\r\n")
    assert said(answer.body)["x-forwarded-for"] == ["192.0.2.7"]


async def test_what_came_without_tls_is_sent_to_https(rig: Rig) -> None:
    answer = await asks(rig, TOLD.replace("https", "http"), path="/x?y=1")
    assert answer.status == 308 and answer.header("location") == f"https://open.localhost:{rig.port}/x?y=1"
    elsewhere = await asks(rig, TOLD.replace("https", "http"), host="example.com")
    assert elsewhere.status == 404


async def test_over_tcp_nobody_is_believed(rig: Rig) -> None:
    lie = "X-Forwarded-For: 203.0.113.5\r\nX-Forwarded-Proto: http\r\nForwarded: for=203.0.113.5\r\n" \
          "X-Real-IP: 203.0.113.5\r\nX_Forwarded_For: 203.0.113.5\r\n"
    answer = await rig.get("open.localhost", headers=lie)
    seen = said(answer.body)
    assert seen["x-forwarded-for"] == ["127.0.0.1"] and seen["x-forwarded-proto"] == ["https"]
    assert "203.0.113.5" not in json.dumps(json.loads(answer.body)["headers"])
    greeting = await rig.connect("open.localhost")
    await greeting.send(b"PROXY TCP4 203.0.113.5 192.0.2.1 4711 443\r\nGET / HTTP/1.1\r\nHost: open.localhost\r\n\r\n")
    assert (await greeting.answer()).status == 400


async def test_one_connection_carries_many_visitors(rig: Rig) -> None:
    reader, writer = await asyncio.open_unix_connection(rig.folder / "front.sock")
    client = Client(reader, writer)
    for number in range(1, 5):
        told = TOLD.replace(".7", f".{number}")
        await client.send(f"GET / HTTP/1.1\r\nHost: open.localhost\r\n{told}\r\n".encode())
        assert said((await client.answer()).body)["x-forwarded-for"] == [f"192.0.2.{number}"]
    client.close()


_CONNECT = """import os, socket, sys
os.setgroups([]); os.setgid(int(sys.argv[2])); os.setuid(int(sys.argv[3]))
socket.socket(socket.AF_UNIX).connect(sys.argv[1])"""


async def test_only_the_fronts_group_may_connect(tmp_path_factory: pytest.TempPathFactory) -> None:
    run = Path("/run") / f"ussycode-test-{os.getpid()}"
    instance = instances.Instance(0, tmp_path_factory.mktemp("data"), ipaddress.IPv4Network("10.192.0.0/16"), run)
    instance.run.mkdir(parents=True)
    try:
        with bind_front(load({"front": "caddy"}, {}), instance) as listening:
            path = str(listening.getsockname())
            front, edge, other = instance.front_uid, instance.edge_uid, nobody()

            def connects(gid: int, uid: int) -> bool:
                words = [sys.executable, "-c", _CONNECT, path, str(gid), str(uid)]
                return subprocess.run(words, capture_output=True, timeout=20, check=False).returncode == 0

            assert connects(front, front)
            assert not connects(other, other) and not connects(edge, edge)
            assert not connects(instance.control_uid, instance.control_uid) and not connects(edge, front)
    finally:
        (instance.run / "front" / "edge.sock").unlink(missing_ok=True)
        for folder in (instance.run / "front", instance.run, run):
            folder.rmdir()
