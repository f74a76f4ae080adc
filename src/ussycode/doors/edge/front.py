"""Connections from the TLS terminator in front: it alone is believed about who asks, and over what."""
from __future__ import annotations

import asyncio
import functools
import ipaddress
import re

from ussycode.doors.edge.alternate import require_named
from ussycode.doors.edge.fields import Refused
from ussycode.doors.edge.head import Request
from ussycode.doors.edge.hosts import FIRST_PORT, LAST_PORT
from ussycode.doors.edge.redirect import to_https
from ussycode.doors.edge.visitor import VisitorConnection

NOT_TOLD = "the proxy in front of the platform does not say who asks"
"""One sentence for every mistake of the terminator's configuration; details would only help a client."""
KEPT = 8192
"""Addresses whose reading is remembered."""
_TOLD = re.compile(rb"\r\nx-forwarded-(for|proto|port):[ \t]*([^\r\n]*)", re.IGNORECASE).findall
_PORT = re.compile(rb"[1-9][0-9]{0,4}").fullmatch


class FrontConnection(VisitorConnection):
    """One connection of the terminator, which carries requests of any visitor.

    Each request must tell its visitor's address, scheme and port exactly once, as one value. A terminator that
    appends to what its client sent would show two: that is refused, because one of them is anybody's invention.
    """

    __slots__ = ("_secure",)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Nothing is known of a visitor before the first head."""
        self._secure = False
        super().connection_made(transport)

    def _read(self, head: bytes) -> Request:
        request = super()._read(head)
        try:
            self._address, self._secure, port = told(head)
        except Refused:
            self._edge.counters.add("front_not_told")
            raise
        self._payer = self._edge.limits.of_requests(self._address, self._edge.deadlines.now)
        self._listener = port if FIRST_PORT <= port <= LAST_PORT and port != self._edge.settings.public_port else 0
        if self._listener and self._secure:
            require_named(request, self._listener)
        return request

    def _decide(self, request: Request) -> None:
        if self._secure:
            super()._decide(request)
        else:
            self._reply(to_https(self._edge, request))


def told(head: bytes) -> tuple[bytes, bool, int]:
    """The visitor's address, whether over TLS, and the port, from a head that was read already. Raises Refused."""
    found = _TOLD(head)
    if len(found) != 3:
        raise Refused(400, NOT_TOLD)
    values = {name.lower(): value.strip(b" \t") for name, value in found}
    address, scheme = _address(values.get(b"for", b"")), values.get(b"proto", b"")
    port = values.get(b"port", b"")
    if not address or scheme not in (b"http", b"https") or not _PORT(port):
        raise Refused(400, NOT_TOLD)
    return address, scheme == b"https", int(port)


@functools.lru_cache(KEPT)
def _address(text: bytes) -> bytes:
    """One address in its shortest form, IPv4 also where it came inside IPv6; empty for anything else."""
    try:
        found = ipaddress.ip_address(text.decode("ascii").partition("%")[0])
    except ValueError:
        return b""
    mapped = found.ipv4_mapped if isinstance(found, ipaddress.IPv6Address) else None
    return str(mapped or found).encode()
