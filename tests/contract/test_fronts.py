"""Behind the real Caddy and the real HAProxy, with the configurations that we write, the edge is what it is alone."""
from __future__ import annotations

import asyncio
import hashlib
import json
import pwd
import signal
import ssl
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from websockets.asyncio.client import ClientConnection
from websockets.asyncio.client import connect as ws_connect
from websockets.asyncio.server import serve as ws_serve
from websockets.exceptions import ConnectionClosed

from tests.contract import h3
from tests.contract.edge_rig import ALICE, vm
from tests.contract.front_rig import CADDY_UID, Fronted, fronted
from tests.contract.test_edge_proxy import HUNDRED_MB, echo, said
from ussycode.base.errors import Failure
from ussycode.cli import caddy
from ussycode.config import load

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(180)]
LIES = ("X-Forwarded-For: 203.0.113.5", "X-Forwarded-Proto: http", "X-Ussycode-Email: boss@example.org",
        "X-Forwarded-Host: evil.example", "Forwarded: for=203.0.113.5", "X-Ussycode-UserID: usr_boss")


@pytest_asyncio.fixture(loop_scope="module", scope="module", params=["caddy", "haproxy"])
async def front(request: pytest.FixtureRequest) -> AsyncIterator[Fronted]:
    async with fronted(request.param) as made:
        await made.rig.app(vm("demo"))
        await made.rig.app(vm("open", public_ports=(8000,)))
        yield made


@pytest.mark.parametrize("version", ["--http1.1", "--http2"])
async def test_the_owner_gets_through_in_either_version(front: Fronted, version: str) -> None:
    session = await front.rig.sign_in(ALICE, "demo.localhost")
    lies = [word for lie in LIES for word in ("-H", lie)]
    code, out = await front.curl(
        version, "-b", f"__Host-ussycode={session}; app=1", *lies, "-w", "\n%{http_version}",
        front.url("demo.localhost", "/x?y=1"),
    )
    body, _, spoken = out.rpartition("\n")
    seen = said(body.encode())
    assert code == 0 and spoken == ("2" if version == "--http2" else "1.1")
    assert json.loads(body)["line"] == "GET /x?y=1 HTTP/1.1" and seen["cookie"] == ["app=1"]
    assert seen["x-ussycode-userid"] == ["usr_alice"] and seen["x-ussycode-email"] == ["alice@example.org"]
    assert seen["x-forwarded-for"] == ["127.0.0.1"] and seen["x-forwarded-proto"] == ["https"]
    assert seen["x-forwarded-host"] == seen["host"] == [f"demo.localhost:{front.port}"]
    assert "203.0.113.5" not in body and "evil" not in body and "boss" not in body


async def test_naming_headers_in_connection_removes_none_of_ours(front: Fronted) -> None:
    session = await front.rig.sign_in(ALICE, "demo.localhost")
    named = "Connection: close, X-Ussycode-Email, X-Ussycode-UserID, X-Forwarded-For, X-Forwarded-Port, Cookie"
    code, out = await front.curl(
        "--http1.1", "-H", named, "-b", f"__Host-ussycode={session}", front.url("demo.localhost"),
    )
    if front.which == "caddy":  # it drops the cookie that the client asked to have dropped: a visitor's own loss
        assert code == 0 and "sign in" in out
        named = named.replace(", Cookie", "")
        code, out = await front.curl(
            "--http1.1", "-H", named, "-b", f"__Host-ussycode={session}", front.url("demo.localhost"),
        )
    seen = said(out.encode())
    assert code == 0 and seen["x-ussycode-email"] == ["alice@example.org"]
    assert seen["x-ussycode-userid"] == ["usr_alice"] and seen["x-forwarded-for"] == ["127.0.0.1"]


