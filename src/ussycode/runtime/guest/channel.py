"""The control channel: requests to a guest's agent over its virtio-serial port."""
from __future__ import annotations

import asyncio
import os
import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ussycode.base.clock import Clock
from ussycode.base.errors import Failure
from ussycode.runtime.guest import errors, protocol
from ussycode.runtime.guest.identity import SEED_BYTES, Identity
from ussycode.runtime.guest.protocol import ControlDecoder, Frame, Kind, Pairs

REQUEST_SECONDS = 10.0
"""Time for one answer, unless the caller says otherwise."""
READ_SIZE = 64 * 1024
"""Bytes taken from the socket at once."""
MAX_UNASKED = 64
"""Frames nobody asked for that one connection may carry; a guest that sends more is hung up on."""
FIRST_RETRY, LAST_RETRY = 0.02, 1.0
"""Seconds between attempts to connect: doubled from the first to the last."""
SHOWN_SECONDS = 2.0
"""Time for an answer that is shown beside others, and left out when it does not come."""
MAX_DIGITS = 18
"""Digits of a number that is believed: what follows goes into 64 bits, with room to calculate."""
MAX_PORTS = 1024
"""Listening ports that are believed."""


@dataclass(frozen=True)
class Hello:
    """The agent's first word after each connection."""

    version: int
    build: str
    uptime_ms: int
    configured: bool


@dataclass(frozen=True)
class Stats:
    """What a guest says of itself. Bytes, seconds; a hostile guest may say anything."""

    memory_total: int
    memory_available: int
    load: tuple[float, float, float]
    disk_total: int
    disk_free: int
    uptime: float


@dataclass(frozen=True)
class Port:
    """A listening TCP port and the address it is bound to."""

    port: int
    address: str


def ignore(hello: Hello) -> None:
    """An `on_hello` that does nothing."""


