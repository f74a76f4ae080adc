"""`/exec` answers every mistake with its own status and one sentence; a program can rely on both."""
from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.product.signing import KINDS, Signer
from tests.product.web_world import ALL, HOME, WebWorld, web_world
from ussycode.identity import ops as identity
from ussycode.runtime.drivers.fake import SlowDriver


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
    assert got.status == 401
    assert got.json["error"] == f"the token's key {second.public.fingerprint} is not registered here"


async def test_too_many_requests_of_one_key_run_nothing(tmp_path: Path) -> None:
    async with web_world(tmp_path, exec_rate="12") as place:
        token = place.alice.token(ALL)
        assert [(await place.exec("whoami", token)).status for _ in range(3)] == [200, 200, 429]
        got = await place.exec("new --name demo", token)
        assert (got.status, got.headers["Retry-After"], list(got.json)) == (429, "5", ["error"])
        place.base.clock.advance(5)
        assert (await place.exec("ls", token)).json == {"vms": []}


async def test_a_slow_command_goes_on_after_its_answer(tmp_path: Path) -> None:
    driver = SlowDriver()
    async with web_world(tmp_path, driver=driver, seconds=0.05) as place:
        got = await place.exec("new --name=demo")
        assert got.status == 504
        assert got.json == {"error": "new takes longer than 0.55 s; it goes on, only this answer ends"}
        probe = await place.exec("ssh demo true")
        assert (probe.status, probe.json) == (422, {"error": 'failed to connect to VM "demo": it is still starting'})
        driver.let_boot(next(iter(driver.waiting)))
        await until(place, "running")


async def until(place: WebWorld, status: str) -> None:
    async with asyncio.timeout(5):
        while (await place.exec("ls")).json["vms"][0]["status"] != status:
            pass


async def test_our_own_fault_is_one_sentence_with_a_request_id(place: WebWorld) -> None:
    place.app.db.close()
    got = await place.ask("POST", HOME + "/exec", data="ls", headers={"Authorization": "Bearer " + place.alice.token()})
    assert got.status == 500
    assert list(got.json) == ["error"]
    assert got.json["error"] == f"something went wrong on our side (request {got.headers['X-Request-Id']})"


async def test_no_other_site_s_page_may_read_answers(place: WebWorld) -> None:
    got = await place.exec("whoami", Origin="https://evil.example")
    assert not [name for name in got.headers if name.lower().startswith("access-control")]


async def test_a_vm_s_host_has_no_exec(place: WebWorld) -> None:
    got = await place.ask("POST", "https://demo.localhost:8443/exec", data="whoami")
    assert got.status == 404
