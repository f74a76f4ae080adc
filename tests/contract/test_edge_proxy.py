"""The edge as clients meet it: real TLS, real curl, real WebSockets, and people who try to cheat.

The edge is its own process. Control, its feed, the guests' agents and the apps stand in on real sockets.
"""
from __future__ import annotations

import asyncio
import hashlib
import json
import ssl
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
import pytest_asyncio
from websockets.asyncio.client import connect as ws_connect
from websockets.asyncio.server import ServerConnection
from websockets.asyncio.server import serve as ws_serve
from websockets.exceptions import ConnectionClosed

from tests.contract.edge_rig import ALICE, BOB, Answer, Client, Rig, running_edge, vm
from ussycode.wire.edge import Change

pytestmark = pytest.mark.asyncio(loop_scope="module")
DEMO = vm("demo")
OPEN = vm("open", public_ports=(8000,))
SECRET = vm("secret", BOB)


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def rig(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Rig]:
    async with running_edge(tmp_path_factory.mktemp("edge")) as rig:
        for machine in (DEMO, OPEN, SECRET):
            await rig.app(machine)
        yield rig


def said(body: bytes) -> dict[str, list[str]]:
    """The headers that an app saw, by lower-case name."""
    seen: dict[str, list[str]] = {}
    for key, value in json.loads(body)["headers"]:
        seen.setdefault(key.lower(), []).append(value)
    return seen


async def test_curl_trusts_the_local_ca_and_the_owner_gets_through(rig: Rig) -> None:
    session = await rig.sign_in(ALICE, "demo.localhost")
    code, out = await rig.curl(f"https://demo.localhost:{rig.port}/x?y=1", "-b", f"__Host-ussycode={session}; app=1")
    seen = said(out.encode())
    assert code == 0 and json.loads(out)["line"] == "GET /x?y=1 HTTP/1.1"
    assert seen["x-ussycode-userid"] == seen["x-exedev-userid"] == ["usr_alice"]
    assert seen["x-ussycode-email"] == seen["x-exedev-email"] == ["alice@example.org"]
    assert seen["x-forwarded-host"] == [f"demo.localhost:{rig.port}"] and seen["x-forwarded-proto"] == ["https"]
    assert seen["cookie"] == ["app=1"]


async def test_nobody_gets_an_email_header_before_the_address_is_verified(rig: Rig) -> None:
    session = await rig.sign_in(BOB, "open.localhost")
    seen = said((await rig.get("open.localhost", session=session)).body)
    assert seen["x-ussycode-userid"] == ["usr_bob"] and "x-ussycode-email" not in seen


async def test_anonymous_visitors_of_a_public_machine_carry_no_identity(rig: Rig) -> None:
    names = ("X-Ussycode-UserID", "X_Ussycode_Email", "X-ExeDev-Email", "X-Forwarded-For")
    spoofed = "".join(f"{name}: 1.2.3.4\r\n" for name in names)
    seen = said((await rig.get("open.localhost", headers=spoofed)).body)
    assert not [name for name in seen if "ussycode" in name or "exedev" in name]
    assert seen["x-forwarded-for"] == ["127.0.0.1"]


async def test_naming_identity_headers_in_connection_changes_nothing(rig: Rig) -> None:
    session = await rig.sign_in(ALICE, "demo.localhost")
    cheat = "Connection: close, X-Ussycode-UserID, X-Ussycode-Email\r\nX-Ussycode-Email: evil@example.org\r\n"
    seen = said((await rig.get("demo.localhost", session=session, headers=cheat)).body)
    assert seen["x-ussycode-email"] == ["alice@example.org"] and "connection" not in seen


async def test_an_unknown_host_looks_exactly_like_a_private_machine(rig: Rig) -> None:
    for page in ("", "Accept: text/html\r\n"):
        for path in ("/", "/deep?x=1"):
            private = await rig.get("secret.localhost", path, headers=page)
            missing = await rig.get("missing.localhost", path, headers=page)
            assert private.same() == missing.same() and private.status == (302 if page else 401)


