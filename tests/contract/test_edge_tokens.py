"""Tokens at the edge: three ways to show one, none of which an app ever sees; a bad one opens nothing."""
from __future__ import annotations

import asyncio
import base64
import json
import os
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest
import pytest_asyncio

from tests.contract.edge_rig import ALICE, BOB, DOMAIN, Answer, Rig, running_edge, vm
from tests.contract.test_edge_proxy import said
from ussycode.wire.edge import EdgeToken

pytestmark = pytest.mark.asyncio(loop_scope="module")
DEMO, OPEN, SECRET = vm("demo"), vm("open", public_ports=(8000,)), vm("secret", BOB)
GOOD, EXPIRED = "usy1.good", "usy0.ab.cd"
CONTEXT = '{"role" : "ci", "x":"é"}'


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def rig(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Rig]:
    async with running_edge(tmp_path_factory.mktemp("edge")) as rig:
        for machine in (DEMO, OPEN, SECRET):
            await rig.app(machine)
            rig.feed.tokens[machine.name, GOOD] = EdgeToken(0, ALICE.user, CONTEXT)
            over = EdgeToken(0, refused="token.expired", sentence="the token has expired")
            rig.feed.tokens[machine.name, EXPIRED] = over
        yield rig


async def get(rig: Rig, name: str, headers: dict[str, str]) -> Answer:
    return await rig.get(f"{name}.{DOMAIN}", headers="".join(f"{k}: {v}\r\n" for k, v in headers.items()))


def basic(password: str) -> str:
    return "Basic " + base64.b64encode(f"git:{password}".encode()).decode()


@pytest.mark.parametrize(("name", "value"), [
    ("Authorization", f"Bearer {GOOD}"), ("X-Ussycode-Authorization", f"Bearer {GOOD}"),
    ("X-Exedev-Authorization", f"bearer {GOOD}"), ("Authorization", basic(GOOD)),
])
async def test_a_token_lets_its_owner_in_and_is_consumed(rig: Rig, name: str, value: str) -> None:
    answer = await get(rig, "demo", {name: value})
    assert answer.status == 200
    seen = said(answer.body)
    assert seen["x-ussycode-userid"] == seen["x-exedev-userid"] == [ALICE.user]
    for spelling in ("x-ussycode-token-ctx", "x-exedev-token-ctx"):
        assert [v.encode("latin-1").decode() for v in seen[spelling]] == [CONTEXT]
    assert "authorization" not in seen and f"{name.lower()}" not in seen
    assert GOOD not in answer.body.decode()


async def test_the_apps_own_credentials_reach_the_app(rig: Rig) -> None:
    """An API with bearer tokens of its own on a public machine must go on working."""
    for value in ("Bearer app-token", basic("hunter2"), "Digest x", "Basic !!!"):
        seen = said((await get(rig, "open", {"Authorization": value})).body)
        assert seen["authorization"] == [value]
        assert "x-ussycode-userid" not in seen
    both = {"Authorization": "Bearer app-token", "X-Ussycode-Authorization": f"Bearer {GOOD}"}
    seen = said((await get(rig, "demo", both)).body)
    assert "authorization" not in seen


@pytest.mark.parametrize("name", ["demo", "open", "secret", "nosuch"])
async def test_a_bad_token_is_refused_the_same_way_everywhere(rig: Rig, name: str) -> None:
    """Even where nobody needs one: a client that thinks it is signed in must hear that it is not."""
    for header in ({"Authorization": "Bearer usy0.a.b"}, {"X-Ussycode-Authorization": "nonsense"}):
        answer = await get(rig, name, header | {"Accept": "text/html"})
        assert (answer.status, json.loads(answer.body)["error"]) == (401, "no")
        assert answer.header("www-authenticate").startswith("Bearer")


async def test_a_token_of_strange_bytes_is_refused_and_not_waited_for(rig: Rig) -> None:
    client = await rig.connect(f"demo.{DOMAIN}")
    await client.send(f"GET / HTTP/1.1\r\nHost: demo.{DOMAIN}\r\n".encode()
                      + b"X-Ussycode-Authorization: Bearer \xff\r\n\r\n")
    assert (await client.answer()).status == 401


async def test_each_refusal_has_its_sentence(rig: Rig) -> None:
    answer = await get(rig, "demo", {"Authorization": f"Bearer {EXPIRED}"})
    assert json.loads(answer.body)["error"] == "the token has expired"


CODES = ("missing", "malformed", "expired", "not_yet", "key_unknown", "signature", "revoked", "namespace", "payload",
         "unknown", "rate", "too_long")


