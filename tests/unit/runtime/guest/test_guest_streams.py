"""Dials and file puts; and that a stranger gets nothing and blocks nobody."""
from __future__ import annotations

import asyncio
import os
import random
import socket
from pathlib import Path

import pytest
from host_agent import HostAgent, start_agent

from ussycode.base.errors import Failure
from ussycode.runtime.guest import errors, protocol
from ussycode.runtime.guest.streams import GuestAddress, dial, open_stream, put_file


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answers only after the client's end of file: half-close must arrive."""
    data = await reader.read(-1)
    writer.write(b"<" + data + b">")
    await writer.drain()
    writer.close()


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
async def test_a_dial_reaches_what_listens_on_loopback_of_either_kind(agent: HostAgent, host: str) -> None:
    server = await asyncio.start_server(echo, host, 0)
    stream = await dial(agent.addr, port=server.sockets[0].getsockname()[1])
    stream.writer.write(b"hello")
    stream.writer.write_eof()
    assert await stream.reader.read(-1) == b"<hello>"
    await stream.close()
    server.close()


async def test_a_dial_by_name_and_to_a_unix_socket(agent: HostAgent, tmp_path: Path) -> None:
    server = await asyncio.start_server(echo, "127.0.0.1", 0)
    named = await dial(agent.addr, port=server.sockets[0].getsockname()[1], host="localhost")
    local = await asyncio.start_unix_server(echo, str(tmp_path / "s"))
    for stream in (named, await dial(agent.addr, path=str(tmp_path / "s"))):
        stream.writer.write_eof()
        assert await stream.reader.read(-1) == b"<>"
        await stream.close()
    server.close()
    local.close()


async def test_bytes_written_with_the_hello_are_not_lost(agent: HostAgent) -> None:
    server = await asyncio.start_server(echo, "127.0.0.1", 0)
    reader, writer = await asyncio.open_connection(agent.addr.host, agent.addr.port)
    writer.write(protocol.dial_hello(agent.addr.secret, server.sockets[0].getsockname()[1]) + b"GET /")
    writer.write_eof()
    data = await reader.read(-1)
    reply = protocol.parse_reply(data)
    assert reply is not None and data[reply.used :] == b"<GET />"
    writer.close()
    server.close()


