"""What `new` gives a VM once: a setup script, a prompt, files. The guest here is a list of what it was told."""
from __future__ import annotations

import asyncio
import shlex
import struct
import subprocess
from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import cast

import pytest

from tests.world import World, world
from ussycode.access.facts import Caller
from ussycode.agent.link import LocalLink
from ussycode.dispatch import Call, run
from ussycode.ports import Silent
from ussycode.runtime.guest.execs import ExecSpec, ExecStream
from ussycode.runtime.guest.protocol import Op, encode_op
from ussycode.runtime.guest.streams import Stream
from ussycode.vms import firstboot


@dataclass
class Taken:
    """One command that a guest was given, and the input it read."""

    spec: ExecSpec
    got: bytearray = field(default_factory=bytearray)

    def write(self, data: bytes) -> None:
        self.got += data[5:]

    async def drain(self) -> None:
        await asyncio.sleep(0)

    def close(self) -> None:
        """Nothing is open."""

    async def wait_closed(self) -> None:
        """Nothing is open."""


class Guest(LocalLink):
    """A guest that takes whatever it is given and answers with `status` and `said`."""

    def __init__(self, status: int = 0, said: str = "") -> None:
        self.status, self.said = status, said
        self.taken: list[Taken] = []

    async def open_exec(self, vm: str, spec: ExecSpec) -> ExecStream:
        taken = Taken(spec)
        self.taken.append(taken)
        reader = asyncio.StreamReader()
        asyncio.get_running_loop().call_later(0.02, self.answer, reader)
        return ExecStream(Stream(reader, cast(asyncio.StreamWriter, taken), {}))

    def answer(self, reader: asyncio.StreamReader) -> None:
        reader.feed_data(encode_op(Op.STDERR, self.said.encode()) if self.said else b"")
        reader.feed_data(encode_op(Op.EXIT, struct.pack(">I", self.status)))
        reader.feed_eof()


@dataclass(frozen=True)
class Piped(Silent):
    """Somebody who pipes a file in."""

    data: bytes

    async def read_stdin(self, limit: int) -> bytes:
        return self.data[:limit]


@pytest.fixture
async def w() -> AsyncIterator[World]:
    async with world() as made:
        yield made


@pytest.fixture
async def olive(w: World) -> Caller:
    return await w.person("olive")


def give(w: World, guest: Guest) -> Guest:
    w.app = replace(w.app, link=guest)
    return guest


async def piped(w: World, who: Caller, line: str, data: bytes) -> object:
    outcome = await run(w.app, Call(who, shlex.split(line), "test", True, Piped(data)))
    assert outcome.view is not None, outcome.failure
    return outcome.view.document()


async def test_a_setup_script_of_one_line_is_installed_as_a_program_for_the_login_user(w: World, olive: Caller) -> None:
    guest = give(w, Guest())
    made = await w.does(olive, r"new --name demo --setup-script 'echo one\necho two'")
    assert "error" not in made
    (taken,) = guest.taken
    assert taken.spec.user == "root" and "exe-$name.service" in taken.spec.cmd and " ussy " in taken.spec.cmd
    assert bytes(taken.got) == b"#!/bin/sh\necho one\necho two\n"


@pytest.mark.parametrize("value", ["-", "/dev/stdin"])
@pytest.mark.parametrize("flag", ["setup-script", "prompt"])
async def test_script_and_prompt_come_from_standard_input(w: World, olive: Caller, flag: str, value: str) -> None:
    guest = give(w, Guest())
    await piped(w, olive, f"new --name demo --{flag}={value}", b"#!/usr/bin/env python3\nprint('it\\n')\n")
    assert bytes(guest.taken[0].got) == b"#!/usr/bin/env python3\nprint('it\\n')\n"


async def test_input_for_both_none_or_too_much_is_refused_before_a_vm_is_made(w: World, olive: Caller) -> None:
    assert (await w.fails(olive, "new --setup-script - --prompt -"))[0] == "new.one_stdin"
    assert (await w.fails(olive, "new --setup-script -"))[0] == "new.empty_stdin"
    assert (await w.fails(olive, "new --setup-script " + "x" * 10_241))[0] == "new.too_long"
    assert (await w.does(olive, "ls"))["vms"] == []