async def test_log_and_counters_tell_the_kinds_of_refusal_apart(rig: Rig) -> None:
    """Somebody who watches must see a wave of forged signatures among the tokens that merely grew old."""
    for code in CODES:
        rig.feed.tokens["demo", f"usy1.{code}"] = EdgeToken(0, refused=f"token.{code}", sentence="no")
        assert (await get(rig, "demo", {"Authorization": f"Bearer usy1.{code}"})).status == 401
    wanted = {f"token.{code}" for code in CODES}
    async with asyncio.timeout(10):
        while not wanted <= {line["reason"] for line in rig.logged()}:
            await asyncio.sleep(0.02)
    _, counted = await rig.curl("--unix-socket", str(rig.folder / "edge.sock"), "http://edge/__edge/metrics")
    for code in CODES:
        assert f'ussycode_edge_requests_total{{status="401",reason="token.{code}"}}' in counted


async def test_every_request_is_counted_with_a_reason(rig: Rig) -> None:
    for host in ("demo", "open", "secret", "nosuch", "3000--open"):
        for path in ("/", "/__ussycode/login"):
            await rig.get(f"{host}.{DOMAIN}", path, session=await rig.sign_in(ALICE, f"{host}.{DOMAIN}"))
            await rig.get(f"{host}.{DOMAIN}", path)
    await rig.get("evil.example")
    await rig.get(DOMAIN)
    _, counted = await rig.curl("--unix-socket", str(rig.folder / "edge.sock"), "http://edge/__edge/metrics")
    reasons = [x.partition("reason=\"")[2].partition("\"")[0] for x in counted.splitlines() if "requests_total{" in x]
    assert "" not in reasons
    assert {"owner", "public", "platform", "not_signed_in", "no_host"} <= set(reasons)


async def test_a_good_token_opens_nothing_that_is_not_its_owners(rig: Rig) -> None:
    stranger = await get(rig, "secret", {"Authorization": f"Bearer {GOOD}"})
    missing = await get(rig, "demo2", headers={"Authorization": "Bearer usy1.other"})
    assert (stranger.status, missing.status) == (404, 401)


async def test_control_is_asked_once_and_again_after_a_revocation(rig: Rig) -> None:
    rig.feed.asked.clear()
    for _ in range(3):
        await get(rig, "demo", {"Authorization": f"Bearer {GOOD}"})
    assert rig.feed.asked in ([], [GOOD])
    await rig.feed.change(forget_tokens=[ALICE.user])
    rig.feed.tokens["demo", GOOD] = EdgeToken(0, refused="token.revoked", sentence="the token was revoked")
    answer = await get(rig, "demo", {"Authorization": f"Bearer {GOOD}"})
    assert (answer.status, json.loads(answer.body)["error"]) == (401, "the token was revoked")
    rig.feed.tokens["demo", GOOD] = EdgeToken(0, ALICE.user, CONTEXT)
    await rig.feed.change(forget_tokens=[ALICE.user])


async def test_a_revoked_token_cuts_the_stream_it_opened(rig: Rig) -> None:
    client = await rig.connect(f"demo.{DOMAIN}")
    await client.send(f"GET /sse HTTP/1.1\r\nHost: demo.{DOMAIN}\r\nAuthorization: Bearer {GOOD}\r\n\r\n".encode())
    async with asyncio.timeout(10):
        await client.reader.readuntil(b"data: first")
    await rig.feed.change(forget_tokens=[ALICE.user])
    assert b"data" not in await client.ended()


async def test_a_body_waits_for_the_tokens_check(rig: Rig) -> None:
    await rig.feed.change(forget_tokens=[ALICE.user])
    client = await rig.connect(f"demo.{DOMAIN}")
    head = f"POST / HTTP/1.1\r\nHost: demo.{DOMAIN}\r\nAuthorization: Bearer {GOOD}\r\nContent-Length: 5\r\n\r\nhello"
    await client.send(head.encode() * 2)
    for _ in range(2):
        assert json.loads((await client.answer()).body)["size"] == 5


async def test_two_authorizations_are_not_guessed_about(rig: Rig) -> None:
    client = await rig.connect(f"open.{DOMAIN}")
    await client.send(f"GET / HTTP/1.1\r\nHost: open.{DOMAIN}\r\nAuthorization: a\r\nAuthorization: b\r\n\r\n".encode())
    assert (await client.answer()).status == 400