async def test_a_signed_in_stranger_cannot_tell_them_apart_either(rig: Rig) -> None:
    for page in ("", "Accept: text/html\r\n"):
        answers = []
        for host in ("secret.localhost", "missing.localhost", "3000--secret.localhost", "3000--missing.localhost"):
            answers.append(await rig.get(host, session=await rig.sign_in(ALICE, host), headers=page))
        assert {a.status for a in answers} == {404} and len({str(a.same()) for a in answers}) == 1
        assert (b'<a href="/__ussycode/request">' in answers[0].body) == bool(page), "a page says how to be let in"


async def test_other_hosts_are_nothing_and_never_the_main_site(rig: Rig) -> None:
    for host in ("evil.example", "a.b.localhost", "demo.localhost.", "127.0.0.1"):
        assert (await rig.get(host)).status == 404


async def test_browsers_are_sent_to_log_in_on_the_same_host(rig: Rig) -> None:
    answer = await rig.get("demo.localhost", "//evil.example/?a=b&c=d", headers="Accept: text/html\r\n")
    assert answer.status == 302
    assert answer.header("location") == "/__ussycode/login?redirect=/evil.example/%3Fa%3Db%26c%3Dd"


async def test_a_cookie_of_one_host_is_worth_nothing_on_another(rig: Rig) -> None:
    stolen = await rig.sign_in(ALICE, "open.localhost")
    assert (await rig.get("demo.localhost", session=stolen)).status == 401
    assert (await rig.get("3000--open.localhost", session=stolen)).status == 401


async def test_each_port_has_its_own_host(rig: Rig) -> None:
    host = "3000--demo.localhost"
    session = await rig.sign_in(ALICE, host)
    refused = await rig.get(host, session=session)
    assert refused.status == 502 and b"nothing listens on port 3000 of demo" in refused.body
    assert b"start a server" in refused.body
    await rig.app(DEMO, 3000)
    assert (await rig.get(host, session=session)).status == 200
    assert (await rig.get(host)).status == 401


async def test_a_public_primary_port_opens_no_other_port(rig: Rig) -> None:
    assert (await rig.get("open.localhost")).status == 200
    assert (await rig.get("3000--open.localhost")).status == 401


async def test_special_routes_go_to_control_on_every_host(rig: Rig) -> None:
    session = await rig.sign_in(ALICE, "demo.localhost")
    for host in ("demo.localhost", "missing.localhost", "3000--open.localhost"):
        for path in ("/__ussycode/login", "/__exe.dev/logout", "/__ussycode?x"):
            answer = await rig.get(host, path, session=session)
            seen = said(answer.body)
            assert json.loads(answer.body)["app"] == "control" and "x-ussycode-userid" not in seen
            assert seen["host"] == seen["x-forwarded-host"] == [f"{host}:{rig.port}"]
            assert seen["cookie"] == [f"__Host-ussycode={session}"]
    assert json.loads((await rig.get("open.localhost", "/__ussycodex")).body)["app"] == "open"


async def test_the_base_domain_is_control(rig: Rig) -> None:
    answer = await rig.get("localhost", "/")
    assert json.loads(answer.body)["app"] == "control"
    assert "__Host-ussycode=stolen; Path=/; Secure" in [v for k, v in answer.headers if k == "Set-Cookie"]


async def test_an_app_cannot_set_the_session(rig: Rig) -> None:
    answer = await rig.get("open.localhost")
    assert [v for k, v in answer.headers if k == "Set-Cookie"] == ["app=1"]


async def test_the_owner_learns_why_others_only_that(rig: Rig) -> None:
    machine = vm("asleep", phase="stopped", address="", public_ports=(8000,))
    await rig.feed.change(put_vms=[machine])
    owner = await rig.get("asleep.localhost", session=await rig.sign_in(ALICE, "asleep.localhost"))
    other = await rig.get("asleep.localhost")
    assert owner.status == other.status == 502
    assert b"asleep is not running (stopped)" in owner.body
    assert b"start it with: ssh localhost start asleep" in owner.body
    assert b"asleep" not in other.body and b"restart" not in other.body


