"""What listens inside the guest for somebody outside: remote forwards and agents."""
from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from host_agent import HostAgent

from ussycode.base.errors import Failure
from ussycode.runtime.guest import errors
from ussycode.runtime.guest.listeners import Listener, listen_tcp, listen_unix


async def first(listener: Listener) -> tuple[bytes, bytes]:
    """Bytes of the next connection, after answering it."""
    async for stream in listener:
        data = await stream.reader.readexactly(5)
        stream.writer.write(b"pong")
        stream.writer.write_eof()
        rest = await stream.reader.read(-1)
        await stream.close()
        return data, rest
    raise AssertionError("the listener ended")


async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bytes:
    writer.write(b"ping!")
    answer = await reader.read(-1)
    writer.close()
    return answer


async def test_a_tcp_port_of_the_guest_s_choice(agent: HostAgent) -> None:
    listener = await listen_tcp(agent.addr, 0)
    assert 0 < listener.port < 65536
    served = asyncio.create_task(first(listener))
    assert await talk(*await asyncio.open_connection("127.0.0.1", listener.port)) == b"pong"
    assert await served == (b"ping!", b"")
    await listener.close()


async def test_many_connections_at_once_are_not_mixed_up(agent: HostAgent) -> None:
    listener = await listen_tcp(agent.addr, 0)

    async def serve() -> None:
        count = 0
        async for stream in listener:
            stream.writer.write(b"<" + await stream.reader.readexactly(3) + b">")
            await stream.close()
            if (count := count + 1) == 30:
                return

    async def client(number: int) -> bytes:
        reader, writer = await asyncio.open_connection("127.0.0.1", listener.port)
        writer.write(b"%03d" % number)
        answer = await reader.read(-1)
        writer.close()
        return answer

    serving = asyncio.create_task(serve())
    assert await asyncio.gather(*map(client, range(30))) == [b"<%03d>" % n for n in range(30)]
    await serving
    await listener.close()


async def test_a_private_socket_for_an_agent_that_goes_with_its_listener(agent: HostAgent) -> None:
    listener = await listen_unix(agent.addr)
    path = Path(listener.path)
    assert path.parent.stat().st_mode & 0o777 == 0o700
    served = asyncio.create_task(first(listener))
    assert await talk(*await asyncio.open_unix_connection(str(path))) == b"pong"
    await served
    await listener.close()
    async with asyncio.timeout(5):
        while path.parent.exists():
            await asyncio.sleep(0.005)


async def test_an_address_in_use(agent: HostAgent, tmp_path: Path) -> None:
    taken = await listen_unix(agent.addr, str(tmp_path / "s"))
    with pytest.raises(Failure) as refused:
        await listen_unix(agent.addr, str(tmp_path / "s"))
    assert refused.value.error is errors.IN_USE
    assert (tmp_path / "s").exists(), "the loser must not remove the winner's socket"
    await taken.close()


async def test_closing_the_listener_ends_its_iteration_and_its_port(agent: HostAgent) -> None:
    listener = await listen_tcp(agent.addr, 0)
    taking = asyncio.create_task(anext(aiter(listener), None))
    await listener.close()
    assert await taking is None
    async with asyncio.timeout(5):
        while True:
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", listener.port)
            except ConnectionError:
                return
            writer.close()
