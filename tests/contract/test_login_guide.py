"""The guide's page on the login: its table is what an app receives, and its samples do what they say."""
from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tests.contract.edge_rig import ALICE, BOB, Rig, running_edge, vm
from tests.contract.login_rig import APPS, GUIDE, sample
from ussycode.wire.edge import EdgeSigner, EdgeToken

pytestmark = pytest.mark.asyncio(loop_scope="module")
ALWAYS, USER, ADDRESS, TOKEN = "always", "signed in", "signed in, address verified", "a token with `ctx`"
PAGE = "Accept: text/html\r\n"


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def rig(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Rig]:
    async with running_edge(tmp_path_factory.mktemp("edge")) as rig:
        await rig.feed.change(signers=[EdgeSigner("sig_1", b"1" * 32, 1.0)])
        await rig.app(vm("echo", public_ports=(8000,)))
        for name in APPS:
            await rig.feed.change(put_vms=[vm(name, public_ports=(8000,))])
        yield rig


def table(*when: str) -> set[str]:
    """Names of the headers that the page promises for these cases."""
    rows = re.findall(r"^\| (`X-.*?) \| .* \| (.*?) \|$", (GUIDE / "login.md").read_text(), re.M)
    assert {case for _, case in rows} == {ALWAYS, USER, ADDRESS, TOKEN}
    return {name.lower() for names, case in rows if case in when for name in re.findall(r"`(X-[^`]+)`", names)}


async def received(rig: Rig, session: str = "", headers: str = "") -> set[str]:
    answer = await rig.get("echo.localhost", session=session, headers=headers)
    return {name.lower() for name, _ in json.loads(answer.body)["headers"]} - {"host", "accept"}


async def test_the_table_is_what_an_app_receives(rig: Rig) -> None:
    assert await received(rig) == table(ALWAYS)
    assert await received(rig, await rig.sign_in(BOB, "echo.localhost")) == table(ALWAYS, USER)
    assert await received(rig, await rig.sign_in(ALICE, "echo.localhost")) == table(ALWAYS, USER, ADDRESS)
    rig.feed.tokens["echo", "usy1.abc"] = EdgeToken(0, "usr_alice", '{"a": 1}')
    assert await received(rig, headers="Authorization: Bearer usy1.abc\r\n") == table(ALWAYS, USER, ADDRESS, TOKEN)


async def test_none_of_them_can_be_brought_along(rig: Rig) -> None:
    forged = "".join(
        f"{spelling}: forged\r\n" for name in sorted(table(ALWAYS, USER, ADDRESS, TOKEN))
        for spelling in (name, name.replace("-", "_"))
    )
    answer = await rig.get("echo.localhost", headers=forged)
    assert await received(rig, headers=forged) == table(ALWAYS) and b"forged" not in answer.body


@pytest.mark.parametrize("name", APPS)
async def test_a_sample_sends_strangers_to_the_login_and_greets_who_is_signed_in(rig: Rig, name: str) -> None:
    host = f"{name}.localhost"
    async with sample(name) as port:
        rig.agents.apps[vm(name).secret, 8000] = ("127.0.0.1", port)
        stranger = await rig.get(host, "/a%20b?x=1&y=%2f", headers=PAGE + "X-Ussycode-UserID: usr_alice\r\n")
        assert stranger.status == 302
        assert stranger.header("location").lower() == "/__ussycode/login?redirect=" + (
            "/a%2520b%3fx%3d1%26y%3d%252f" if name != "node" else "%2fa%2520b%3fx%3d1%26y%3d%252f")
        program = await rig.get(host)
        assert program.status == 401 and json.loads(program.body) == {"error": "sign in first"}
        assert (await rig.get(host, method="POST", headers=PAGE + "Content-Length: 0\r\n")).status == 401
        known = await rig.get(host, session=await rig.sign_in(ALICE, host), headers=PAGE)
        assert known.status == 200 and b"hello usr_alice alice@example.org\n" in known.body


async def test_the_page_links_what_is_there() -> None:
    for link in re.findall(r"\]\((login/[^)]+)\)", (GUIDE / "login.md").read_text()):
        assert (GUIDE / link).is_file()
