"""Our own small zone of DNS, `acme.DOMAIN`: it holds what certificate authorities ask for, and nothing else.

The operator leads it here once (`acme.DOMAIN NS DOMAIN`); owners of wildcards lead `_acme-challenge.NAME` into it.
Every answer is authoritative and small, so that the server cannot be used to flood anybody.
"""
from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import cast

import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.opcode
import dns.rcode
import dns.rdataclass
import dns.rdatatype
import dns.rrset

MAX_QUERY = 1232
"""Bytes of a question, and of an answer over UDP; the size that passes every network (DNS flag day 2020)."""
MAX_TCP = 64
"""TCP connections at once; further ones are closed."""
TCP_SECONDS = 5.0
"""Time of a whole TCP connection."""
TTL = 1
"""Seconds that answers may be kept: a challenge lives for moments, and the next one has the same name."""
NEGATIVE_TTL = 1


@dataclass
class Zone:
    """The zone's content: texts by name, each there while somebody holds it."""

    origin: dns.name.Name
    server: dns.name.Name
    _texts: dict[dns.name.Name, list[str]] = field(default_factory=dict)

    @classmethod
    def of(cls, origin: str, server: str) -> Zone:
        """The zone `origin`, whose name server is `server`."""
        return cls(dns.name.from_text(origin), dns.name.from_text(server))

    @contextmanager
    def holding(self, name: str, *texts: str) -> Iterator[None]:
        """Texts at a name of the zone for as long as the block runs; several holders do not disturb each other."""
        key = dns.name.from_text(name)
        kept = self._texts.setdefault(key, [])
        kept.extend(texts)
        try:
            yield
        finally:
            for text in texts:
                kept.remove(text)
            if not kept and self._texts.get(key) is kept:
                del self._texts[key]

    def answer(self, wire: bytes, over_udp: bool = False) -> bytes | None:
        """The answer to one question; None for what deserves none."""
        try:
            query = dns.message.from_wire(wire, ignore_trailing=True)
        except dns.exception.DNSException:
            return None
        if query.flags & dns.flags.QR:
            return None
        reply = dns.message.make_response(query, our_payload=MAX_QUERY)
        reply.set_rcode(self._fill(query, reply))
        if over_udp:
            # A client that announced no size can take 512 bytes (RFC 1035); what is cut is asked again over TCP.
            return reply.to_wire(max_size=min(MAX_QUERY, max(512, query.payload)), prefer_truncation=True)
        return reply.to_wire()

    def _fill(self, query: dns.message.Message, reply: dns.message.Message) -> dns.rcode.Rcode:
        if query.opcode() is not dns.opcode.QUERY or len(query.question) != 1:
            return dns.rcode.NOTIMP
        asked = query.question[0]
        if asked.rdclass is not dns.rdataclass.IN or not asked.name.is_subdomain(self.origin):
            return dns.rcode.REFUSED
        reply.flags |= dns.flags.AA
        reply.answer = self._records(asked.name, asked.rdtype)
        if not reply.answer:
            reply.authority = [self._soa(self.origin, NEGATIVE_TTL)]
        known = asked.name == self.origin or asked.name in self._texts
        return dns.rcode.NOERROR if known else dns.rcode.NXDOMAIN

    def _records(self, name: dns.name.Name, kind: dns.rdatatype.RdataType) -> list[dns.rrset.RRset]:
        if name == self.origin and kind is dns.rdatatype.SOA:
            return [self._soa(name, TTL)]
        if name == self.origin and kind is dns.rdatatype.NS:
            return [dns.rrset.from_text(name, TTL, "IN", "NS", self.server.to_text())]
        texts = self._texts.get(name)  # another thread may end its hold between two looks
        if texts and kind is dns.rdatatype.TXT:
            return [dns.rrset.from_text(name, TTL, "IN", "TXT", *(f'"{text}"' for text in set(texts)))]
        return []

    def _soa(self, name: dns.name.Name, ttl: int) -> dns.rrset.RRset:
        numbers = f"1 3600 600 86400 {NEGATIVE_TTL}"
        return dns.rrset.from_text(
            name, ttl, "IN", "SOA", f"{self.server.to_text()} hostmaster.{self.server.to_text()} {numbers}")


@dataclass
class ZoneServer:
    """Serves a zone on bound sockets, over UDP and TCP."""

    zone: Zone
    udp: list[socket.socket]
    tcp: list[socket.socket]
    _connections: int = 0

    async def run(self) -> None:
        """Serve until cancelled; the sockets are closed then."""
        loop = asyncio.get_running_loop()
        servers = [await asyncio.start_server(self._connected, sock=sock) for sock in self.tcp]
        ends = [
            await loop.create_datagram_endpoint(lambda: _Datagrams(self.zone), sock=sock) for sock in self.udp
        ]
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            for server in servers:
                server.close()
            for transport, _ in ends:
                transport.close()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._connections >= MAX_TCP:
            writer.transport.abort()
            return
        self._connections += 1
        try:
            async with asyncio.timeout(TCP_SECONDS):
                while (answer := self.zone.answer(await _read_sized(reader))) is not None:
                    writer.write(len(answer).to_bytes(2, "big") + answer)
                    await writer.drain()
        except (OSError, TimeoutError, asyncio.IncompleteReadError):
            pass  # a client that went away, or took too long
        finally:
            self._connections -= 1
            writer.close()


class _Datagrams(asyncio.DatagramProtocol):
    def __init__(self, zone: Zone) -> None:
        self._zone = zone

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Answers go out by it."""
        self._transport = cast(asyncio.DatagramTransport, transport)  # asyncio's own is no subclass of it

    def datagram_received(self, data: bytes, address: tuple[str, int]) -> None:
        """One question; the answer is made at once, so that nothing queues."""
        answer = self._zone.answer(data, over_udp=True) if len(data) <= MAX_QUERY else None
        if answer is not None:
            with suppress(OSError):
                self._transport.sendto(answer, address)


async def _read_sized(reader: asyncio.StreamReader) -> bytes:
    return await reader.readexactly(int.from_bytes(await reader.readexactly(2), "big"))
