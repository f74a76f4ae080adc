"""One request in, exactly one out, and nobody can read it in another way: the corpus, over TLS, at a real edge.

All attacks run at once, each with a VM of its own whose app keeps every byte; the tests look at what became of each.
"""
from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import dataclass

import pytest
import pytest_asyncio

from tests.contract.edge_corpus.attack import AFTER, HOST, Attack
from tests.contract.edge_corpus.recorder import Recorder
from tests.contract.edge_corpus.requests import ATTACKS, CHUNK, ENCODINGS, LENGTH_AND_CHUNKS, LENGTHS, LINES
from tests.contract.edge_rig import BOB, Client, Rig, running_edge, vm

pytestmark = pytest.mark.asyncio(loop_scope="module")
LONGEST = 20.0
"""Seconds until an attack counts as never answered."""


@dataclass
class Came:
    """What came of one attack."""

    answers: list[int]
    app: Recorder
    name: str


@dataclass
class Field:
    """The rig and what came of all attacks, by name."""

    rig: Rig
    came: dict[str, Came]
    private: Recorder


def renamed(raw: bytes, name: str) -> bytes:
    """The attack against the VM `name`, which has as many letters."""
    return raw.replace(HOST.encode(), f"{name}.localhost".encode()).replace(
        HOST.upper().encode(), f"{name}.localhost".upper().encode())


async def run(rig: Rig, attack: Attack, name: str, app: Recorder) -> Came:
    return await throw(await rig.connect(f"{name}.localhost"), attack.bytes, name, app)


async def throw(client: Client, raw: bytes, name: str, app: Recorder) -> Came:
    """One attack on one connection, and what comes of it."""
    await client.send(renamed(raw, name))
    out = b""
    with suppress(TimeoutError, ConnectionError):  # whoever never hears the end has too few answers
        async with asyncio.timeout(LONGEST):
            while data := await client.reader.read(1 << 16):
                out += data
    client.close()
    return Came([int(s) for s in re.findall(rb"HTTP/1\.1 ([2-5][0-9][0-9]) ", out)], app, name)


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def field(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Field]:
    async with running_edge(tmp_path_factory.mktemp("edge")) as rig:
        private = Recorder()
        await rig.app(vm("secret", BOB), serve=private.serve)
        apps = []
        for number in range(len(ATTACKS)):
            apps.append(Recorder())
            await rig.app(vm(f"c{number:03}", public_ports=(8000,)), serve=apps[-1].serve)
        came = await asyncio.gather(*(run(rig, a, f"c{n:03}", apps[n]) for n, a in enumerate(ATTACKS)))
        yield Field(rig, {a.name: c for a, c in zip(ATTACKS, came, strict=True)}, private)


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda a: a.name.encode("unicode_escape").decode())
async def test_one_in_one_out(field: Field, attack: Attack) -> None:
    require(attack, field.came[attack.name])


def require(attack: Attack, came: Came) -> None:
    """What came of an attack is what must come of it."""
    assert came.answers[:1] == [attack.status], attack.name
    assert len(came.answers) == attack.answers + (not attack.ends)
    read = came.app.read()
    assert len(read) == attack.reaches + (not attack.ends), (attack.name, read)
    assert [target for _, target, _ in read if target == "/smuggled"] == []
    if attack.reaches:
        assert read[0][2] == renamed(attack.body, came.name)
    if not attack.ends:
        assert (came.answers[-1], read[-1]) == (200, ("GET", "/after", b""))
    heads = came.app.heads
    assert [h for h in attack.has if renamed(h, came.name) not in heads] == []
    assert [n for n in attack.lacks if n in heads] == []


TOLD = b"X-Forwarded-For: 192.0.2.7\r\nX-Forwarded-Proto: https\r\nX-Forwarded-Port: 443\r\n"
"""What a front says of a visitor; its own lines come first, whatever else it passes on."""
BEHIND = (*LENGTH_AND_CHUNKS, *ENCODINGS, *LENGTHS, *CHUNK, *LINES)


async def test_the_front_s_socket_reads_as_strictly(field: Field) -> None:
    """A terminator that is more careless than we are passes all of this on, over connections that visitors share."""

    apps = [Recorder() for _ in BEHIND]
    for number, app in enumerate(apps):
        await field.rig.app(vm(f"f{number:03}", public_ports=(8000,)), serve=app.serve)

    async def one(number: int, attack: Attack) -> Came:
        raw = attack.raw.replace(b"\r\n", b"\r\n" + TOLD, 1) + attack.bytes[len(attack.raw) :]
        if not attack.ends:
            raw = raw.removesuffix(AFTER.encode()) + AFTER.encode().replace(b"\r\n", b"\r\n" + TOLD, 1)
        client = Client(*await asyncio.open_unix_connection(field.rig.folder / "front.sock"))
        return await throw(client, raw, f"f{number:03}", apps[number])

    came = await asyncio.gather(*(one(n, a) for n, a in enumerate(BEHIND)))
    for attack, what in zip(BEHIND, came, strict=True):
        require(attack, what)


async def test_no_attack_reached_the_private_vm(field: Field) -> None:
    assert field.private.streams == []


async def test_what_was_refused_in_the_body_is_cut_off_at_the_app(field: Field) -> None:
    """An app must not wait for the rest of a request that was refused, nor get anything else on that connection."""
    for attack in ATTACKS:
        came = field.came[attack.name]
        if attack.status == 400 and came.app.streams:
            async with asyncio.timeout(10):
                while came.app.ended < len(came.app.streams):
                    await asyncio.sleep(0.01)
            assert came.app.read() == []


async def test_each_refusal_is_logged_as_what_it_is(field: Field) -> None:
    async with asyncio.timeout(10):
        while len(field.rig.logged()) < sum(a.answers for a in ATTACKS):
            await asyncio.sleep(0.02)
    bad = [line for line in field.rig.logged() if line["status"] in (400, 405, 414, 417, 431)]
    assert {line["reason"] for line in bad} == {"malformed"}
    assert len(bad) >= sum(a.status in (400, 405, 414, 417, 431) for a in ATTACKS)
