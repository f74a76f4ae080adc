"""An operator's scraper finds the counters; anything else finds nothing."""
from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.world import World, world
from ussycode.doors.metrics.server import serve_metrics
from ussycode.sharing.certificates import PORT_NAMES_AT_ONCE


@pytest.fixture
async def port(tmp_path: Path) -> AsyncIterator[tuple[World, int]]:
    async with world() as base:
        listening = socket.socket()
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        listening.setblocking(False)
        task = asyncio.create_task(serve_metrics(base.app, listening, tmp_path))
        yield base, listening.getsockname()[1]
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def said(port: int, request: bytes) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(request)
    got = await asyncio.wait_for(reader.read(), 5)
    writer.close()
    return got


async def test_counters_in_prometheus_text(port: tuple[World, int]) -> None:
    base, number = port
    await base.does(await base.person("alice"), "ls")
    got = await said(number, b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")
    assert got.startswith(b"HTTP/1.1 200 OK\r\nContent-Type: text/plain; version=0.0.4")
    assert b'ussycode_commands_total{code="ok",command="ls",via="test"} 1.0' in got


@pytest.mark.parametrize(("request_line", "status"), [
    (b"GET /healthz HTTP/1.1", b"200"), (b"HEAD /metrics HTTP/1.1", b"200"), (b"GET / HTTP/1.1", b"404"),
    (b"POST /metrics HTTP/1.1", b"405"), (b"nonsense", b"405"),
])
async def test_nothing_else(port: tuple[World, int], request_line: bytes, status: bytes) -> None:
    assert (await said(port[1], request_line + b"\r\n\r\n")).split()[1] == status


async def test_a_head_without_end_gets_nothing(port: tuple[World, int]) -> None:
    assert await said(port[1], b"GET /" + b"x" * 100_000) == b""


async def certificate(number: int, name: str) -> bytes:
    """Status of the answer to a terminator that wants a certificate for `name`."""
    return (await said(number, f"GET /certificate?domain={name} HTTP/1.1\r\nHost: x\r\n\r\n".encode())).split()[1]


async def test_certificates_are_for_names_that_exist(port: tuple[World, int]) -> None:
    base, number = port
    await base.does(await base.person("alice"), "new --name demo")
    for name in ("localhost", "demo.localhost", "DEMO.localhost", "3000--demo.localhost"):
        assert await certificate(number, name) == b"200", name
    for name in ("nobody.localhost", "demo.example.org", "a.demo.localhost", "2999--demo.localhost", "localhost.", "",
                 "3000--3000--demo.localhost", "demo.localhost%00", "demo.localhost:443", "x" * 4000):
        assert await certificate(number, name) == b"403", name
    counted = await said(number, b"GET /metrics HTTP/1.1\r\n\r\n")
    assert b'ussycode_certificate_questions_total{answer="yes"} 4.0' in counted


async def test_nobody_uses_up_what_the_authority_allows_by_asking_for_ports(port: tuple[World, int]) -> None:
    base, number = port
    await base.does(await base.person("alice"), "new --name demo")
    answers = [await certificate(number, f"{p}--demo.localhost") for p in range(3000, 3030)]
    assert answers.count(b"200") == PORT_NAMES_AT_ONCE and answers[PORT_NAMES_AT_ONCE:] == [b"403"] * 20
    assert await certificate(number, "demo.localhost") == b"200"
    base.clock.advance(3600)
    assert await certificate(number, "4000--demo.localhost") == b"200"
