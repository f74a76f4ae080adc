"""Each command answers alike by SSH, at the prompt, in a script, over /exec and as a tool, and its status matches."""
from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import aiohttp
import asyncssh
import pytest

from tests.product.ssh_world import SshWorld, ssh_world
from tests.product.test_documents import ELSEWHERE, KEY
from tests.product.web_world import listening
from ussycode.access.facts import Role
from ussycode.base.errors import Failure
from ussycode.catalog import COMMANDS, TREE, declined
from ussycode.cmdline.lex import split
from ussycode.doors.web.app import serve_web
from ussycode.doors.web.mcp import LEFT_OUT
from ussycode.identity import store as people
from ussycode.tokens.verify import TokenVerifier

LINES = (
    "doc", "doc tokens", "set-region local", "ssh-config", "known-hosts", "completion bash", "projects", "quota",
    "doctor", "whoami", "new --name demo --env A=1 --tag prod,web --comment 'the shop'", "ls", "ls -l --group tag",
    "ls --watch", "ls 'no-*'", "stat demo", "why demo", "comment demo 'a note'", "tag demo blue", "tag -d demo blue",
    "egress demo integrations", "wake demo on", "resize demo --cpu 2 --memory 1G", "stop demo", "start demo",
    "restart demo", "pause demo", "resume demo", "cp demo copy", "rename copy other", "snapshot create demo first",
    "snapshot ls demo", "snapshot schedule demo daily", "snapshot restore demo first", "snapshot rm demo first",
    "rm other", "trash ls", "trash restore other", "rm other", "trash empty", "share show demo", "share port demo 3000",
    "share set-public demo", "share set-private demo", "share add demo friend@example.org --message hello",
    "share add demo friend@example.org", "share add demo nosuchone", "share add demo team", "share access allow demo",
    "share show demo", "share who demo",
    "share log demo", "share mine", "share remove demo friend@example.org", "share remove demo friend@example.org",
    "share receive-email demo on", "share receive-email demo",
    "share requests", "share approve demo bob", "share decline demo bob",
    "share remove-link demo link_none", "image ls", "defaults write dev.exe new.env EDITOR=vim",
    "defaults read", "defaults delete dev.exe new.env", f"ssh-key add {KEY}", "ssh-key rename laptop desk",
    "ssh-key tag desk prod", "ssh-key remove desk", "browser --list", "passkey list", "passkey rename a b",
    "passkey rm a", "email ls", "email add o@example.org", "email rm o@example.org", "invite friend@example.org",
    "domain ls", "share --help", "nosuch", "new --nmae x", "new --name x",
    "restart nothere", "rename nothere other", "ssh-key remove nothing", "new --image none", "resize demo --disk 1G",
    "billing plan", "team", "comment demo", "exit now",
)
PRINTED_ONCE = {
    "browser", "share add-link", "ssh-key list", "ssh-key generate-api-key", "ssh-key revoke-token", "usy0-to-usy1",
}
"""What they print differs by how the caller came in, or each time: their own tests look at them."""
HERE = {"logout", "complete", "help", "exit"}
"""They have no tool, or their document is the test of another file."""
SHIFTING = (
    (r"SHA256:[\w+/]+", "PRINT"), (r"ssh-ed25519 [\w+/=]{60,}", "KEY"), (r"\b(vm|user|snap)_[a-z0-9]{8,}", r"\1_ID"),
    (r"\d{4}-\d\d-\d\d(T[\d:.]+Z)?", "TIME"), (r"\b\d{5}\b", "PORT"),
)
"""What differs between two platforms in any text."""
PROMPT = "ussycode > "
OWN = frozenset({"request_id", "current", "last_used_at", "elapsed", "console", "ssh_port"})
"""Members that differ by platform, or by how somebody came in."""
FORWARDED = {"X-Forwarded-Host": "localhost:8443", "X-Forwarded-Proto": "https"}
Answer = tuple[Any, bool]
"""A document, and whether the command succeeded."""
Ask = Callable[[str], Awaitable[Answer]]


def plain(value: Any) -> Any:
    """A document without what differs between two platforms."""
    if isinstance(value, dict):
        return {k: plain(v) for k, v in value.items() if k not in OWN}
    if isinstance(value, list):
        return [plain(v) for v in value]
    if not isinstance(value, str):
        return value
    for pattern, instead in SHIFTING:
        value = re.sub(pattern, instead, value)
    return value


@asynccontextmanager
async def platform(program: Path, home: Path) -> AsyncIterator[tuple[SshWorld, asyncssh.SSHClientConnection]]:
    """A platform with an admin called olive, connected."""
    home.mkdir()
    async with ssh_world(program, home, exec_rate="100000") as place:
        olive = await place.member("olive")
        await place.app.db.write(lambda tx: people.update_user(tx, _only(tx), role=Role.ADMIN.value))
        options = {"username": "olive", "client_keys": [str(olive.home / "key")], "known_hosts": None, "config": None}
        async with await asyncssh.connect("127.0.0.1", place.port, **options) as connection:
            yield place, connection


def _only(tx: Any) -> str:
    return str(tx.conn.execute(people.users.select()).one().id)


def by_ssh(connection: asyncssh.SSHClientConnection) -> Ask:
    async def ask(line: str) -> Answer:
        done = await connection.run(f"{line} --json", input="")
        assert not done.stderr, (line, done.stderr)
        return json.loads(str(done.stdout)), done.exit_status == 0

    return ask


def in_a_script(connection: asyncssh.SSHClientConnection) -> Ask:
    async def ask(line: str) -> Answer:
        done = await connection.run(None, input=f"{line} --json\n")
        return json.loads(str(done.stdout)), done.exit_status == 0

    return ask


