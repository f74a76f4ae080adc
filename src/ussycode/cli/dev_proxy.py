"""`ussycode dev-proxy`: stands in for the edge in front of an app that is being written, with one person signed in."""
from __future__ import annotations

import argparse
import asyncio
import hashlib
from base64 import b32encode, urlsafe_b64encode
from contextlib import suppress
from urllib.parse import parse_qs

import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from ussycode.access.facts import NOBODY, Caller, Role, Via
from ussycode.base import ids
from ussycode.base.clock import Clock, SystemClock
from ussycode.base.errors import ErrorCode, Kind
from ussycode.config import Config
from ussycode.doors.edge.assertions import Assertions
from ussycode.doors.edge.facts import Judgement, Outcome
from ussycode.doors.edge.fields import CHUNKED, Refused, trailer_allowed
from ussycode.doors.edge.framing import ByChunks, ByLength, Framing, Malformed, UntilClose
from ussycode.doors.edge.head import MAX_HEAD, Request, outgoing, parse
from ussycode.doors.edge.local import is_special
from ussycode.doors.edge.pages import Local
from ussycode.doors.edge.response import parse as read_response
from ussycode.doors.edge.verdicts import identity
from ussycode.doors.web.asked import local_path
from ussycode.identity.emails import read_address
from ussycode.wire.edge import EdgeSigner

HOST = "localhost"
HEAD_SECONDS = 10.0
"""Time for a request head."""
CHUNK = 256 * 1024
"""Bytes copied at a time."""
PORT_TAKEN = ErrorCode("dev_proxy.port", Kind.CONFLICT, "port {port} cannot be had: {why}", hint="name another: --on 0")
_FACTS = (
    b"X-Forwarded-For: 127.0.0.1\r\nX-Forwarded-Host: %b\r\nX-Forwarded-Proto: http\r\nX-Request-Id: %b\r\n%b%b\r\n"
)


def dev_proxy(config: Config, asked: argparse.Namespace) -> int:
    """Serve until Ctrl-C. Raises PORT_TAKEN."""
    asyncio.run(_serve(read_address(asked.user), asked.port, asked.on))
    return 0


async def _serve(email: str, app_port: int, port: int) -> None:
    proxy = DevProxy(email, app_port, SystemClock())
    try:
        server = await proxy.listen(port)
    except OSError as why:
        raise PORT_TAKEN(port=port, why=why.strerror or why) from None
    print(f"{proxy.address} shows port {app_port} with {email} signed in; Ctrl-C ends it", flush=True)
    async with server:
        await server.serve_forever()


class DevProxy:
    """One person, signed in or out, in front of one app. One request on each connection."""

    def __init__(self, email: str, app_port: int, clock: Clock) -> None:
        name = b32encode(hashlib.sha256(email.encode()).digest()[:10]).decode().lower()
        self._person = Caller(f"user_{name}", email, Role.CITIZEN, Via.SESSION, email=email)
        self._caller = self._person
        self._app_port = app_port
        self._clock = clock
        self._key = Ed25519PrivateKey.generate()

    async def listen(self, port: int) -> asyncio.Server:
        """Begin, on any free port for 0. Raises OSError."""
        server = await asyncio.start_server(self._connected, "127.0.0.1", port, limit=MAX_HEAD + 4)
        self.address = f"http://{HOST}:{server.sockets[0].getsockname()[1]}"
        self._assertions = Assertions(self.address)
        self._assertions.take([EdgeSigner("dev", self._key.private_bytes_raw(), 0)])
        return server

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError, EOFError, TimeoutError, asyncio.LimitOverrunError, Malformed):
            head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), HEAD_SECONDS)
            try:
                request = parse(head[:-4])
            except Refused as refused:
                _say(writer, Local(refused.status, "malformed", refused.sentence))
            else:
                await self._answer(request, reader, writer)
            await writer.drain()
        writer.close()

    async def _answer(self, request: Request, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if request.path == b"/.well-known/jwks.json":
            writer.write(_json(self._keys()))
        elif is_special(request.target):
            _say(writer, self._special(request))
        else:
            await self._proxy(request, reader, writer)

    def _special(self, request: Request) -> Local:
        what = request.path.rpartition(b"/")[2]
        if what == b"login":
            self._caller = self._person
            query = parse_qs(request.target.partition(b"?")[2].decode("ascii"))
            return Local(302, "", "signed in", location=local_path(query.get("redirect", ["/"])[0]).encode())
        if what == b"logout" and request.method == b"POST":
            self._caller = NOBODY
            return Local(200, "", "signed out")
        return Local(404, "", "there is nothing at this address")

    def _keys(self) -> bytes:
        public = urlsafe_b64encode(self._key.public_key().public_bytes_raw()).rstrip(b"=").decode()
        key = {"kty": "OKP", "crv": "Ed25519", "alg": "EdDSA", "use": "sig", "kid": "dev", "x": public}
        return msgspec.json.encode({"keys": [key]})

    def _facts(self, request: Request) -> bytes:
        lines = b""
        if self._caller.known:
            lines = identity(Judgement(Outcome.PROXY, "dev", self._caller))
            lines += self._assertions.line(self._caller, HOST, self._clock.now())[0]
        end = b"" if request.upgrade is not None else b"Connection: close\r\n"
        return _FACTS % (request.host, ids.request_id().encode(), lines, end)

    async def _proxy(self, request: Request, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            app_reader, app_writer = await asyncio.open_connection("127.0.0.1", self._app_port)
        except OSError:
            _say(writer, Local(502, "", f"nothing listens on port {self._app_port}", "start the app"))
            return
        app_writer.write(outgoing(request, self._facts(request), for_platform=False))
        sending = asyncio.create_task(_send(request, reader, app_writer))
        try:
            await _receive(request, app_reader, writer)
        finally:
            sending.cancel()
            await asyncio.gather(sending, return_exceptions=True)
            app_writer.close()


async def _send(request: Request, reader: asyncio.StreamReader, app: asyncio.StreamWriter) -> None:
    """The request's body and nothing after it: a second request would carry whatever headers it likes."""
    framing: Framing | None = None
    if request.has_body:
        framing = ByChunks(trailer_allowed) if request.length == CHUNKED else ByLength(request.length or 0)
    while (framing is not None and not framing.done) or request.upgrade is not None:
        data = await reader.read(CHUNK)
        if not data:
            break
        app.write(framing.feed(data)[0] if framing is not None else data)
        await app.drain()


async def _receive(request: Request, app: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """The response, which ends the connection: also that of an app which would keep it."""
    status = 100
    while status in (100, 102, 103):
        response = read_response((await app.readuntil(b"\r\n\r\n"))[:-4], False)
        status = response.status
        writer.write(response.outgoing(b"", close=status >= 200))
    framing = UntilClose() if status == 101 else response.framing(request.method == b"HEAD")
    while not framing.done and (data := await app.read(CHUNK)):
        writer.write(framing.feed(data)[0])
        await writer.drain()


def _say(writer: asyncio.StreamWriter, local: Local) -> None:
    writer.write(local.render(page=False, extra=b"", close=True, to_head=False))


def _json(body: bytes) -> bytes:
    kind = b"Content-Type: application/json\r\nCache-Control: no-store\r\nConnection: close\r\n"
    return b"HTTP/1.1 200 OK\r\n%bContent-Length: %d\r\n\r\n%b" % (kind, len(body), body)
