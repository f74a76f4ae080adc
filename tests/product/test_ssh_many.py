"""Scripts that call the lobby in a loop or in parallel are all served; what is refused is told so."""
from __future__ import annotations

import asyncio

import asyncssh

from tests.product.ssh_world import Done, SshWorld
from ussycode.doors.ssh import limits


async def test_two_hundred_commands_at_sixteen_in_parallel_all_answer(place: SshWorld) -> None:
    olive = await place.member("olive")
    await place.vm(olive, "demo")
    room = asyncio.Semaphore(16)

    async def one(n: int) -> Done:
        async with room:
            return await olive.ssh("host", ("whoami", "ls", "ls --json", "help ls")[n % 4])

    done = await asyncio.gather(*(one(n) for n in range(200)))
    assert [d for d in done if d.status or d.said or not d.out] == []


async def test_a_key_with_too_many_connections_is_told_so(place: SshWorld) -> None:
    olive = await place.member("olive")
    options = {"username": "olive", "client_keys": [str(olive.home / "key")], "known_hosts": None, "config": None}
    held = [await asyncssh.connect("127.0.0.1", place.port, **options) for _ in range(limits.MAX_PER_KEY)]
    done = await olive.ssh("host", "whoami")
    assert done.status == 255 and "too many connections with this key" in done.said
    for connection in held:
        connection.close()
        await connection.wait_closed()
    assert (await olive.ssh("host", "whoami")).status == 0