async def test_where_no_systemd_runs_the_agents_stream_starts_the_script(w: World, olive: Caller) -> None:
    class Plain(Guest):
        def answer(self, reader: asyncio.StreamReader) -> None:
            self.status = firstboot.NO_SYSTEMD if len(self.taken) == 1 else 0
            super().answer(reader)

    guest = give(w, Plain())
    await w.does(olive, "new --name demo --setup-script true")
    assert [t.spec.user for t in guest.taken] == ["root", "ussy"]
    assert "rm -f /exe.dev/setup" in guest.taken[1].spec.cmd


async def test_a_guest_that_refuses_its_prompt_is_a_vm_all_the_same(w: World, olive: Caller) -> None:
    give(w, Guest(3, "the image has no agent at /etc/ussycode/agent\x1b[31m"))
    made = await w.does(olive, "new --name demo --prompt 'make a page'")
    assert "no agent at /etc/ussycode/agent?[31m" in str(made["error"])
    assert (await w.does(olive, "ls demo"))["vms"][0]["status"] == "running"  # type: ignore[index]
    told = await w.does(olive, "why demo")
    assert any(e["what"].startswith("first boot: the prompt") for e in told["events"])  # type: ignore[attr-defined]


async def test_defaults_are_given_to_every_new_vm_and_the_line_wins(w: World, olive: Caller) -> None:
    await w.does(olive, "defaults write dev.exe new.setup-script 'touch made'")
    await piped(w, olive, "defaults write dev.exe new.file:~/AGENTS.md", b"be kind\n")
    guest = give(w, Guest())
    await w.does(olive, "new --name demo")
    assert [bytes(t.got) for t in guest.taken] == [b"be kind\n", b"#!/bin/sh\ntouch made\n"]
    assert guest.taken[0].spec.user == "ussy" and shlex.split(guest.taken[0].spec.cmd)[-1] == "~/AGENTS.md"
    await w.does(olive, "new --name shop --setup-script 'touch other'")
    assert bytes(guest.taken[-1].got) == b"#!/bin/sh\ntouch other\n"


async def test_a_default_file_has_a_path_and_there_are_few(w: World, olive: Caller) -> None:
    assert (await w.fails(olive, "defaults write dev.exe new.file:relative x"))[0] == "defaults.unknown"
    for n in range(16):
        await w.does(olive, f"defaults write dev.exe new.file:~/{n} x")
    assert (await w.fails(olive, "defaults write dev.exe new.file:~/16 x"))[0] == "defaults.too_many_files"


async def test_what_a_cut_short_new_left_is_given_later_and_once(w: World, olive: Caller) -> None:
    guest = give(w, Guest())
    await w.does(olive, "new --name demo")
    (vm,) = w.driver.vms
    await w.app.db.write(lambda tx: firstboot.keep(tx, vm, firstboot.Gifts(setup="#!/bin/sh\n")))
    assert await firstboot.deliver_all(w.app) == 0
    w.clock.advance(200)
    assert [await firstboot.deliver_all(w.app) for _ in range(2)] == [1, 0]
    assert len(guest.taken) == 1


def test_the_installer_keeps_the_script_until_it_ran_and_names_its_owner(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    done = subprocess.run(firstboot.installer("setup", "root", str(tmp_path)), shell=True, input=b"#!/bin/sh\nexit 5\n")
    assert done.returncode == firstboot.NO_SYSTEMD
    kept = tmp_path / "exe.dev" / "setup"
    assert (kept.read_bytes(), kept.stat().st_mode & 0o777) == (b"#!/bin/sh\nexit 5\n", 0o755)


def test_a_prompt_needs_an_agent_in_the_image(tmp_path: Path) -> None:
    command = firstboot.installer("prompt", "root", str(tmp_path))
    done = subprocess.run(command, shell=True, input=b"hello", capture_output=True)
    assert (done.returncode, done.stderr) == (3, b"the image has no agent at /etc/ussycode/agent\n")
    assert not (tmp_path / "exe.dev" / "prompt").exists()