@dataclass
class ControlChannel:
    """Keeps a connection to the agent's unix socket. `start` it, use it, `close` it."""

    path: Path
    clock: Clock
    on_hello: Callable[[Hello], None] = ignore
    _hello: asyncio.Future[Hello] = field(init=False)
    _writer: asyncio.StreamWriter | None = None
    _waiting: dict[str, asyncio.Future[Frame]] = field(default_factory=dict)
    _task: asyncio.Task[None] | None = None
    _number: int = 0
    _unasked: int = 0

    async def listening(self) -> Sequence[Port] | None:
        """The same for somebody who waits, and may do without."""
        try:
            return await self.ports(timeout=SHOWN_SECONDS)
        except Failure:
            return None

    def start(self) -> None:
        """Begin to connect, and to reconnect for ever. Call it in a running loop, once."""
        self._hello = asyncio.get_running_loop().create_future()
        self._task = asyncio.create_task(self._keep_connected())

    async def close(self) -> None:
        """Stop; requests under way fail with GONE. Idempotent."""
        if self._task is None:
            return
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        self._task = None
        self._hello.cancel()

    async def ready(self, timeout: float = 60.0) -> Hello:
        """The agent's hello of the present connection. Raises TIMEOUT after `timeout` seconds."""
        try:
            async with asyncio.timeout(timeout):
                while True:
                    waited = self._hello
                    await asyncio.wait((waited,))
                    if waited is self._hello:
                        return waited.result()
        except TimeoutError:
            raise errors.TIMEOUT() from None

    async def configure(self, identity: Identity, *, timeout: float = 30.0) -> None:
        """Give the guest its identity, the time and fresh randomness. Idempotent. Raises BAD_REQUEST, TIMEOUT."""
        now = self.clock.now()
        await self.request("configure", identity.pairs(now, os.urandom(SEED_BYTES)), timeout=timeout)

    async def set_authorized_keys(self, keys: Sequence[str]) -> None:
        """Replace the keys that the guest's own sshd accepts."""
        await self.request("authorized_keys", tuple(("authorized_key", key) for key in keys))

    async def ping(self, *, timeout: float = REQUEST_SECONDS) -> None:
        """Raises TIMEOUT or GONE when the agent does not answer."""
        await self.request("ping", timeout=timeout)

    async def sync(self) -> None:
        """Write the guest's caches to its disk."""
        await self.request("sync", timeout=60)

    async def freeze(self) -> None:
        """Write the caches and hold the root file system still; the guest thaws it by itself after 5 seconds."""
        await self.request("freeze")

    async def thaw(self) -> None:
        """Let the root file system go on. Idempotent."""
        await self.request("thaw")

    async def settle(self) -> None:
        """Let the image's init start without an identity, for a template. Raises when the image is not made for it."""
        await self.request("settle")

    async def settled(self) -> bool:
        """Whether everything has started since `settle`. Raises when something did not come up."""
        word = (await self.request("settled")).get("state", "")
        if word not in ("settling", "settled"):
            raise errors.PROTOCOL(why=f"its image does not settle: {word[:40]}")
        return word == "settled"

    async def stats(self) -> Stats:
        """Memory, load, disk and uptime."""
        return _stats(await self.request("stats"))

    async def ports(self, *, timeout: float = REQUEST_SECONDS) -> Sequence[Port]:
        """Listening TCP ports, lowest first."""
        frame = await self._ask("ports", (), timeout)
        said = [value for key, value in frame.pairs if key == "port"][:MAX_PORTS]
        return sorted(filter(None, map(_port, said)), key=lambda p: (p.port, p.address))

    async def shutdown(self, *, grace: int = 8) -> None:
        """Ask the guest to power off; it pulls its own plug after `grace` seconds (1..120)."""
        await self.request("shutdown", (("grace", str(grace)),))

    async def request(self, verb: str, pairs: Pairs = (), *, timeout: float = REQUEST_SECONDS) -> Mapping[str, str]:
        """One request, its reply's fields. Raises TIMEOUT, GONE, PROTOCOL or what the agent declares."""
        return (await self._ask(verb, pairs, timeout)).fields

    async def _ask(self, verb: str, pairs: Pairs, timeout: float) -> Frame:
        if self._writer is None:
            raise errors.GONE()
        self._number += 1
        number = str(self._number)
        data = protocol.encode_frame(Kind.REQUEST, (("verb", verb), ("id", number), *pairs))
        answer: asyncio.Future[Frame] = asyncio.get_running_loop().create_future()
        self._waiting[number] = answer
        try:
            async with asyncio.timeout(timeout):
                self._writer.write(data)
                await self._writer.drain()
                frame = await answer
        except TimeoutError:
            raise errors.TIMEOUT() from None
        except ConnectionError as why:
            raise errors.GONE().because(why) from None
        finally:
            self._waiting.pop(number, None)
        if frame.kind == Kind.ERR:
            raise errors.from_wire(frame.fields)
        return frame

    async def _keep_connected(self) -> None:
        pause = FIRST_RETRY
        while True:
            try:
                await self._converse()
                pause = FIRST_RETRY
            except (OSError, Failure):
                pause = min(LAST_RETRY, pause * 2)
            await asyncio.sleep(pause)

    async def _converse(self) -> None:
        """One connection from connect to end. Returns when the peer closed it after its hello."""
        reader, writer = await asyncio.open_unix_connection(str(self.path), limit=READ_SIZE)
        decoder = ControlDecoder(secrets.token_hex(protocol.NONCE_CHARS // 2).encode())
        try:
            writer.write(protocol.SYNC + decoder.nonce)
            while data := await reader.read(READ_SIZE):
                for frame in decoder.feed(data):
                    self._take(frame, writer)
            if not self._hello.done():
                raise errors.GONE()
        finally:
            self._hang_up(writer)

    def _take(self, frame: Frame, writer: asyncio.StreamWriter) -> None:
        if frame.kind == Kind.HELLO and not self._hello.done():
            self._welcome(_hello(frame), writer)
            return
        answer = self._waiting.pop(frame.fields.get("id", ""), None)
        if answer is not None and frame.kind in (Kind.OK, Kind.ERR):
            answer.set_result(frame)
            return
        self._unasked += 1
        if self._unasked > MAX_UNASKED:
            raise errors.PROTOCOL(why="too many frames that nobody asked for")

    def _welcome(self, hello: Hello, writer: asyncio.StreamWriter) -> None:
        self._writer = writer
        self._unasked = 0
        self._hello.set_result(hello)
        self.on_hello(hello)

    def _hang_up(self, writer: asyncio.StreamWriter) -> None:
        writer.transport.abort()
        self._writer = None
        if self._hello.done():
            self._hello = asyncio.get_running_loop().create_future()
        for answer in self._waiting.values():
            if not answer.done():
                answer.set_exception(ConnectionResetError("the control channel closed"))


def _hello(frame: Frame) -> Hello:
    fields = frame.fields
    version = _int(fields, "version")
    if version != protocol.VERSION:
        raise errors.PROTOCOL(why=f"it speaks version {version}, not {protocol.VERSION}")
    return Hello(version, fields.get("build", "")[:64], _int(fields, "uptime_ms"), fields.get("configured") == "1")


def _stats(fields: Mapping[str, str]) -> Stats:
    loads = fields.get("load", "").split(" ")
    if len(loads) != 3:
        raise errors.PROTOCOL(why="no load")
    one, five, fifteen = (_decimal(text) for text in loads)
    return Stats(
        memory_total=_int(fields, "memory_total"), memory_available=_int(fields, "memory_available"),
        load=(one, five, fifteen), disk_total=_int(fields, "disk_total"), disk_free=_int(fields, "disk_free"),
        uptime=_int(fields, "uptime_ms") / 1000,
    )


def _port(text: str) -> Port | None:
    number, _, address = text.partition(" ")
    if not (number.isascii() and number.isdecimal() and len(number) <= 5 and 0 < int(number) < 65536):
        return None
    return Port(int(number), address[:64])


def _int(fields: Mapping[str, str], key: str) -> int:
    text = fields.get(key, "")
    if not (text.isascii() and text.isdecimal() and len(text) <= MAX_DIGITS):
        raise errors.PROTOCOL(why=f"{key} is no number")
    return int(text)


def _decimal(text: str) -> float:
    if not (len(text) <= 20 and text.isascii() and text.replace(".", "", 1).isdecimal()):
        raise errors.PROTOCOL(why="a load is no number")
    return float(text)
