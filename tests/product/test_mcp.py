"""A model's client finds every command as a tool and may do exactly what its token allows."""
from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx2
import mcp
import pytest
from mcp.client.streamable_http import streamable_http_client

from tests.product.web_world import HOME, Answer, WebWorld, web_world
from ussycode.catalog import COMMANDS, declined
from ussycode.doors.web.mcp import LEFT_OUT, TOOLS, words_of


@pytest.fixture
async def place(guest_program: Path, tmp_path: Path) -> AsyncIterator[WebWorld]:
    async with web_world(tmp_path, guest_program) as made:
        yield made


EVERYTHING = frozenset(c.name for c in COMMANDS) - {"usy0-to-usy1"}
MANY = json.dumps({"cmds": sorted(EVERYTHING)})


async def ask(place: WebWorld, method: str, params: Any = None, token: str | None = None, **message: Any) -> Answer:
    body = {"jsonrpc": "2.0", "id": 7, "method": method, "params": params or {}, **message}
    bearer = place.alice.token(MANY) if token is None else token
    headers = {"Authorization": f"Bearer {bearer}", "Content-Type": "application/json"}
    return await place.ask("POST", HOME + "/mcp", data=json.dumps(body), headers=headers)


async def call(place: WebWorld, tool: str, token: str | None = None, **arguments: Any) -> Any:
    return (await ask(place, "tools/call", {"name": tool, "arguments": arguments}, token)).json["result"]


async def test_a_client_learns_every_command_as_a_tool(place: WebWorld) -> None:
    hello = (await ask(place, "initialize", {"protocolVersion": "2025-03-26"})).json
    assert hello["id"] == 7
    assert hello["result"]["protocolVersion"] == "2025-03-26"
    assert (await ask(place, "notifications/initialized", id=None)).status == 200
    tools = {t["name"]: t for t in (await ask(place, "tools/list")).json["result"]["tools"]}
    offered = [c for c in COMMANDS if c.name not in LEFT_OUT and c not in declined.ALL]
    assert set(tools) == {c.name.replace(" ", "_") for c in offered if c.name in EVERYTHING}
    assert tools["rm"]["annotations"] == {"readOnlyHint": False, "destructiveHint": True}
    assert tools["new"]["inputSchema"]["properties"]["env"]["type"] == "array"


async def test_tools_answer_with_the_documents_of_exec(place: WebWorld) -> None:
    made = await call(place, "new", name="demo", env=["A=1", "B=x y"])
    assert not made["isError"]
    assert made["structuredContent"]["vm_name"] == "demo"
    listed = await call(place, "ls")
    assert listed["structuredContent"] == (await place.exec("ls")).json
    ran = await call(place, "ssh", vm="demo", command=["echo out; echo err >&2; exit 3"])
    assert ran["structuredContent"] == {"stdout": "out\n", "stderr": "err\n", "exit_code": 3}


async def test_what_a_token_does_not_allow_is_refused_and_a_bad_one_opens_nothing(place: WebWorld) -> None:
    only_ls = place.alice.token('{"cmds":["ls"]}')
    refused = (await ask(place, "tools/call", {"name": "new", "arguments": {}}, token=only_ls)).json["result"]
    assert refused["isError"]
    assert refused["structuredContent"]["code"] == "token.scope"
    stranger = await ask(place, "tools/list", token="usy0.nonsense")
    assert stranger.status == 401
    assert "WWW-Authenticate" in stranger.headers


@asynccontextmanager
async def official(place: WebWorld, cmds: list[str], mode: str = "auto") -> AsyncIterator[mcp.Client]:
    """The protocol's own client, which none of us wrote, with a token for `cmds`."""
    bearer = place.alice.token(json.dumps({"cmds": cmds}))
    headers = {"Authorization": f"Bearer {bearer}", "X-Forwarded-Host": "localhost:8443", "X-Forwarded-Proto": "https"}
    transport = httpx2.AsyncHTTPTransport(uds=str(place.path))
    async with (
        httpx2.AsyncClient(transport=transport, headers=headers) as http,
        mcp.Client(streamable_http_client("http://control/mcp", http_client=http), mode=mode) as client,
    ):
        yield client


