"""An operator's scraper finds the counters; anything else finds nothing."""
from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.world import World, world
from ussycode.doors.metrics.server import serve_metrics


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
