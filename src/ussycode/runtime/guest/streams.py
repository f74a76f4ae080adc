"""Streams to a guest: one TCP connection to its agent each."""
from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable, Mapping
from dataclasses import dataclass

from ussycode.runtime.guest import errors, protocol
from ussycode.runtime.guest.protocol import Pairs

OPEN_SECONDS = 10.0
"""Time for TCP connect, hello and reply together."""
PUT_SECONDS = 60.0
"""Time the guest may take to make a file durable after its last byte."""
READ_LIMIT = 256 * 1024
"""Bytes that asyncio buffers per stream before it stops reading from the guest."""
PUT_CHUNK = 256 * 1024
"""Bytes written at once of a file given whole."""


@dataclass(frozen=True)
class GuestAddress:
    """Where a guest's agent answers, and the secret of this boot (64 hex characters)."""

    host: str
    secret: str
    port: int = protocol.STREAM_PORT


@dataclass(frozen=True)
class Stream:
    """An accepted stream: raw bytes both ways. `fields` is what the agent said when it accepted."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    fields: Mapping[str, str]

    async def close(self) -> None:
        """Close both directions. Idempotent, never raises."""
        await close_writer(self.writer)


async def dial(
    addr: GuestAddress, *, port: int = 0, host: str = "", path: str = "", user: str = "",
    timeout: float = OPEN_SECONDS,
) -> Stream:
    """Connect to a TCP port (`host` empty: the guest's loopback, then its own address) or a unix socket.

    With `user`, with that user's permissions; else with root's.

    Raises REFUSED, UNREACHABLE, TIMEOUT, AUTH, DENIED, GONE, PROTOCOL.
    """
    where = (("path", path),) if path else (("port", str(port)),)
    header = (("verb", "dial"), *where, *_given("host", host), *_given("user", user))
    return await open_stream(addr, header, timeout=timeout)


async def open_sftp(addr: GuestAddress, *, user: str = "", timeout: float = OPEN_SECONDS) -> Stream:
    """Raw SFTP version 3 as `user` (empty: the VM's login user). Raises NO_USER and what `dial` raises."""
    return await open_stream(addr, (("verb", "sftp"), *_given("user", user)), timeout=timeout)


async def put_file(
    addr: GuestAddress, path: str, data: bytes | AsyncIterable[bytes], *, size: int | None = None,
    mode: int = 0o644, uid: int = 0, gid: int = 0, timeout: float = OPEN_SECONDS,
) -> None:
    """Put a file at an absolute path: all of it, durable, under its name at once - or nothing.

    `size` in bytes is needed when `data` is iterated, and must be exact. Raises NO_FILE, DENIED, FAILED, …
    """
    total = len(data) if isinstance(data, bytes) else size
    if total is None:
        raise errors.PROTOCOL(why="a file put needs its size")
    header = (("verb", "put"), ("path", path), ("mode", f"{mode:o}"), ("uid", str(uid)), ("gid", str(gid)),
              ("size", str(total)))
    stream = await open_stream(addr, header, timeout=timeout)
    try:
        await _send_all(stream.writer, data)
        await read_reply(stream.reader, PUT_SECONDS)
    finally:
        await stream.close()


async def _send_all(writer: asyncio.StreamWriter, data: bytes | AsyncIterable[bytes]) -> None:
    try:
        if isinstance(data, bytes):
            for at in range(0, len(data), PUT_CHUNK):
                writer.write(data[at : at + PUT_CHUNK])
                await writer.drain()
            return
        async for chunk in data:
            writer.write(chunk)
            await writer.drain()
    except ConnectionError:
        return  # the agent's reply, read next, says why it stopped taking bytes


async def open_stream(addr: GuestAddress, header: Pairs, *, timeout: float = OPEN_SECONDS) -> Stream:
    """Connect, say hello with `header`, wait for the reply; all within `timeout` seconds.

    Raises UNREACHABLE when the agent cannot be reached, GONE, TIMEOUT, PROTOCOL, or what the agent declares.
    """
    hello = protocol.encode_hello(addr.secret, header)
    deadline = asyncio.get_running_loop().time() + timeout
    reader, writer = await _connect(addr, deadline)
    try:
        writer.write(hello)
        fields = await read_reply(reader, deadline - asyncio.get_running_loop().time())
    except BaseException:
        writer.transport.abort()
        raise
    return Stream(reader, writer, fields)


async def _connect(addr: GuestAddress, deadline: float) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    try:
        async with asyncio.timeout_at(deadline):
            return await asyncio.open_connection(addr.host, addr.port, limit=READ_LIMIT)
    except TimeoutError:
        raise errors.TIMEOUT() from None
    except OSError as why:
        raise errors.GONE().because(why) from None


async def read_reply(reader: asyncio.StreamReader, timeout: float) -> Mapping[str, str]:
    """The fields of the agent's next reply. Raises its failure, or TIMEOUT, GONE, PROTOCOL."""
    try:
        async with asyncio.timeout(timeout):
            head = await reader.readexactly(protocol.REPLY_HEAD)
            body = await reader.readexactly(protocol.reply_length(head))
    except TimeoutError:
        raise errors.TIMEOUT() from None
    except (OSError, asyncio.IncompleteReadError) as why:
        raise errors.GONE().because(why) from None
    reply = protocol.parse_reply(head + body)
    if reply is None:
        raise errors.PROTOCOL(why="a reply is cut short")
    if not reply.ok:
        raise reply.failure
    return reply.fields


async def read_op(reader: asyncio.StreamReader) -> tuple[int, bytes]:
    """Next exec frame. Raises GONE at the end of the connection, PROTOCOL when malformed."""
    try:
        op, length = protocol.parse_op_head(await reader.readexactly(5))
        return op, await reader.readexactly(length)
    except (OSError, asyncio.IncompleteReadError) as why:
        raise errors.GONE().because(why) from None


async def close_writer(writer: asyncio.StreamWriter) -> None:
    """Close a connection without waiting for a peer that does not take its last bytes."""
    writer.close()
    try:
        async with asyncio.timeout(1):
            await writer.wait_closed()
    except (OSError, TimeoutError):
        writer.transport.abort()


def _given(key: str, value: str) -> Pairs:
    return ((key, value),) if value else ()