@asynccontextmanager
async def at_the_prompt(connection: asyncssh.SSHClientConnection) -> AsyncIterator[Ask]:
    """The lobby's prompt on a terminal without escapes. It shows no status: a failure is known by its document."""
    async with connection.create_process(term_type="dumb", term_size=(400, 50)) as prompt:
        await prompt.stdout.readuntil(PROMPT)

        async def ask(line: str) -> Answer:
            prompt.stdin.write(f"{line} --json\r")
            shown = str(await prompt.stdout.readuntil("\n" + PROMPT))
            document = json.loads(shown[shown.index("\n{") :].removesuffix(PROMPT))
            return document, not {"error", "request_id"} <= document.keys()

        yield ask


@asynccontextmanager
async def web(place: SshWorld, connection: asyncssh.SSHClientConnection, home: Path) -> AsyncIterator[tuple[str, Any]]:
    """A token that may do everything, and a client of the web door."""
    allowed = ",".join(sorted({c.name for c in COMMANDS}))
    made = await connection.run(f"ssh-key generate-api-key --json --exp never --cmds '{allowed}'", check=True)
    tokens = TokenVerifier(place.app)
    place.app.db.listen(tokens.heard)
    serving = asyncio.create_task(serve_web(place.app, tokens, listening(home / "web.sock"), 30.0))
    async with aiohttp.ClientSession(connector=aiohttp.UnixConnector(str(home / "web.sock"))) as client:
        yield json.loads(str(made.stdout))["token"], client
    serving.cancel()
    await asyncio.gather(serving, return_exceptions=True)


def over_exec(token: str, client: aiohttp.ClientSession) -> Ask:
    async def ask(line: str) -> Answer:
        headers = {"Authorization": f"Bearer {token}", "Accept": "application/vnd.ussycode+json", **FORWARDED}
        async with client.post("http://control/exec", data=line, headers=headers) as got:
            return await got.json(), got.status == 200

    return ask


def as_a_tool(token: str, client: aiohttp.ClientSession) -> Ask:
    async def ask(line: str) -> Answer:
        command, words = TREE.find(split(line))
        params = {"name": command.name.replace(" ", "_"), "arguments": arguments(command.params, words)}
        headers = {"Authorization": f"Bearer {token}", **FORWARDED}
        message = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params}
        async with client.post("http://control/mcp", json=message, headers=headers) as got:
            result = (await got.json())["result"]
            return result["structuredContent"], not result["isError"]

    return ask


def arguments(params: Any, words: Any) -> dict[str, Any]:
    """A line's words as a model would give them."""
    flags = {p.flag: p for p in params} | {"-" + p.short: p for p in params if p.short}
    places = [p for p in params if p.kind == "word"]
    made: dict[str, Any] = {}
    rest = list(words)
    while rest:
        name, equals, value = rest.pop(0).partition("=")
        if name not in flags:
            param = places[0] if places and (places[0].many or len(places) == 1) else places.pop(0)
            text = name + equals + value
            made[param.name] = [*made.get(param.name, []), text] if param.many else text
        elif flags[name].kind == "switch":
            made[flags[name].name] = True
        else:
            made[flags[name].name] = value if equals else rest.pop(0)
    return made


async def answers(ask: Ask, wanted: Callable[[str], bool] = lambda line: True) -> dict[int, Answer]:
    """What was answered to each line that is wanted, by its place in LINES."""
    told = {}
    for n, line in enumerate(LINES):
        if wanted(line):
            document, good = await ask(line)
            told[n] = plain(document), good
    return told


def tools(line: str) -> bool:
    """A line that is a tool and that a model could ask as it stands."""
    command = TREE.named(" ".join(split(line)[:2])) or TREE.named(split(line)[0])
    hard = "--nmae" in line or line in ("comment demo", "share --help", "exit now")
    return command is not None and command not in declined.ALL and command.name not in LEFT_OUT and not hard


@pytest.mark.timeout(120)
async def test_every_command_answers_alike_on_every_way_in(guest_program: Path, tmp_path: Path) -> None:
    told: dict[str, dict[int, Answer]] = {}
    async with platform(guest_program, tmp_path / "ssh") as (_, connection):
        told["ssh"] = await answers(by_ssh(connection))
    async with platform(guest_program, tmp_path / "script") as (_, connection):
        told["script"] = await answers(in_a_script(connection))
    async with platform(guest_program, tmp_path / "prompt") as (_, connection), at_the_prompt(connection) as ask:
        told["prompt"] = await answers(ask)
    async with platform(guest_program, tmp_path / "exec") as (place, connection), \
            web(place, connection, tmp_path / "exec") as (token, client):
        told["exec"] = await answers(over_exec(token, client))
    async with platform(guest_program, tmp_path / "tool") as (place, connection), \
            web(place, connection, tmp_path / "tool") as (token, client):
        told["tool"] = await answers(as_a_tool(token, client), tools)
    first = told.pop("ssh")
    for way, others in told.items():
        for n, answer in others.items():
            assert answer == first[n], (way, LINES[n])


def test_no_command_is_left_out() -> None:
    ran = set()
    for line in LINES:
        with suppress(Failure):
            ran.add(TREE.find(split(line))[0].name)
    offered = {c.name for c in COMMANDS if c not in declined.ALL}
    assert offered <= ran | PRINTED_ONCE | HERE | set(ELSEWHERE), offered - ran - PRINTED_ONCE - HERE - set(ELSEWHERE)
