"""What is typed reaches the command as the same words: by SSH, at the prompt, in a script, over /exec, as a tool."""
from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import asyncssh
import pytest

from tests.corpus import CORPUS
from tests.product.ssh_world import Person, SshWorld
from tests.product.test_mcp import call
from tests.product.web_world import web_world
from ussycode.cmdline.lex import split

EXPANDED = ("$", "`", "~", "*", "?", "[", "{", "!", "#", "|", "&", ";", "<", ">", "(", "^")
"""What a shell does more than split at, outside quotes: it is no oracle for those."""
MAY = json.dumps({"cmds": ["defaults write"]})


def line(fragment: str) -> str:
    return f"defaults write dev.exe new.env --json -- {fragment}"


def word(document: Any) -> str:
    return str(document["defaults"]["new.env"])


def test_there_are_a_hundred_and_no_two_alike() -> None:
    assert len({fragment for fragment, _ in CORPUS}) == 100


@pytest.mark.parametrize(("fragment", "meant"), CORPUS, ids=[ascii(f) for f, _ in CORPUS])
def test_a_fragment_is_one_word(fragment: str, meant: str) -> None:
    assert split(fragment) == (meant,)


def test_a_real_shell_agrees_where_it_expands_nothing() -> None:
    asked = [(f, m) for f, m in CORPUS if not any(c in f for c in EXPANDED)]
    script = "printf '%s\\0' " + " ".join(f for f, _ in asked)
    said = subprocess.run(["/bin/sh", "-c", script], capture_output=True, check=True).stdout
    assert said.decode().split("\0")[:-1] == [m for _, m in asked] and len(asked) > 60


async def _connect(person: Person) -> asyncssh.SSHClientConnection:
    return await asyncssh.connect(
        "127.0.0.1", person.place.port, username=person.name, client_keys=[str(person.home / "key")], known_hosts=None,
        config=None, agent_path=None,
    )


async def test_over_ssh(place: SshWorld) -> None:
    olive = await place.member("olive")
    async with await _connect(olive) as connection:
        for fragment, meant in CORPUS:
            if meant in ("-", "/dev/stdin"):
                continue  # a value that means standard input
            done = await connection.run(line(fragment), input="")
            assert done.exit_status == 0, (fragment, done.stderr)
            assert word(json.loads(str(done.stdout))) == meant, fragment


async def test_in_a_script_piped_in(place: SshWorld) -> None:
    olive = await place.member("olive")
    asked = [(f, m) for f, m in CORPUS if m != "-"]
    done = await olive.ssh("-T", "host", stdin="".join(line(f) + "\n" for f, _ in asked).encode())
    assert done.status == 0, done.said
    decoder, rest, said = json.JSONDecoder(), done.text, []
    while rest.strip():
        document, end = decoder.raw_decode(rest.lstrip())
        said.append(word(document))
        rest = rest.lstrip()[end:]
    assert said == [m for _, m in asked]


async def test_at_the_prompt(place: SshWorld) -> None:
    olive = await place.member("olive")
    async with olive.terminal("host", term="dumb", size=(50, 300)) as tty:
        await tty.until("ussycode > ")
        for fragment, meant in CORPUS:
            if meant == "-":
                continue
            tty.type(line(fragment) + "\r")
            shown = await tty.until(r"\r\n\}\r\nussycode > ")
            document = shown[shown.index("\n{") :].removesuffix("ussycode > ")
            assert word(json.loads(document)) == meant, fragment


async def test_over_exec_and_as_a_tool(tmp_path: Path) -> None:
    async with web_world(tmp_path, exec_rate="100000") as place:
        token = place.alice.token(MAY)
        for fragment, meant in CORPUS:
            if meant == "-":
                continue
            answer = await place.exec(line(fragment).encode(), token)
            assert answer.status == 200, (fragment, answer.text)
            assert word(answer.json) == meant, fragment
        for _, meant in CORPUS:
            if meant == "-":
                continue
            done = await call(place, "defaults_write", token=token, space="dev.exe", key="new.env", value=meant)
            assert word(done["structuredContent"]) == meant