async def test_http_3_and_its_announcement(front: Fronted) -> None:
    _, head = await front.curl("-I", front.url("open.localhost"))
    if front.which == "haproxy":
        assert "alt-svc" not in head.lower()  # Debian's HAProxy has none
        return
    assert f'h3=":{front.port}"' in head
    lies = [(lie.partition(": ")[0].lower().encode(), lie.partition(": ")[2].encode()) for lie in LIES]
    session = await front.rig.sign_in(ALICE, "demo.localhost")
    cookie = (b"cookie", f"__Host-ussycode={session}".encode())
    status, body = await h3.get(front.port, "demo.localhost", "/three", front.ca, [cookie, *lies])
    seen = said(body)
    assert status == 200 and seen["x-forwarded-for"] == ["127.0.0.1"] and seen["x-ussycode-userid"] == ["usr_alice"]
    assert b"203.0.113.5" not in body and b"boss" not in body


async def test_strangers_meet_the_same_as_without_a_front(front: Fronted) -> None:
    for host in ("demo.localhost", "sockets.localhost"):
        _, out = await front.curl("-w", "%{http_code}", front.url(host))
        assert out.endswith("401") and "sign in" in out
    _, out = await front.curl("-H", "Accept: text/html", "-w", "%{redirect_url}", front.url("demo.localhost", "/a"))
    assert out.endswith("/__ussycode/login?redirect=/a")


async def test_plain_http_goes_to_https(front: Fronted) -> None:
    where = f"http://open.localhost:{front.http_port}/x?y=1"
    _, out = await front.curl("-w", "%{http_code} %{redirect_url}", "-o", "/dev/null", where)
    assert out == f"308 https://open.localhost:{front.port}/x?y=1"
    told = ("-H", "X-Forwarded-Proto: https")
    _, out = await front.curl(*told, "-w", "%{http_code}", "-o", "/dev/null", where)
    assert out == "308"