async def test_megabytes_pass_a_dial_both_ways(agent: HostAgent) -> None:
    async def mirror(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
        writer.close()

    server = await asyncio.start_server(mirror, "127.0.0.1", 0)
    stream = await dial(agent.addr, port=server.sockets[0].getsockname()[1])
    data = os.urandom(1 << 20) * 8

    async def send() -> None:
        stream.writer.write(data)
        await stream.writer.drain()
        stream.writer.write_eof()

    sending = asyncio.create_task(send())
    assert await stream.reader.read(-1) == data
    await sending
    await stream.close()
    server.close()


async def test_a_port_where_nobody_listens(agent: HostAgent) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        with pytest.raises(Failure) as refused:
            await dial(agent.addr, port=unused.getsockname()[1])
    assert refused.value.error is errors.REFUSED


@pytest.mark.parametrize(("header", "error"), [
    ((("verb", "dial"), ("port", "0")), errors.BAD_REQUEST),
    ((("verb", "dial"), ("port", "65536")), errors.BAD_REQUEST),
    ((("verb", "dial"), ("port", "8000x")), errors.BAD_REQUEST),
    ((("verb", "dial"), ("path", "/no/such/socket")), errors.NO_FILE),
    ((("verb", "dial"), ("path", "/" + "x" * 200)), errors.FAILED),
    ((("verb", "accept"), ("id", "42")), errors.REFUSED),
    ((("verb", "sing"),), errors.BAD_REQUEST),
    ((), errors.BAD_REQUEST),
])
async def test_impossible_requests_are_declared(
    agent: HostAgent, header: protocol.Pairs, error: errors.ErrorCode
) -> None:
    with pytest.raises(Failure) as refused:
        await open_stream(agent.addr, header)
    assert refused.value.error is error


async def test_the_wrong_secret_opens_nothing(agent: HostAgent) -> None:
    for secret in ("00" * 32, agent.addr.secret[:-1] + "f"):
        with pytest.raises(Failure) as refused:
            await dial(GuestAddress(agent.addr.host, secret, agent.addr.port), port=80)
        assert refused.value.error is errors.AUTH


async def test_before_configure_no_secret_is_right(guest_program: Path, tmp_path: Path) -> None:
    running = await start_agent(guest_program, tmp_path / "root")
    for secret in ("00" * 32, running.addr.secret):
        with pytest.raises(Failure) as refused:
            await dial(GuestAddress("127.0.0.1", secret, running.addr.port), port=80)
        assert refused.value.error is errors.AUTH
    await running.stop()


async def test_strangers_cannot_take_every_place(agent: HostAgent) -> None:
    """Silent connections fill the strangers' places; when they leave, or time is up, the owner gets in."""
    strangers = [await asyncio.open_connection(agent.addr.host, agent.addr.port) for _ in range(64)]
    with pytest.raises(Failure) as gone:
        await dial(agent.addr, port=1)
    assert gone.value.error is errors.GONE
    for _, writer in strangers:
        writer.close()
    async with asyncio.timeout(5):
        while True:
            with pytest.raises(Failure) as refused:
                await dial(agent.addr, port=1)
            if refused.value.error is errors.REFUSED:
                break


async def test_noise_instead_of_a_hello_never_ends_the_agent(agent: HostAgent) -> None:
    rng = random.Random(11)
    good = protocol.STREAM_MAGIC + agent.addr.secret.encode()
    for _ in range(200):
        _, writer = await asyncio.open_connection(agent.addr.host, agent.addr.port)
        header = rng.choice([rng.randbytes(rng.randrange(200)), bytes(rng.choices(b"verb\0dialexcsftpu/", k=60))])
        writer.write(rng.choice([b"", good]) + rng.choice([b"", len(header).to_bytes(4, "big")]) + header)
        writer.close()
    with pytest.raises(Failure) as refused:
        await dial(agent.addr, port=1)
    assert refused.value.error is errors.REFUSED


async def test_a_file_arrives_whole_with_its_mode(agent: HostAgent, tmp_path: Path) -> None:
    data = os.urandom(3_000_000)
    await put_file(agent.addr, str(tmp_path / "f"), data, mode=0o640)
    assert (tmp_path / "f").read_bytes() == data
    assert (tmp_path / "f").stat().st_mode & 0o7777 == 0o640


async def test_a_file_cut_short_leaves_the_old_one(agent: HostAgent, tmp_path: Path) -> None:
    (tmp_path / "f").write_text("old")
    header = (("verb", "put"), ("path", str(tmp_path / "f")), ("size", "100"))
    stream = await open_stream(agent.addr, header)
    stream.writer.write(b"half")
    stream.writer.write_eof()
    assert (await stream.reader.read(-1)).startswith(b"ER")
    await stream.close()
    assert (tmp_path / "f").read_text() == "old"
    assert [p.name for p in tmp_path.iterdir() if p.name != "root"] == ["f"]


@pytest.mark.parametrize("path", ["relative", "/", "", "/tmp/", "/" + "x" * 5000])
async def test_a_put_needs_a_file_name(agent: HostAgent, path: str) -> None:
    with pytest.raises(Failure) as refused:
        await put_file(agent.addr, path, b"x")
    assert refused.value.error is errors.BAD_REQUEST


async def test_a_put_into_nowhere(agent: HostAgent) -> None:
    with pytest.raises(Failure) as refused:
        await put_file(agent.addr, "/no/such/folder/f", b"x" * 1_000_000)
    assert refused.value.error is errors.NO_FILE