async def test_git_clones_and_pushes_with_a_token_as_password(rig: Rig, tmp_path: Path) -> None:
    bare = tmp_path / "srv" / "repo.git"
    env = {**os.environ, "GIT_SSL_CAINFO": str(rig.ca), "GIT_TERMINAL_PROMPT": "0", "HOME": str(tmp_path)}
    for key in ("AUTHOR", "COMMITTER"):
        env |= {f"GIT_{key}_NAME": "a", f"GIT_{key}_EMAIL": "a@example.org"}
    subprocess.run(["git", "init", "-q", "--bare", bare], check=True, env=env)
    subprocess.run(["git", "-C", bare, "config", "http.receivepack", "true"], check=True, env=env)
    seen: list[str] = []
    machine = vm("forge")
    rig.feed.tokens["forge", GOOD] = EdgeToken(0, ALICE.user)
    await rig.app(machine, serve=git_server(tmp_path / "srv", seen))
    url = f"https://x:{GOOD}@forge.{DOMAIN}:{rig.port}/repo.git"

    async def git(*words: str) -> None:
        resolve = f"forge.{DOMAIN}:{rig.port}:127.0.0.1"
        done = await asyncio.create_subprocess_exec("git", "-c", f"http.curloptResolve={resolve}", *words, env=env)
        assert await asyncio.wait_for(done.wait(), 30) == 0

    await git("clone", "-q", url, str(tmp_path / "work"))
    (tmp_path / "work" / "a").write_text("b")
    await git("-C", str(tmp_path / "work"), "add", "a")
    await git("-C", str(tmp_path / "work"), "commit", "-q", "-m", "one")
    await git("-C", str(tmp_path / "work"), "push", "-q", "origin", "HEAD:main")
    log = subprocess.run(["git", "-C", bare, "log", "--format=%s", "main"], capture_output=True, text=True, check=True)
    assert log.stdout == "one\n"
    assert seen and not any("authorization" in head.lower() for head in seen)


def git_server(root: Path, seen: list[str]):  # type: ignore[no-untyped-def]
    """git's own smart HTTP backend behind the smallest server that can hold it; one request a connection."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        seen.append(head)
        lines = head.split("\r\n")
        method, target, _ = lines[0].split()
        fields = {k.lower(): v.strip() for k, _, v in (line.partition(":") for line in lines[1:] if line)}
        body = b""
        if fields.get("transfer-encoding") == "chunked":
            while size := int(await reader.readline(), 16):
                body += await reader.readexactly(size)
                await reader.readexactly(2)
            await reader.readline()
        elif length := int(fields.get("content-length", "0")):
            body = await reader.readexactly(length)
        path, _, query = target.partition("?")
        env = {
            **os.environ, "GIT_PROJECT_ROOT": str(root), "GIT_HTTP_EXPORT_ALL": "1", "PATH_INFO": path,
            "QUERY_STRING": query, "REQUEST_METHOD": method, "CONTENT_TYPE": fields.get("content-type", ""),
            "CONTENT_LENGTH": str(len(body)), "HTTP_CONTENT_ENCODING": fields.get("content-encoding", ""),
            "GIT_PROTOCOL": fields.get("git-protocol", ""), "HOME": str(root),
        }
        program = await asyncio.create_subprocess_exec(
            "git", "http-backend", stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, env=env)
        out, _ = await program.communicate(body)
        top, _, content = out.partition(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\n" + top + b"\r\nConnection: close\r\n\r\n" + content)
        writer.close()

    return serve


async def test_a_sleeping_machine_is_started_while_the_visitor_waits(rig: Rig) -> None:
    machine = vm("nap", public_ports=(8000,))
    await rig.app(machine)
    await rig.feed.change(put_vms=[msgspec.structs.replace(machine, phase="stopped", address="", wakes=True)])
    rig.feed.wakes = machine
    answer = await rig.get(f"nap.{DOMAIN}")
    assert answer.status == 200
    assert answer.header("server-timing").startswith("wake;dur=")
    again = await rig.get(f"nap.{DOMAIN}")
    assert (again.status, again.header("server-timing")) == (200, "")


async def test_who_may_not_open_a_machine_does_not_wake_it(rig: Rig) -> None:
    private = vm("hush", BOB)
    await rig.feed.change(put_vms=[msgspec.structs.replace(private, phase="stopped", address="", wakes=True)])
    rig.feed.asked.clear()
    assert (await rig.get(f"hush.{DOMAIN}")).status == 401
    assert rig.feed.asked == []


async def test_a_token_of_a_limited_key_opens_what_has_its_tag(rig: Rig) -> None:
    for machine, status in ((vm("prod-app", tags=("prod", "web")), 200), (vm("dev-app", tags=("dev",)), 404)):
        await rig.app(machine)
        rig.feed.tokens[machine.name, GOOD] = EdgeToken(0, ALICE.user, tag="prod")
        assert (await get(rig, machine.name, {"Authorization": f"Bearer {GOOD}"})).status == status
    await rig.app(vm("prod-app", tags=("web",)))
    assert (await get(rig, "prod-app", {"Authorization": f"Bearer {GOOD}"})).status == 404, "the tag is gone"