async def test_the_first_event_of_a_stream_comes_at_once(front: Fronted) -> None:
    process = await asyncio.create_subprocess_exec(
        "curl", "-sS", "-N", "--http2", "--max-time", "30", "--cacert", str(front.ca),
        front.url("open.localhost", "/sse"), stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    async with asyncio.timeout(5):
        assert await process.stdout.readline() == b"data: first\n"
    process.kill()
    await process.wait()


async def test_a_hundred_megabytes_both_ways(front: Fronted, tmp_path: Path) -> None:
    block = bytes(range(256)) * 4096
    (tmp_path / "big").write_bytes((block * 96)[:HUNDRED_MB])
    digest = hashlib.sha256((tmp_path / "big").read_bytes()).hexdigest()
    code, out = await front.curl("--http2", "-T", str(tmp_path / "big"), front.url("open.localhost", "/up"))
    assert code == 0 and json.loads(out)["sha"] == digest, out[:300]
    target = tmp_path / "down"
    code, _ = await front.curl("-o", str(target), front.url("open.localhost", f"/download?n={HUNDRED_MB}"))
    assert code == 0 and hashlib.sha256(target.read_bytes()).hexdigest() == digest


async def test_the_log_has_the_visitors_address_once(front: Fronted) -> None:
    _, head = await front.curl("-I", "-H", LIES[0], front.url("open.localhost", "/logged"))
    request = next(line.split(": ")[1].strip() for line in head.splitlines() if line.lower().startswith("x-request-id"))
    async with asyncio.timeout(5):
        while not (lines := [line for line in front.rig.logged() if line["id"] == request]):
            await asyncio.sleep(0.05)
    assert lines[0]["from"] == "127.0.0.1" and lines[0]["status"] == 200


async def websocket(front: Fronted) -> ClientConnection:
    """An open WebSocket to the machine `sockets`."""
    session = await front.rig.sign_in(ALICE, "sockets.localhost")
    return await ws_connect(
        f"wss://sockets.localhost:{front.port}/", host="127.0.0.1", port=front.port,
        ssl=ssl.create_default_context(cafile=str(front.ca)), server_hostname="sockets.localhost",
        additional_headers={"Cookie": f"__Host-ussycode={session}"}, proxy=None,
    )


async def test_websockets_survive_a_reload_and_end_with_what_allowed_them(front: Fronted) -> None:
    machine = vm("sockets")
    async with ws_serve(echo, "127.0.0.1", 0) as server:
        front.rig.agents.apps[machine.secret, 8000] = next(iter(server.sockets)).getsockname()[:2]
        await front.rig.feed.change(put_vms=[machine])
        old = await websocket(front)
        await talks(old)
        await reload(front)
        new = await websocket(front)
        await talks(old)
        await talks(new)
        await front.rig.feed.change(drop_vms=[machine.vm])
        for each in (old, new):
            with pytest.raises(ConnectionClosed):
                await asyncio.wait_for(each.recv(), 5)


async def talks(socket: ClientConnection) -> None:
    """Messages of several sizes go there and back."""
    for size in (0, 5, 200_000):
        await socket.send(b"x" * size)
        assert await asyncio.wait_for(socket.recv(), 10) == b"x" * size


async def reload(front: Fronted) -> None:
    """What an operator does after a change: the terminator reads its configuration anew."""
    if front.which == "haproxy":
        before = front.said.read_text().count("Loading success")
        front.process.send_signal(signal.SIGUSR2)
        async with asyncio.timeout(20):
            while front.said.read_text().count("Loading success") == before:
                await asyncio.sleep(0.05)
        return
    text = front.config.read_text().replace("dial_timeout 5s", "dial_timeout 4s")
    front.config.write_text(text)  # Caddy leaves a configuration alone that is the same
    done = await asyncio.create_subprocess_exec(
        str(caddy.program()), "reload", "--adapter", "caddyfile", "--config", str(front.config),
        "--address", f"unix/{front.config.parent}/caddy/admin.sock", env={"HOME": "/nonexistent"},
        stderr=asyncio.subprocess.DEVNULL,
    )
    assert await asyncio.wait_for(done.wait(), 30) == 0


async def test_what_meets_the_internet_runs_without_rights(front: Fronted) -> None:
    pid = front.process.pid
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    working = [pid] if front.which == "caddy" else [int(child) for child in children]
    uid = CADDY_UID if front.which == "caddy" else pwd.getpwnam("haproxy").pw_uid
    assert working
    for one in working:
        assert f"\nUid:\t{uid}\t{uid}" in Path(f"/proc/{one}/status").read_text()


async def test_alternate_ports_exist_behind_haproxy_and_are_refused_with_caddy(front: Fronted) -> None:
    if front.which == "caddy":
        with pytest.raises(Failure, match="alternate_ports do not exist behind front = caddy"):
            load({"front": "caddy", "alternate_ports": "3000-9999"}, {})
        return
    port = front.alternate
    await front.rig.app(vm("open", public_ports=(8000, port)), port)
    where = f"https://open.localhost:{port}/"
    _, out = await front.curl("--http2", "-H", "X-Forwarded-Port: 8000", where)
    assert said(out.encode())["x-forwarded-host"] == [f"open.localhost:{port}"]
    _, out = await front.curl("-H", f"Host: open.localhost:{front.port}", "-w", "%{http_code}", where)
    assert out.endswith("421")
    await front.rig.app(vm("open", public_ports=(8000,)))
    _, out = await front.curl("-w", "%{http_code}", where)
    assert out.endswith("401")


async def test_another_edge_takes_over_behind_it_and_websockets_hear_of_the_end(front: Fronted) -> None:
    machine = vm("sockets")
    async with ws_serve(echo, "127.0.0.1", 0) as server:
        front.rig.agents.apps[machine.secret, 8000] = next(iter(server.sockets)).getsockname()[:2]
        await front.rig.feed.change(put_vms=[machine])
        open_socket = await websocket(front)
        await talks(open_socket)
        old = await front.rig.replace()
        await talks(open_socket)
        for _ in range(5):
            _, out = await front.curl("--http2", "-w", "%{http_code}", "-o", "/dev/null", front.url("open.localhost"))
            assert out == "200"
        old.terminate()
        with pytest.raises(ConnectionClosed):
            await asyncio.wait_for(open_socket.recv(), 10)
        assert open_socket.close_code == 1001
        assert await asyncio.wait_for(old.wait(), 10) == 0
