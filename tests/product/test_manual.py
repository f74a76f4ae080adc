"""The manual is the same in the lobby, over HTTP and for agents."""
from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.product.web_world import HOME, WebWorld, web_world
from tests.world import HOST_KEY
from ussycode.catalog import COMMANDS, declined, manual

ALLOWED = '{"cmds":["doc","ssh-config","completion","complete","set-region","new","team","billing"]}'


@pytest.fixture
async def place(tmp_path: Path) -> AsyncIterator[WebWorld]:
    async with web_world(tmp_path) as made:
        yield made


async def test_pages_are_listed_read_and_searched(place: WebWorld) -> None:
    token = place.alice.token(ALLOWED)
    listed = (await place.exec("doc", token)).json["pages"]
    assert {"slug": "first-vm", "title": "Your first VM"} in listed
    one = (await place.exec("doc first-vm", token)).json
    assert one["markdown"] == manual.pages()[[p.slug for p in manual.pages()].index("first-vm")].text
    assert "first-vm" in [p["slug"] for p in (await place.exec("doc share set-public", token)).json.get("pages", [one])]
    missing = await place.exec("doc wallpaper", token)
    assert (missing.status, missing.json) == (422, {"error": "no page of the manual is about wallpaper"})


async def test_the_same_pages_have_addresses(place: WebWorld) -> None:
    page = await place.ask("GET", HOME + "/docs/first-vm.md")
    assert page.headers["Content-Type"] == "text/markdown; charset=utf-8"
    assert page.text == manual.page("first-vm").text  # type: ignore[union-attr]
    assert (await place.ask("GET", HOME + "/docs/first-vm")).text == page.text
    assert page.text.strip() in (await place.ask("GET", HOME + "/docs/all.md")).text
    assert HOME + "/docs/first-vm.md" in (await place.ask("GET", HOME + "/llms.txt")).text
    assert "# Your first VM" in (await place.ask("GET", HOME + "/llms-full.txt")).text
    assert (await place.ask("GET", HOME + "/docs/..%2f..%2fetc%2fpasswd")).status == 404


async def test_the_skill_names_every_command_that_is_offered(place: WebWorld) -> None:
    skill = (await place.ask("GET", HOME + "/skill.md")).text
    assert skill.startswith("---\nname: ussycode\n")
    for command in COMMANDS:
        assert (f"- `{command.name}" in skill) == (command not in declined.ALL)


async def test_what_is_not_offered_says_why(place: WebWorld) -> None:
    token = place.alice.token(ALLOWED)
    refused = await place.exec("team members", token)
    assert refused.status == 422
    assert refused.json["error"].startswith("team is not offered yet: ")
    assert (await place.exec("billing plan --all", token)).json["error"].startswith("billing is not offered on a self-")
    assert (await place.exec("set-region local", token)).json == {"region": "local", "region_display": "this host"}
    assert (await place.exec("set-region lax", token)).json == {"error": "there is no region 'lax' here"}


async def test_the_line_for_known_hosts_names_the_lobby_and_every_vm(place: WebWorld) -> None:
    line = (await place.exec("known-hosts", place.alice.token('{"cmds":["known-hosts"]}'))).json["known_hosts"]
    assert line == f"[localhost]:2222,localhost {HOST_KEY}"


async def test_a_group_explains_itself_in_each_spelling(place: WebWorld) -> None:
    told = [(await place.exec(line)).json for line in ("help share", "share help")]
    assert told[0] == told[1]
    aliases = (await place.exec("help --aliases")).json["aliases"]
    assert (aliases["int"], aliases["vm-logs"], aliases["restore"]) == ("integrations", "why", "snapshot restore")


async def test_files_for_the_callers_machine(place: WebWorld) -> None:
    token = place.alice.token(ALLOWED)
    await place.exec("new --name=demo", token)
    config = (await place.exec("ssh-config", token)).json["ssh_config"]
    assert "Host demo.localhost\n  HostName localhost\n  Port 2222\n  User demo\n" in config
    assert "ProxyJump localhost" in config
    assert (await place.exec("complete 'share set'", token)).json == {"candidates": ["set-private", "set-public"]}
    assert (await place.exec("complete 'restart d'", token)).json == {"candidates": ["demo"]}
    assert "_ussy()" in (await place.exec("completion bash", token)).json["script"]


async def test_the_login_page_s_samples_are_where_it_links_them(place: WebWorld) -> None:
    text = (await place.ask("GET", HOME + "/docs/login.md")).text
    for name in ("wsgi_login.py", "asgi_login.py", "login.mjs", "verify.py"):
        got = await place.ask("GET", f"{HOME}/docs/login/{name}")
        assert f"(login/{name})" in text and got.status == 200 and got.headers["Content-Type"].startswith("text/plain")
    assert (await place.ask("GET", HOME + "/docs/login/..%2f..%2fapp.py")).status == 404