async def test_requests_share_a_connection_to_the_app(rig: Rig) -> None:
    client = await rig.connect("open.localhost")
    before = rig.agents.dials
    for _ in range(5):
        await client.send(b"GET / HTTP/1.1\r\nHost: open.localhost\r\n\r\n")
        assert (await client.answer()).status == 200
    assert rig.agents.dials - before <= 1
    client.close()


async def test_pipelined_requests_are_answered_in_order(rig: Rig) -> None:
    client = await rig.connect("open.localhost")
    await client.send(b"".join(b"GET /%d HTTP/1.1\r\nHost: open.localhost\r\n\r\n" % n for n in range(20)))
    for n in range(20):
        assert json.loads((await client.answer()).body)["line"] == f"GET /{n} HTTP/1.1"
    client.close()


async def test_head_has_a_length_and_no_body(rig: Rig) -> None:
    client = await rig.connect("open.localhost")
    for line in (b"HEAD /", b"GET /next"):
        await client.send(line + b" HTTP/1.1\r\nHost: open.localhost\r\n\r\n")
    assert int((await client.answer(to_head=True)).header("content-length")) > 0
    assert json.loads((await client.answer()).body)["line"] == "GET /next HTTP/1.1"
    client.close()


SMUGGLED = {
    "length and chunks": b"Content-Length: 6\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET /smuggled HTTP/1.1\r\n",
    "two lengths": b"Content-Length: 5\r\nContent-Length: 0\r\n\r\n",
    "two hosts": b"Host: secret.localhost\r\n\r\n",
    "folded": b"A: b\r\n c: d\r\n\r\n",
    "space before colon": b"Transfer-Encoding : chunked\r\n\r\n",
    "bare line feed": b"A: b\nContent-Length: 5\r\n\r\n",
    "only bare line feeds": b"A: b\n\n",
    "nul": b"A: b\0\r\n\r\n",
    "obscured chunks": b"Transfer-Encoding: xchunked\r\n\r\n",
    "chunk with bare line feed": b"Transfer-Encoding: chunked\r\n\r\n5\nhello\r\n0\r\n\r\n",
    "chunk longer than said": b"Transfer-Encoding: chunked\r\n\r\n1\r\nab\r\n0\r\n\r\n",
}


async def test_smuggling_ends_the_connection(rig: Rig) -> None:
    async def attack(rest: bytes) -> bytes:
        client = await rig.connect("open.localhost")
        await client.send(b"POST /1 HTTP/1.1\r\nHost: open.localhost\r\n" + rest + b"GET /smuggled HTTP/1.1\r\n\r\n")
        return await client.ended()

    for name, out in zip(SMUGGLED, await asyncio.gather(*map(attack, SMUGGLED.values())), strict=True):
        assert out.startswith(b"HTTP/1.1 400 ") and out.count(b"HTTP/1.1 ") == 1, name


async def test_absolute_targets_are_refused(rig: Rig) -> None:
    assert (await rig.get("open.localhost", "https://secret.localhost/")).status == 400


async def test_endless_heads_are_refused(rig: Rig) -> None:
    client = await rig.connect("open.localhost")
    await client.send(b"GET / HTTP/1.1\r\nHost: open.localhost\r\nA: " + b"a" * 40_000)
    assert (await client.ended()).startswith(b"HTTP/1.1 431 ")


async def test_a_head_that_dribbles_in_is_ended(tmp_path: Path) -> None:
    async with running_edge(tmp_path, head_timeout=1.5) as rig:
        client = await rig.connect("open.localhost")
        started = asyncio.get_running_loop().time()
        dribble = asyncio.create_task(_dribble(client))
        async with asyncio.timeout(10):
            out = await client.reader.read(-1)
        dribble.cancel()
    # The moment that deadlines count from is up to a second old.
    assert out.startswith(b"HTTP/1.1 408 ") and asyncio.get_running_loop().time() - started >= 0.5


async def _dribble(client: Client) -> None:
    await client.send(b"GET / HTTP/1.1\r\nHost: open.localhost\r\n")
    while True:
        await client.send(b"A: b\r\n")
        await asyncio.sleep(0.2)


