"""The guests' resolver: forwards, bounds each guest, and says SERVFAIL rather than nothing."""
from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from ussycode.agent.dns import MAX_PER_GUEST, Forwarder, host_servers, servfail

QUERY = bytes.fromhex("abcd01000001000000000000076578616d706c6503636f6d0000010001")
ANSWER = QUERY[:2] + b"\x81\x80" + QUERY[4:]


def udp() -> socket.socket:
    made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    made.setblocking(False)
    made.bind(("127.0.0.1", 0))
    return made


@asynccontextmanager
async def forwarder(*servers: tuple[str, int]) -> AsyncIterator[tuple[str, int]]:
    """A running forwarder; gives the address guests ask, the same for UDP and TCP."""
    asked = udp()
    address = asked.getsockname()
    tcp = socket.create_server(address)
    tcp.setblocking(False)
    running = asyncio.create_task(Forwarder(asked, tcp, lambda: servers).run())
    try:
        yield address
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


async def reply(guest: socket.socket) -> bytes:
    return await asyncio.wait_for(asyncio.get_running_loop().sock_recv(guest, 4096), 5)


async def test_a_question_is_answered_by_the_hosts_server_and_no_other() -> None:
    loop = asyncio.get_running_loop()
    with udp() as server, udp() as guest, udp() as forger:
        async with forwarder(server.getsockname()) as address:
            guest.sendto(QUERY, address)
            asked, who = await asyncio.wait_for(loop.sock_recvfrom(server, 4096), 5)
            forger.sendto(b"\xab\xcd\x81\x80" + b"forged" * 4, who)
            server.sendto(b"\xff\xff" + ANSWER[2:], who)
            server.sendto(ANSWER, who)
            assert asked == QUERY
            assert await reply(guest) == ANSWER


async def test_without_servers_the_guest_learns_it_at_once() -> None:
    with udp() as guest:
        async with forwarder() as address:
            guest.sendto(b"noise", address)
            guest.sendto(QUERY, address)
            assert await reply(guest) == servfail(QUERY)
            assert servfail(QUERY)[3] & 0x0F == 2


async def test_one_guest_cannot_ask_without_bound() -> None:
    with udp() as server, udp() as guest:
        async with forwarder(server.getsockname()) as address:
            for _ in range(MAX_PER_GUEST + 1):
                guest.sendto(QUERY, address)
            assert await reply(guest) == servfail(QUERY), "the one too many is refused while the others wait"


async def test_long_answers_travel_over_tcp() -> None:
    long = ANSWER + bytes(5000)

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        assert await reader.readexactly(2 + len(QUERY)) == len(QUERY).to_bytes(2, "big") + QUERY
        writer.write(len(long).to_bytes(2, "big") + long)
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server, forwarder(server.sockets[0].getsockname()) as address:
        reader, writer = await asyncio.open_connection(*address)
        writer.write(len(QUERY).to_bytes(2, "big") + QUERY)
        assert await asyncio.wait_for(reader.read(), 5) == len(long).to_bytes(2, "big") + long
        writer.close()


def test_only_addresses_of_resolv_conf_are_believed(tmp_path: Path) -> None:
    file = tmp_path / "resolv.conf"
    file.write_text("# x\nnameserver 192.0.2.1\nnameserver evil.example\nsearch a\n")
    with file.open("a") as more:
        more.write("nameserver 2001:db8::1\nnameserver\n")
    assert host_servers(file) == [("192.0.2.1", 53), ("2001:db8::1", 53)]
    assert host_servers(tmp_path / "none") == []
