"""Every command's JSON fits its committed schema, and nothing but the schema's members is in it."""
from __future__ import annotations

import json
import re
import shlex
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import jsonschema
import pytest

from tests.product.test_first_boot import Guest
from tests.schemas import SCHEMAS, check
from tests.world import World, world
from ussycode.access.facts import Caller, Role
from ussycode.agent.link import LocalLink
from ussycode.catalog import COMMANDS, TREE, declined
from ussycode.cmdline.schema import reply
from ussycode.dispatch import Call, run
from ussycode.vms import samples

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGJzDOXvS0ZkB2bq8v1yYkN0Vn5t9h6n8v6mJt0m3sQF laptop"
LINES = (
    "help", "help share", "help new", "help --aliases", "share help", "known-hosts",
    "ls --help", "doc", "doc tokens", "exit", "logout", "set-region local",
    "ssh-config", "completion bash", "complete 'share sh'", "projects", "doctor", "quota", "whoami",
    "new --name demo --env A=1 --tag prod,web --comment 'the shop'", "new --name bare --setup-script true", "ls",
    "ls -l --group tag", "ls 'no-*'", "SAMPLE", "stat demo", "stat demo --range 30d", "ls -l", "why demo",
    "comment demo 'a note'", "tag demo blue", "tag -d demo blue", "egress demo integrations", "wake demo on",
    "resize demo --cpu 2 --memory 1G --disk 6G", "resize demo --cpu 2", "stop demo", "start demo", "restart demo",
    "pause demo", "resume demo", "cp demo copy", "rename copy other", "snapshot create demo first", "snapshot ls demo",
    "snapshot schedule demo daily", "snapshot restore demo first", "snapshot rm demo first", "rm other nothere",
    "trash ls", "trash restore other", "rm other", "trash empty", "share show demo", "share port demo",
    "share port demo 3000", "share set-public demo", "share set-private demo",
    "share add demo friend@example.org --message hello", "share add demo friend@example.org --root --expires 7d",
    "share add demo friend@example.org --port 3000", "share show demo", "share who demo",
    "share who demo friend@example.org", "share log demo", "share mine", "share remove demo friend@example.org --root",
    "share remove demo friend@example.org", "share requests", "LINK",
    "share receive-email demo", "share receive-email demo on", "share receive-email demo off",
    "share add-link demo --label meetup --max-uses 5 --expires 2d",
    "share show demo", "domain ls", "image ls", "defaults read",
    "defaults write dev.exe new.env EDITOR=vim", "defaults delete dev.exe new.env", f"ssh-key add {KEY}",
    "ssh-key rename laptop desk", "ssh-key tag desk prod", "ssh-key list", "ssh-key generate-api-key --label ci",
    "ssh-key generate-api-key --vm demo --exp never", "ssh-key list", "ssh-key revoke-token ci", "ssh-key remove desk",
    "browser", "browser --list", "passkey list", "email ls", "email add olive@example.org",
    "email rm olive@example.org", "invite friend@example.org",
)
ELSEWHERE = {
    "image pull": "tests/product/test_image_commands.py", "image rm": "tests/product/test_image_commands.py",
    "usy0-to-usy1": "tests/product/test_tokens.py", "email verify": "tests/product/test_email.py",
    "email primary": "tests/product/test_email.py", "ssh": "tests/product/test_exec_streams.py",
    "export": "tests/product/test_export.py", "import": "tests/product/test_import.py",
    "domain add": "tests/product/test_domains.py",
    "domain rm": "tests/product/test_domains.py", "passkey rename": "tests/product/test_passkeys.py",
    "passkey remove": "tests/product/test_passkeys.py", "share approve": "tests/product/test_requests.py",
    "share decline": "tests/product/test_requests.py",
    "share access": "tests/product/test_sharing.py",
}
"""Commands that need more than a line, and where they are run."""


@pytest.fixture
async def w() -> AsyncIterator[World]:
    async with world() as made:
        made.app = replace(made.app, link=Guest())
        yield made


async def answer(w: World, who: Caller, line: str) -> tuple[str, object]:
    outcome = await run(w.app, Call(who, shlex.split(line), "test", True))
    assert outcome.failure is None and outcome.view is not None, (line, outcome.failure)
    return outcome.command, outcome.view.document()


async def test_each_command_answers_what_its_schema_says(w: World) -> None:
    admin = await w.person("olive", Role.ADMIN)
    ran = set(ELSEWHERE) | {c.name for c in declined.ALL if not reply(c)}
    for line in LINES:
        if line == "SAMPLE":
            w.app = replace(w.app, link=LocalLink(w.driver))
            for _ in range(2):
                await samples.take(w.app)
                w.clock.advance(60)
            continue
        if line == "LINK":
            _, made = await answer(w, admin, "share add-link demo --port 3000")
            line = f"share remove-link demo {made['id']} --revoke"  # type: ignore[index]
        name, document = await answer(w, admin, line)
        ran.add(name)
        check("help" if "--help" in line else name, document)
    assert ran == {c.name for c in COMMANDS}, "a command was never run"


@pytest.mark.parametrize(("name", "path"), ELSEWHERE.items())
def test_what_needs_more_than_a_line_is_run_where_it_says(name: str, path: str) -> None:
    """`World.run` and `WebWorld.exec` hold every answer against its schema, in whatever test."""
    assert re.search(rf"\b{name}\b|{name.replace(' ', '_')}", (Path(__file__).parents[2] / path).read_text()), path


async def test_failures_fit_theirs(w: World) -> None:
    olive = await w.person("olive")
    outcome = await w.run(olive, "restart nothere")
    assert outcome.failure is not None
    check("error", {"error": outcome.failure.sentence})


@pytest.mark.parametrize("command", [c for c in COMMANDS if reply(c)], ids=lambda c: c.name)
async def test_help_tells_the_schema_of_what_is_answered(w: World, command: object) -> None:
    name = command.name  # type: ignore[attr-defined]
    page = await w.does(await w.person("olive"), f"{name} --help")
    told = page["commands"][0]["reply"]  # type: ignore[index]
    assert told == json.loads((SCHEMAS / f"{name.replace(' ', '-')}.json").read_text())
    jsonschema.Draft202012Validator.check_schema(told)


@pytest.mark.parametrize("command", [c for c in TREE.commands if c.name not in ("ssh", "export")], ids=lambda c: c.name)
def test_a_command_says_what_it_answers_member_by_member(command: object) -> None:
    schema = reply(command)  # type: ignore[arg-type]
    if command in declined.ALL and not schema:
        return
    assert schema["$defs"], "document() must return a TypedDict"
    assert all(part["additionalProperties"] is False for part in schema["$defs"].values() if "properties" in part)