@pytest.mark.parametrize("mode", ["auto", "legacy"])
async def test_the_official_client_makes_a_vm_and_works_in_it(place: WebWorld, mode: str) -> None:
    async with official(place, ["new", "ls", "ssh", "rm"], mode) as client:
        tools = {t.name: t for t in (await client.list_tools()).tools}
        assert set(tools) == {"new", "ls", "ssh", "rm"}, "a model is told of what its token allows"
        made = await client.call_tool("new", {"name": "demo", "env": ["A=1"], "cpu": 1})
        assert not made.is_error and made.structured_content["vm_name"] == "demo"
        ran = await client.call_tool("ssh", {"vm": "demo", "command": ["echo out; exit 3"]})
        assert ran.structured_content == {"stdout": "out\n", "stderr": "", "exit_code": 3}
        gone = await client.call_tool("rm", {"vm": ["demo", "nothere"]})
        assert gone.structured_content["deleted"] == ["demo"] and gone.structured_content["not_found"] == ["nothere"]
        refused = await client.call_tool("rename", {"vm": "demo", "new_name": "other"})
        assert refused.is_error and refused.structured_content["code"] == "token.scope"
        with pytest.raises(mcp.MCPError, match="no tool is called"):
            await client.call_tool("format", {})


async def test_a_token_for_one_vm_alone_offers_a_shell_in_it_and_no_other(place: WebWorld) -> None:
    for name in ("demo", "other"):
        await call(place, "new", name=name)
    async with official(place, ["ssh demo"]) as client:
        assert [t.name for t in (await client.list_tools()).tools] == ["ssh"]
        assert not (await client.call_tool("ssh", {"vm": "demo", "command": ["true"]})).is_error
        refused = await client.call_tool("ssh", {"vm": "other", "command": ["true"]})
        assert refused.is_error and refused.structured_content["code"] == "token.scope"


@pytest.mark.parametrize(("message", "code"), [
    ({"method": "tools/call", "params": {"name": "format-disk"}}, -32602),
    ({"method": "tools/call", "params": {"name": "ls", "arguments": {"colour": "red"}}}, -32602),
    ({"method": "tools/call", "params": {"name": "rename", "arguments": {"vm": ["a", "b"]}}}, -32602),
    ({"method": "tools/call", "params": {"name": "ls", "arguments": []}}, -32602),
    ({"method": "resources/list"}, -32601),
    ({"method": 7}, -32600),
])
async def test_a_message_that_makes_no_sense_gets_its_code(place: WebWorld, message: Any, code: int) -> None:
    answer = (await ask(place, **({"params": None} | message))).json
    assert answer["error"]["code"] == code


async def test_words_that_look_like_flags_stay_words() -> None:
    """An argument's text is never read as another flag."""
    assert words_of(TOOLS["rename"], {"vm": "demo", "new_name": "--json"}) == ("rename", "--", "demo", "--json")
    assert words_of(TOOLS["new"], {"name": "--no-email", "no_email": True}) == (
        "new", "--name=--no-email", "--no-email=true", "--")


async def test_a_command_ends_with_the_token_that_began_it(place: WebWorld, tmp_path: Path) -> None:
    await place.base.does(place.caller, "new --name demo")
    token = place.alice.token('{"cmds":["ssh"],"ctx":1}')
    began = tmp_path / "began"
    running = asyncio.create_task(
        call(place, "ssh", token, vm="demo", command=["sh", "-c", f"'touch {began}; sleep 100'"])
    )
    async with asyncio.timeout(20):
        while not began.exists():
            await asyncio.sleep(0.02)
    await place.base.does(place.caller, f"ssh-key revoke-token {token}")
    async with asyncio.timeout(2):
        done = await running
    assert done["isError"] and "may no longer be in this VM" in str(done)
