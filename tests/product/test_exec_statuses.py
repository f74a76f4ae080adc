"""`/exec` answers every mistake with its own status and one sentence; a program can rely on both."""
from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.product.signing import KINDS, Signer
from tests.product.web_world import ALL, HOME, WebWorld, web_world
from ussycode.doors.web import exec as exec_door
from ussycode.identity import ops as identity
from ussycode.runtime.drivers.fake import NeverDriver


@pytest.fixture
async def place(tmp_path: Path) -> AsyncIterator[WebWorld]:
    async with web_world(tmp_path) as made:
        yield made


async def test_a_command_line_is_the_whole_request(place: WebWorld) -> None:
    made = await place.exec("new --name=demo --env=A=1 --no-email")
    assert made.status == 200
    assert made.headers["Content-Type"] == "application/json"
    assert made.json["vm_name"] == "demo"
    listed = await place.exec("ls")
    assert [vm["vm_name"] for vm in listed.json["vms"]] == ["demo"]


@pytest.mark.parametrize(("line", "status", "sentence"), [
    ("", 400, "the body is empty"),
    ("  \n ", 400, "the body is empty"),
    ('ls "half', 400, "unbalanced double quote"),
    (b"\xff\xfe", 400, "the body is not UTF-8"),
    (b"ls \x00", 400, "the body is not UTF-8"),
    ("make-coffee", 404, "unknown command: make-coffee"),
    ("share show demo", 403, "this token does not allow share show"),
    ("ls --colour=red", 422, "ls has no flag --colour"),
    ("restart nothing-here", 422, "no VM named nothing-here"),
    ("ssh nothing-here true", 422, 'VM "nothing-here" not found'),
    ("ls " + "x" * 65_536, 413, "the request body has more than 65536 bytes"),
])
async def test_each_mistake_has_its_status(place: WebWorld, line: str | bytes, status: int, sentence: str) -> None:
    got = await place.exec(line)
    assert got.status == status
    assert list(got.json) == ["error"]
    assert got.json["error"].startswith(sentence)


async def test_only_post(place: WebWorld) -> None:
    got = await place.ask("GET", HOME + "/exec")
    assert (got.status, got.headers["Allow"], list(got.json)) == (405, "POST", ["error"])


async def test_a_body_without_length_is_bounded_too(place: WebWorld) -> None:
    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(70):
            yield b"x" * 1024

    head = {"Authorization": f"Bearer {place.alice.token(ALL)}", "X-Forwarded-Host": "localhost"}
    async with place.client.post("http://control/exec", data=pieces(), headers=head) as got:
        assert got.status == 413


async def test_without_a_token(place: WebWorld) -> None:
    got = await place.ask("POST", HOME + "/exec", data="whoami")
    assert (got.status, got.headers["WWW-Authenticate"]) == (401, "Bearer")
    assert got.json == {"error": "no token was sent"}


async def test_programs_that_ask_for_it_get_code_hint_and_request(place: WebWorld) -> None:
    got = await place.exec("restart nope", Accept="application/vnd.ussycode+json", X_Request_Id="req_from_edge")
    assert got.json == {
        "error": "no VM named nope", "code": "vm.unknown", "hint": "ls shows your VMs", "request_id": "req_from_edge",
    }
    assert got.headers["X-Request-Id"] == "req_from_edge"


@pytest.mark.parametrize("kind", KINDS)
async def test_every_key_type_signs_tokens(place: WebWorld, tmp_path: Path, kind: str) -> None:
    (tmp_path / "more").mkdir()
    signer = Signer.make(tmp_path / "more", kind)
    await identity.register(place.app, signer.public, f"bob-{kind}", "bob")
    for hash_name in ("sha256", "sha512"):
        got = await place.exec("whoami", signer.token("{}", hash_name=hash_name))
        assert got.json["handle"] == f"bob-{kind}"


async def test_removing_the_key_ends_its_tokens_on_the_next_request(place: WebWorld, tmp_path: Path) -> None:
    (tmp_path / "more").mkdir()
    second = Signer.make(tmp_path / "more", "ed25519")
    await place.base.does(place.caller, f"ssh-key add {second.public.line} second")
    token = second.token(ALL)
    assert (await place.exec("whoami", token)).status == 200
    await place.base.does(place.caller, "ssh-key remove second")
    got = await place.exec("whoami", token)
    assert (got.status, got.json["error"]) == (401, f"the token's key {second.public.fingerprint} is not registered here")


async def test_too_many_requests_of_one_key_run_nothing(tmp_path: Path) -> None:
    async with web_world(tmp_path, exec_rate="12") as place:
        token = place.alice.token(ALL)
        assert [(await place.exec("whoami", token)).status for _ in range(3)] == [200, 200, 429]
        got = await place.exec("new --name demo", token)
        assert (got.status, got.headers["Retry-After"], list(got.json)) == (429, "5", ["error"])
        place.base.clock.advance(5)
        assert (await place.exec("ls", token)).json == {"vms": []}


async def test_a_slow_command_goes_on_after_its_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exec_door.ExecDoor, "seconds", 0.2)
    monkeypatch.setattr(exec_door.ExecDoor.__init__, "__defaults__", (0.2, *_rest()))
    async with web_world(tmp_path) as place:
        assert place.base.driver is not None
        gate = asyncio.Event()
        place.base.driver.hold = gate  # type: ignore[attr-defined]
        assert NeverDriver and json