async def test_trailers_cannot_carry_an_identity(rig: Rig) -> None:
    client = await rig.connect("open.localhost")
    await client.send(
        b"POST / HTTP/1.1\r\nHost: open.localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
        b"5\r\nhello\r\n0\r\nX-Ussycode-Email: evil\r\nX-Sum: 1\r\n\r\n"
    )
    seen = said((await client.answer()).body)
    assert "x-ussycode-email" not in seen and seen["x-sum"] == ["1"]
    client.close()


async def test_hostile_apps_end_in_502_and_leave_others_alone(rig: Rig) -> None:
    machine = vm("hostile", public_ports=(8000,))
    app = await rig.app(machine)
    for raw in (b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab", b"nonsense\r\n\r\n", b"",
                b"HTTP/1.1 101 Switching\r\nUpgrade: x\r\n\r\n", b"HTTP/1.1 200 OK\r\nA: " + b"a" * 70_000):
        app.raw = raw
        assert (await rig.get("hostile.localhost")).status == 502
    app.raw = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokHTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nforged"
    client = await rig.connect("hostile.localhost")
    await client.send(b"GET / HTTP/1.1\r\nHost: hostile.localhost\r\n\r\n")
    assert (await client.answer()).body == b"ok"
    await client.send(b"GET / HTTP/1.1\r\nHost: open.localhost\r\n\r\n")
    assert json.loads((await client.answer()).body)["app"] == "open"
    client.close()


async def test_a_short_body_is_seen_to_be_short(rig: Rig) -> None:
    app = await rig.app(vm("short", public_ports=(8000,)))
    app.raw = b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nonly this"
    code, _ = await rig.curl(f"https://short.localhost:{rig.port}/")
    assert code != 0


async def test_servers_of_http_1_0_work(rig: Rig) -> None:
    app = await rig.app(vm("plain", public_ports=(8000,)))
    app.raw = b"HTTP/1.0 200 OK\r\nServer: SimpleHTTP\r\n\r\nuntil the end"
    assert await rig.curl(f"https://plain.localhost:{rig.port}/") == (0, "until the end")
    assert await rig.curl("--http1.0", f"https://plain.localhost:{rig.port}/") == (0, "until the end")


