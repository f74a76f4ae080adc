"""A guest learns what it is from its address, and nothing about anybody else."""
from __future__ import annotations

import asyncio
import ipaddress
import json
import socket
from collections.abc import AsyncIterator

import pytest

from tests.world import World, world
from ussycode.doors.metadata.server import MAX_PER_GUEST, MetadataDoor

LOOPBACK = ipaddress.IPv4Network("127.0.0.0/16")
"""Stands for the guests' pool: a client bound to 127.0.0.2 is VM number 2."""


@pytest.fixture
async def door() -> AsyncIterator[tuple[World, int]]:
    async with world() as base:
        listening = socket.create_server(("127.0.0.1", 0))
        listening.setblocking(False)
        task = asyncio.create_task(MetadataDoor(base.app, LOOPBACK).serve(listening))
        yield base, listening.getsockname()[1]
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def ask(port: int, source: str, line: str = "GET / HTTP/1.1") -> tuple[int, dict[str, str]]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port, local_addr=(source, 0))
    writer.write(f"{line}\r\nHost: 169.254.169.254\r\n\r\n".encode())
    head, _, body = (await asyncio.wait_for(reader.read(), 5)).partition(b"\r\n\r\n")
    writer.close()
    return int(head.split()[1]), json.loads(body or b"{}")


async def test_each_guest_is_told_about_itself_alone(door: tuple[World, int]) -> None:
    base, port = door
    alice = await base.person("alice")
    for name in ("first", "second"):
        await base.does(alice, f"new --name {name} --env SECRET=hidden")
    told = {number: await ask(port, f"127.0.0.{number}") for number in (2, 3)}
    assert [told[n][0] for n in (2, 3)] == [200, 200]
    first, second = told[2][1], told[3][1]
    assert (first["name"], second["name"]) == ("first", "second")
    assert first == {
        "name": "first", "vm_id": first["vm_id"], "source_ip": "127.0.0.2", "image": base.app.config.default_image,
        "https_url": "https://first.localhost:8443/", "ssh_dest": "first@localhost",
    }
    assert "hidden" not in json.dumps(first)


async def test_a_stranger_is_told_nothing(door: tuple[World, int]) -> None:
    _, port = door
    assert (await ask(port, "127.0.0.9"))[0] == 403, "in the pool, but no VM has that number"
    assert (await ask(port, "127.1.0.2"))[0] == 403, "not in the pool"


async def test_other_paths_and_methods_are_refused(door: tuple[World, int]) -> None:
    base, port = door
    await base.does(await base.person("alice"), "new --name first")
    assert (await ask(port, "127.0.0.2", "GET /latest/user-data HTTP/1.1"))[0] == 404
    assert (await ask(port, "127.0.0.2", "POST / HTTP/1.1"))[0] == 405
    assert await ask(port, "127.0.0.2", "HEAD /?x=1 HTTP/1.1") == (200, {})


async def test_a_guest_that_holds_connections_open_silences_only_itself(door: tuple[World, int]) -> None:
    base, port = door
    alice = await base.person("alice")
    for name in ("first", "second"):
        await base.does(alice, f"new --name {name}")
    held = [await asyncio.open_connection("127.0.0.1", port, local_addr=("127.0.0.2", 0)) for _ in range(MAX_PER_GUEST)]
    refused, _ = await asyncio.open_connection("127.0.0.1", port, local_addr=("127.0.0.2", 0))
    assert await asyncio.wait_for(refused.read(), 5) == b""
    assert (await ask(port, "127.0.0.3"))[1]["name"] == "second"
    for _, writer in held:
        writer.close()
