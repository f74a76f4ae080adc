"""A shared shell over real OpenSSH: what it opens, and that it is over within two seconds when it is taken back."""
from __future__ import annotations

import asyncio
import time

import pytest

from tests.product.ssh_world import Person, SshWorld
from tests.product.test_sharing import BOB, prove
from ussycode.identity import ops as identity

WITHIN = 2.0
"""Seconds for a session to end once what allowed it has ended."""


async def shared(place: SshWorld, flags: str = "--root") -> tuple[Person, Person]:
    """Olive's running VM called demo, and Bob whom she shares it with."""
    olive, bob = await place.member("olive"), await place.member("bob")
    await place.vm(olive, "demo")
    assert (await olive.ssh("host", f"share add demo bob {flags}")).status == 0
    return olive, bob


@pytest.mark.parametrize("route", [
    ("demo@host", "echo in"), ("vm+demo@host", "echo in"), ("host", "ssh", "demo", "echo", "in"),
])
async def test_a_shell_share_opens_every_way_in(place: SshWorld, route: tuple[str, ...]) -> None:
    _, bob = await shared(place)
    done = await bob.ssh(*route)
    assert (done.status, done.text.strip()) == (0, "in"), done.said


async def test_a_web_share_opens_no_way_in(place: SshWorld) -> None:
    _, bob = await shared(place, "")
    for route in (("demo@host", "id"), ("host", "ssh", "demo", "id"), ("-W", "demo:22", "host"),
                  ("-W", "localhost:22", "demo@host"), ("-s", "demo@host", "sftp")):
        done = await bob.ssh("-oLogLevel=INFO", *route, stdin=b"")
        assert done.status != 0 and not done.out and "demo" in done.said, route


@pytest.mark.parametrize("how", [
    "share remove demo bob", "share remove demo bob --root", "share remove demo bob@example.org",
])
async def test_a_shell_taken_back_ends_what_is_open(place: SshWorld, how: str) -> None:
    olive, bob = await shared(place)
    await prove_as(place, bob)
    async with bob.terminal("-t", "demo@host", "echo up; cat") as shell, \
            bob.terminal("-t", "host", "ssh demo 'echo up; cat'") as through_the_lobby:
        await shell.until("up")
        await through_the_lobby.until("up\r")
        assert (await olive.ssh("host", how)).status == 0
        took = time.monotonic()
        await shell.until("this session was ended: you may no longer be in this VM")
        await through_the_lobby.until("this session was ended")
        assert time.monotonic() - took < WITHIN
        assert await shell.ended() != 0
    assert (await bob.ssh("demo@host", "id")).status != 0


async def test_a_forwarded_port_ends_too(place: SshWorld) -> None:
    olive, bob = await shared(place)
    server = await asyncio.start_server(_greet, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with bob.terminal("-W", f"127.0.0.1:{port}", "demo@host") as tunnel:
        await tunnel.until("hello")
        assert (await olive.ssh("host", "share remove demo bob")).status == 0
        await asyncio.wait_for(tunnel.process.wait(), WITHIN)
    server.close()


async def _greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"hello\n")
    await reader.read()
    writer.close()


async def test_a_shell_share_that_comes_to_its_end_ends_what_is_open(place: SshWorld) -> None:
    _, bob = await shared(place, "--root --expires 1m")
    place.base.clock.advance(59)
    async with bob.terminal("-t", "demo@host", "echo up; cat") as shell:
        await shell.until("up")
        place.base.clock.advance(1)
        await shell.until("this session was ended")
    assert (await bob.ssh("demo@host", "id")).status != 0


async def test_giving_up_the_address_ends_what_it_was_shared_for(place: SshWorld) -> None:
    olive, bob = await place.member("olive"), await place.member("bob")
    await place.vm(olive, "demo")
    assert (await olive.ssh("host", f"share add demo {BOB} --root")).status == 0
    assert (await bob.ssh("demo@host", "id")).status != 0
    await prove_as(place, bob)
    async with bob.terminal("-t", "demo@host", "echo up; cat") as shell:
        await shell.until("up")
        assert (await bob.ssh("host", f"email rm {BOB}")).status == 0
        await shell.until("this session was ended")


async def prove_as(place: SshWorld, person: Person) -> None:
    """Somebody proves the address of Bob."""
    found = await identity.recognise(place.app, person.key.fingerprint)
    assert found is not None
    await prove(place.base, found[0], BOB)