async def test_a_dead_kept_connection_is_not_the_visitors_problem(rig: Rig) -> None:
    served = 0

    async def once(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal served
        await reader.readuntil(b"\r\n\r\n")
        served += 1
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
        await reader.read(1)  # closes when the second request comes, with nothing said
        writer.close()

    await rig.app(vm("flaky", public_ports=(8000,)), serve=once)
    client = await rig.connect("flaky.localhost")
    for _ in range(3):
        await client.send(b"GET / HTTP/1.1\r\nHost: flaky.localhost\r\n\r\n")
        assert (await client.answer()).body == b"ok"
    assert served == 3
    client.close()


async def test_the_first_event_of_a_stream_comes_at_once(rig: Rig) -> None:
    client = await rig.connect("open.localhost")
    async with asyncio.timeout(2):
        await client.send(b"GET /sse HTTP/1.1\r\nHost: open.localhost\r\n\r\n")
        assert b"Transfer-Encoding: chunked" in await client.reader.readuntil(b"\r\n\r\n")
        assert await client.reader.readexactly(18) == b"d\r\ndata: first\n\n\r\n"
    client.close()


HUNDRED_MB = 100_000_000


@pytest.mark.parametrize("how", [("-H", "Transfer-Encoding: chunked"), ()], ids=["chunked", "length"])
async def test_a_hundred_megabytes_up_arrive_intact(rig: Rig, tmp_path: Path, how: tuple[str, ...]) -> None:
    block = bytes(range(256)) * 4000
    (tmp_path / "big").write_bytes((block * 98)[:HUNDRED_MB])
    code, out = await rig.curl(*how, "-T", str(tmp_path / "big"), f"https://open.localhost:{rig.port}/up")
    assert code == 0, out[:300]
    assert json.loads(out)["size"] == HUNDRED_MB
    assert json.loads(out)["sha"] == hashlib.sha256((tmp_path / "big").read_bytes()).hexdigest()


async def test_a_hundred_megabytes_down_arrive_intact(rig: Rig, tmp_path: Path) -> None:
    target = tmp_path / "big"
    code, _ = await rig.curl("-o", str(target), f"https://open.localhost:{rig.port}/download?n={HUNDRED_MB}")
    assert code == 0 and target.stat().st_size == HUNDRED_MB
    whole = (bytes(range(256)) * 4096 * 96)[:HUNDRED_MB]
    assert hashlib.sha256(target.read_bytes()).digest() == hashlib.sha256(whole).digest()


async def test_an_unwanted_upload_still_hears_why(rig: Rig, tmp_path: Path) -> None:
    (tmp_path / "big").write_bytes(b"x" * 300_000)
    code, out = await rig.curl("-T", str(tmp_path / "big"), f"https://demo.localhost:{rig.port}/", "-H", "Expect:")
    assert code == 0 and "sign in" in out


async def echo(connection: ServerConnection) -> None:
    async for message in connection:
        await connection.send(message)


async def test_websockets_echo_and_a_revocation_cuts_them(rig: Rig) -> None:
    machine = vm("sockets")
    async with ws_serve(echo, "127.0.0.1", 0, compression=None) as server:
        rig.agents.apps[machine.secret, 8000] = next(iter(server.sockets)).getsockname()[:2]
        await rig.feed.change(put_vms=[machine])
        first = await rig.sign_in(ALICE, "sockets.localhost")
        other = await rig.sign_in(ALICE, "sockets.localhost")
        async with websocket(rig, first) as cut, websocket(rig, other) as stays:
            for talk in (cut, stays):
                for size in (0, 5, 200_000):
                    await talk.send(b"x" * size)
                    assert await talk.recv() == b"x" * size
            await rig.feed.change(drop_sessions=[hashlib.sha256(first.encode()).hexdigest()])
            with pytest.raises(ConnectionClosed):
                await asyncio.wait_for(cut.recv(), 5)
            await stays.send("still here")
            assert await stays.recv() == "still here"
            await rig.feed.change(drop_vms=[machine.vm])
            with pytest.raises(ConnectionClosed):
                await asyncio.wait_for(stays.recv(), 5)


def websocket(rig: Rig, session: str) -> ws_connect:
    """A WebSocket to the machine `sockets` in the session."""
    headers = {"Cookie": f"__Host-ussycode={session}"}
    return ws_connect(
        f"wss://sockets.localhost:{rig.port}/", host="127.0.0.1", port=rig.port, ssl=rig.tls,
        server_hostname="sockets.localhost", additional_headers=headers, compression=None, proxy=None,
    )


async def test_a_revocation_bites_on_the_next_request(rig: Rig) -> None:
    session = await rig.sign_in(ALICE, "demo.localhost")
    client = await rig.connect()
    ask = f"GET / HTTP/1.1\r\nHost: demo.localhost\r\nCookie: __Host-ussycode={session}\r\n\r\n".encode()
    await client.send(ask)
    assert (await client.answer()).status == 200
    await rig.feed.change(drop_sessions=[hashlib.sha256(session.encode()).hexdigest()])
    await client.send(ask)
    assert (await client.answer()).status == 401
    client.close()


async def test_making_a_machine_private_cuts_its_streams(rig: Rig) -> None:
    await rig.app(vm("brief", public_ports=(8000,)))
    client = await rig.connect("brief.localhost")
    await client.send(b"GET /sse HTTP/1.1\r\nHost: brief.localhost\r\n\r\n")
    await client.reader.readuntil(b"data: first\n\n\r\n")
    await rig.feed.change(put_vms=[vm("brief")])
    assert await client.ended() == b""
    assert (await rig.get("brief.localhost")).status == 401


async def test_names_of_strangers_get_no_certificate(rig: Rig) -> None:
    with pytest.raises((ssl.SSLError, ConnectionError)):
        await rig.connect("evil.example")


async def test_plain_http_only_points_to_https(rig: Rig) -> None:
    for host, status in (("demo.localhost", 308), ("missing.localhost", 308), ("evil.example", 404)):
        reader, writer = await asyncio.open_connection("127.0.0.1", rig.http_port)
        writer.write(f"GET /x?y HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
        out = (await reader.read(-1)).decode()
        writer.close()
        assert out.startswith(f"HTTP/1.1 {status} ")
        assert (f"\r\nLocation: https://{host}:{rig.port}/x?y\r\n" in out) is (status == 308)


async def test_every_request_leaves_a_line_without_its_query(rig: Rig) -> None:
    answer = await rig.get("open.localhost", '/logged"\\?token=hidden')
    request_id = answer.header("x-request-id")
    async with asyncio.timeout(5):
        while not (lines := [line for line in rig.logged() if line["id"] == request_id]):
            await asyncio.sleep(0.02)
    assert lines[0]["path"] == '/logged"\\' and lines[0]["reason"] == "public" and lines[0]["status"] == 200
    assert "hidden" not in rig.log.read_text()


async def test_the_operator_reads_counters(rig: Rig) -> None:
    code, out = await rig.curl("--unix-socket", str(rig.folder / "edge.sock"), "http://edge/__edge/metrics")
    assert code == 0 and 'ussycode_edge_requests_total{status="200",reason="owner"}' in out
    assert "ussycode_edge_connections_open" in out


async def test_a_gap_in_the_feed_brings_a_new_snapshot(rig: Rig) -> None:
    before = rig.feed.connections
    rig.feed.seq += 5  # changes that never arrive
    rig.feed.vms["vm_late"] = late = vm("late", public_ports=(8000,))
    rig.agents.apps[late.secret, 8000] = rig.agents.apps[OPEN.secret, 8000]
    rig.feed.seq += 1
    rig.feed.send(Change(rig.feed.seq))
    await rig.feed.acked(rig.feed.seq)
    assert rig.feed.connections == before + 1
    assert (await rig.get("late.localhost")).status == 200


async def test_without_control_the_edge_goes_on_and_says_so(tmp_path: Path) -> None:
    async with running_edge(tmp_path, grace=2.0) as rig:
        await rig.app(DEMO)
        await rig.app(OPEN)
        session = await rig.sign_in(ALICE, "demo.localhost")
        assert (await rig.get("demo.localhost", session=session)).header("x-ussycode-degraded") == ""
        await rig.stop_control()
        await _until(rig, "demo.localhost", session, lambda a: a.header("x-ussycode-degraded") == "control-down")
        assert (await rig.get("demo.localhost", session=session)).status == 200
        lost = await rig.get("demo.localhost", "/__ussycode/login")
        assert lost.status == 503 and int(lost.header("retry-after")) > 0
        assert (await rig.get("localhost")).status == 503
        await _until(rig, "demo.localhost", session, lambda a: a.status == 503)
        private, missing = await rig.get("demo.localhost", session=session), await rig.get("missing.localhost")
        assert private.same() == missing.same() and b"control process cannot be reached" in private.body
        assert (await rig.get("open.localhost")).status == 200
        await rig.start_feed()
        again = await rig.get("demo.localhost", session=session)
        assert again.status == 200 and again.header("x-ussycode-degraded") == ""


async def _until(rig: Rig, host: str, session: str, holds: Callable[[Answer], bool]) -> None:
    """Ask until the answer is as wanted; ten seconds at most."""
    async with asyncio.timeout(10):
        while not holds(await rig.get(host, session=session)):
            await asyncio.sleep(0.05)


async def test_told_to_stop_it_lets_requests_end(tmp_path: Path) -> None:
    gate = asyncio.Event()

    async def slow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        gate.set()
        await asyncio.sleep(0.3)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ndone")

    async with running_edge(tmp_path) as rig:
        await rig.app(OPEN, serve=slow)
        asking = asyncio.create_task(rig.get("open.localhost"))
        await gate.wait()
        rig.process.terminate()
        answer = await asking
        assert answer.body == b"done" and answer.header("connection") == "close"
        assert await asyncio.wait_for(rig.process.wait(), 10) == 0
