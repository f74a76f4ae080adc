"""A real edge process with everything around it standing in: control, its feed, guest agents and apps."""
from __future__ import annotations

import asyncio
import hashlib
import json
import os
import secrets
import signal
import socket
import ssl
import struct
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from ussycode.base.clock import SystemClock
from ussycode.base.pki import Authority
from ussycode.doors.edge.settings import EdgeSettings, write
from ussycode.runtime.guest.protocol import REPLY_HEAD, decode_pairs, encode_pairs
from ussycode.wire.edge import (
    Ack,
    Change,
    CheckToken,
    Down,
    EdgeDomain,
    EdgeSession,
    EdgeSigner,
    EdgeToken,
    EdgeUser,
    EdgeVm,
    Question,
    Snapshot,
    Up,
    Visitor,
    Visitors,
    Wake,
    Woken,
)

DOMAIN = "localhost"
FAR = 4_000_000_000.0
ALICE = EdgeUser("usr_alice", "alice", "citizen", "alice@example.org")
BOB = EdgeUser("usr_bob", "bob", "citizen")
Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


def vm(name: str, owner: EdgeUser = ALICE, **over: object) -> EdgeVm:
    """A running VM of `owner` at 127.0.0.1 whose app is on port 8000."""
    facts: dict[str, object] = {
        "vm": f"vm_{name}", "name": name, "owner": owner.user, "phase": "running", "address": "127.0.0.1",
        "secret": hashlib.sha256(name.encode()).hexdigest(), "primary_port": 8000,
    }
    return msgspec.convert(facts | over, EdgeVm)


def cookie(user: EdgeUser, host: str) -> tuple[str, EdgeSession]:
    """A fresh session of `user` on `host`: the cookie's value, and what control tells the edge."""
    value = secrets.token_urlsafe(32)
    return value, EdgeSession(hashlib.sha256(value.encode()).hexdigest(), user.user, host, FAR)


class Feed:
    """Control's end of the feed."""

    def __init__(self) -> None:
        self.seq = 7
        self.vms: dict[str, EdgeVm] = {}
        self.users = {u.user: u for u in (ALICE, BOB)}
        self.sessions: dict[str, EdgeSession] = {}
        self.signers: list[EdgeSigner] = []
        self.domains: dict[str, EdgeDomain] = {}
        self.connections = 0
        self.tokens: dict[tuple[str, str], EdgeToken] = {}
        self.asked: list[str] = []
        self.visitors: list[Visitor] = []
        """What the edge told of visitors."""
        self.wakes = vm("none")
        self._before: list[asyncio.StreamWriter] = []
        self._acked = asyncio.Condition()
        self._last_ack = -1
        self._writer: asyncio.StreamWriter | None = None

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One edge: the snapshot, then whatever `change` sends; collects acknowledgements."""
        self.connections += 1
        if self._writer is not None:
            self._before.append(self._writer)
        self._writer = writer
        writer.write(_frame(Snapshot(
            self.seq, list(self.vms.values()), list(self.users.values()), list(self.sessions.values()), self.signers,
            list(self.domains.values()),
        )))
        try:
            while True:
                (size,) = struct.unpack(">I", await reader.readexactly(4))
                message = msgspec.msgpack.decode(await reader.readexactly(size), type=Up)
                if isinstance(message, Visitors):
                    self.visitors += message.visitors
                    continue
                if not isinstance(message, Ack):
                    self.answer(message)
                    continue
                async with self._acked:
                    self._last_ack = message.seq
                    self._acked.notify_all()
        except (EOFError, ConnectionError):
            writer.close()

    def answer(self, question: Question) -> None:
        """Say what `tokens` holds of a token; start the machine `wakes`."""
        if isinstance(question, Wake):
            self.asked.append(question.vm)
            self.seq += 1
            change = Change(self.seq, [self.wakes])
            self.remember(change)
            self.send(change)
            self.send(Woken(question.number, True))
            return
        assert isinstance(question, CheckToken)
        self.asked.append(question.token)
        known = self.tokens.get((question.name, question.token), EdgeToken(0, refused="token.unknown", sentence="no"))
        self.send(msgspec.structs.replace(known, number=question.number))

    def send(self, message: Down) -> None:
        """Send one frame to every edge as it is."""
        assert self._writer is not None
        for writer in (*self._before, self._writer):
            if not writer.is_closing():
                writer.write(_frame(message))

    async def change(self, **what: object) -> None:
        """Send a change and wait for its acknowledgement, as control does before a command answers."""
        self.seq += 1
        change = msgspec.convert({"seq": self.seq, **what}, Change, from_attributes=True)
        self.remember(change)
        self.send(change)
        await self.acked(self.seq)

    def remember(self, change: Change) -> None:
        """Keep for the next snapshot."""
        self.vms |= {v.vm: v for v in change.put_vms}
        self.sessions |= {s.digest: s for s in change.put_sessions}
        self.domains |= {d.domain: d for d in change.put_domains}
        for domain in change.drop_domains:
            self.domains.pop(domain, None)
        for gone in change.drop_vms:
            self.vms.pop(gone, None)
        for digest in change.drop_sessions:
            self.sessions.pop(digest, None)

    async def acked(self, seq: int) -> None:
        """Wait until the edge has applied `seq`; ten seconds at most."""
        async with asyncio.timeout(10), self._acked:
            await self._acked.wait_for(lambda: self._last_ack == seq)


@dataclass
class Agents:
    """Guest agents of all VMs on one port: a dial reaches the app that `apps` names by (secret, port)."""

    apps: dict[tuple[str, int], tuple[str, int]] = field(default_factory=dict)
    dials: int = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One dial: hello, reply, bytes both ways."""
        try:
            assert await reader.readexactly(6) == b"USSY1 "
            secret = (await reader.readexactly(64)).decode()
            (size,) = struct.unpack(">I", await reader.readexactly(4))
            wanted = dict(decode_pairs(await reader.readexactly(size)))
            await self._connect(secret, int(wanted["port"]), reader, writer)
        except (EOFError, ConnectionError):
            pass
        finally:
            writer.close()

    async def _connect(
        self, secret: str, port: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter,
    ) -> None:
        self.dials += 1
        app = self.apps.get((secret, port))
        if app is None:
            writer.write(_reply(b"ER", code="refused", message="nothing there"))
            return
        app_reader, app_writer = await asyncio.open_connection(*app, limit=1 << 20)
        writer.write(_reply(b"OK"))
        await asyncio.gather(_copy(reader, app_writer), _copy(app_reader, writer))


def _frame(message: Down) -> bytes:
    body = msgspec.msgpack.encode(message)
    return struct.pack(">I", len(body)) + body


def _reply(word: bytes, **fields: str) -> bytes:
    body = encode_pairs(fields.items())
    reply = word + struct.pack(">I", len(body)) + body
    assert len(reply) == REPLY_HEAD + len(body)
    return reply


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while data := await reader.read(1 << 18):
            writer.write(data)
            await writer.drain()
    except ConnectionError:
        pass
    finally:
        writer.close()


@dataclass
class Seen:
    """One request as an app or control saw it."""

    line: str
    headers: list[tuple[str, str]]
    body: bytes = b""

    def all(self, name: str) -> list[str]:
        """Every value of header `name`, any case."""
        return [value for key, value in self.headers if key.lower() == name.lower()]


class App:
    """An HTTP/1.1 app that says what it saw; `reply` may be replaced by raw bytes."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.seen: list[Seen] = []
        self.raw: bytes | None = None

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Requests of one connection."""
        try:
            while True:
                seen = await read_request(reader, writer)
                self.seen.append(seen)
                if self.raw is not None:
                    writer.write(self.raw)
                    await writer.drain()
                    return
                await self._answer(seen, writer)
        except (EOFError, ConnectionError):
            pass
        finally:
            writer.close()

    async def _answer(self, seen: Seen, writer: asyncio.StreamWriter) -> None:
        path = seen.line.split()[1]
        if path.startswith("/sse"):
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")
            writer.write(b"d\r\ndata: first\n\n\r\n")
        elif path.startswith("/download"):
            await _download(int(path.rpartition("=")[2]), writer)
        else:
            sha = hashlib.sha256(seen.body).hexdigest()
            said = {"app": self.name, "line": seen.line, "headers": seen.headers, "size": len(seen.body), "sha": sha}
            body = json.dumps(said).encode()
            cookies = b"Set-Cookie: __Host-ussycode=stolen; Path=/; Secure\r\nSet-Cookie: app=1\r\n"
            writer.write(b"HTTP/1.1 200 OK\r\n%bContent-Length: %d\r\n\r\n" % (cookies, len(body)))
            writer.write(b"" if seen.line.startswith("HEAD") else body)
        await writer.drain()


async def _download(size: int, writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size)
    block = bytes(range(256)) * 4096
    while size:
        writer.write(block[: min(size, len(block))])
        size -= min(size, len(block))
        await writer.drain()


async def read_request(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> Seen:
    """One request with its whole body."""
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    headers = [(k, v.strip()) for k, _, v in (line.partition(":") for line in head[1:] if line)]
    seen = Seen(head[0], headers)
    if seen.all("expect"):
        writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
    if seen.all("transfer-encoding"):
        seen.body = await _read_chunks(reader, seen)
    elif seen.all("content-length"):
        seen.body = await reader.readexactly(int(seen.all("content-length")[0]))
    return seen


async def _read_chunks(reader: asyncio.StreamReader, seen: Seen) -> bytes:
    parts = []
    while size := int((await reader.readline()).split(b";")[0], 16):
        parts.append(await reader.readexactly(size))
        await reader.readexactly(2)
    while line := (await reader.readline()).strip():
        key, _, value = line.decode().partition(":")
        seen.headers.append((key, value.strip()))
    return b"".join(parts)


@dataclass
class Answer:
    """One response as a client saw it."""

    status: int
    headers: list[tuple[str, str]]
    body: bytes

    def header(self, name: str) -> str:
        """The first value of header `name`; empty when absent."""
        return next((value for key, value in self.headers if key.lower() == name.lower()), "")

    def same(self) -> tuple[object, ...]:
        """Everything but the request's own id."""
        return self.status, [(k, v) for k, v in self.headers if k != "X-Request-Id"], self.body


class Client:
    """One TLS connection to the edge, spoken to in raw bytes."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    async def send(self, data: bytes) -> None:
        """Send bytes as they are."""
        self.writer.write(data)
        await self.writer.drain()

    async def answer(self, to_head: bool = False) -> Answer:
        """The next response, whole; ten seconds at most."""
        async with asyncio.timeout(10):
            head = (await self.reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
            headers = [(k, v.strip()) for k, _, v in (line.partition(":") for line in head[1:] if line)]
            answer = Answer(int(head[0].split()[1]), headers, b"")
            if not to_head and answer.header("content-length"):
                answer.body = await self.reader.readexactly(int(answer.header("content-length")))
        return answer

    async def ended(self) -> bytes:
        """Everything up to the end of the connection; ten seconds at most."""
        async with asyncio.timeout(10):
            try:
                return await self.reader.read(-1)
            except ConnectionError:
                return b""

    def close(self) -> None:
        """Leave."""
        self.writer.close()


@dataclass
class Rig:
    """Everything around one edge process."""

    folder: Path
    port: int
    http_port: int
    feed: Feed
    agents: Agents
    control: App
    tls: ssl.SSLContext
    ca: Path
    log: Path
    stack: AsyncExitStack
    control_server: asyncio.AbstractServer
    feed_server: asyncio.AbstractServer
    process: asyncio.subprocess.Process
    alternate: int
    """A port that listens for the same port of every VM."""
    settings: EdgeSettings
    listeners: tuple[socket.socket, ...]

    async def replace(self, **over: object) -> asyncio.subprocess.Process:
        """Have a new process take over, as the supervisor does; the old one, which has been told so."""
        heard, said = os.pipe()
        os.set_inheritable(said, True)
        settings = msgspec.structs.replace(self.settings, ready_fd=said, **over)
        made = await _start(settings, *self.listeners, inherited=(said,))
        self.stack.push_async_callback(_end, made)
        async with asyncio.timeout(20):
            assert await asyncio.to_thread(os.read, heard, 1) == b"1"
        os.close(heard)
        old, self.process = self.process, made
        old.send_signal(signal.SIGUSR1)
        return old

    async def app(self, machine: EdgeVm, port: int = 8000, serve: Serve | None = None) -> App:
        """Start an app in `machine` and let the edge know the machine."""
        app = App(machine.name)
        server = await asyncio.start_server(serve or app.serve, "127.0.0.1", 0, limit=1 << 20)
        self.stack.callback(server.close)
        self.agents.apps[machine.secret, port] = server.sockets[0].getsockname()[:2]
        await self.feed.change(put_vms=[machine])
        return app

    async def sign_in(self, user: EdgeUser, host: str) -> str:
        """A session's cookie value, known to the edge."""
        value, session = cookie(user, host)
        await self.feed.change(put_sessions=[session])
        return value

    async def connect(self, host: str = "demo.localhost") -> Client:
        """A TLS connection that names `host`."""
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", self.port, ssl=self.tls, server_hostname=host, limit=1 << 20,
        )
        return Client(reader, writer)

    async def get(
        self, host: str, path: str = "/", session: str = "", headers: str = "", method: str = "GET",
    ) -> Answer:
        """One request on a connection of its own."""
        client = await self.connect(host if host.count(".") == 1 and host.endswith(f".{DOMAIN}") else DOMAIN)
        cookies = f"Cookie: __Host-ussycode={session}\r\n" if session else ""
        await client.send(f"{method} {path} HTTP/1.1\r\nHost: {host}:{self.port}\r\n{cookies}{headers}\r\n".encode())
        answer = await client.answer(to_head=method == "HEAD")
        client.close()
        return answer

    async def curl(self, *arguments: str) -> tuple[int, str]:
        """Real curl, trusting only the local CA: exit code and output."""
        process = await asyncio.create_subprocess_exec(
            "curl", "-sS", "--max-time", "60", "--cacert", str(self.ca), *arguments,
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
        )
        out, _ = await process.communicate()
        assert process.returncode is not None
        return process.returncode, out.decode(errors="replace")

    async def stop_control(self) -> None:
        """Control dies: feed and web server are gone."""
        self.control_server.close()
        self.feed_server.close()
        if self.feed._writer is not None:
            self.feed._writer.transport.abort()
        for path in ("control.sock", "feed.sock"):
            (self.folder / path).unlink(missing_ok=True)

    async def start_feed(self) -> None:
        """Control's feed is there again; returns once the edge has its snapshot."""
        self.feed._last_ack = -1
        self.feed_server = await asyncio.start_unix_server(self.feed.serve, self.folder / "feed.sock")
        self.stack.callback(self.feed_server.close)
        await self.feed.acked(self.feed.seq)

    def logged(self) -> list[dict[str, object]]:
        """The access log's lines."""
        return [json.loads(line) for line in self.log.read_text().splitlines()]


@asynccontextmanager
async def running_edge(folder: Path, **over: object) -> AsyncIterator[Rig]:
    """A Rig whose edge has its first snapshot."""
    clock = SystemClock()
    authority = Authority.make(clock)
    signer = authority.intermediate(DOMAIN)
    ca = folder / "root.pem"
    ca.write_bytes(authority.root_pem)
    feed, agents, control = Feed(), Agents(), App("control")
    async with AsyncExitStack() as stack:
        control_server = await asyncio.start_unix_server(control.serve, folder / "control.sock", limit=1 << 20)
        feed_server = await asyncio.start_unix_server(feed.serve, folder / "feed.sock")
        agent_server = await asyncio.start_server(agents.serve, "127.0.0.1", 0, limit=1 << 20)
        for server in (control_server, feed_server, agent_server):
            stack.callback(server.close)
        https, http, front = _listener(), _listener(), _front(folder / "front.sock")
        port, http_port = https.getsockname()[1], http.getsockname()[1]
        other = _alternate()
        alternate = other.getsockname()[1]
        settings = EdgeSettings(**{
            "domain": DOMAIN, "https_fds": [https.fileno()], "http_fds": [http.fileno()],
            "front_fds": [front.fileno()],
            "alternate_fds": [(other.fileno(), other.getsockname()[1])],
            "control_socket": str(folder / "control.sock"), "feed_socket": str(folder / "feed.sock"),
            "operator_socket": str(folder / "edge.sock"), "ca_certificate": signer.certificate.decode(),
            "ca_key": signer.key.decode(), "log_path": str(folder / "access.log"),
            "public_port": port, "agent_port": agent_server.sockets[0].getsockname()[1], **over,
        })
        process = await _start(settings, https, http, front, other)
        stack.push_async_callback(_end, process)
        rig = Rig(
            folder, port, http_port, feed, agents, control,
            ssl.create_default_context(cafile=str(ca)), ca, folder / "access.log", stack, control_server, feed_server,
            process, alternate, settings, (https, http, front, other),
        )
        for listener in rig.listeners:
            stack.callback(listener.close)
        await feed.acked(feed.seq)
        yield rig


def _listener() -> socket.socket:
    listener = socket.create_server(("127.0.0.1", 0), backlog=512)
    listener.set_inheritable(True)
    return listener


def _alternate() -> socket.socket:
    """A listener in the range that VMs' ports have."""
    for port in range(3500, 9900):
        with suppress(OSError):
            listener = socket.create_server(("127.0.0.1", port), backlog=512)
            listener.set_inheritable(True)
            return listener
    raise AssertionError("every port is taken")


def _front(path: Path) -> socket.socket:
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    listener.listen(512)
    listener.set_inheritable(True)
    return listener


async def _start(
    settings: EdgeSettings, *listeners: socket.socket, inherited: tuple[int, ...] = (),
) -> asyncio.subprocess.Process:
    fd = write(settings)
    program = (
        "import sys; from ussycode.doors.edge import process, settings;"
        "sys.exit(process.main(settings.read(int(sys.argv[1]))))"
    )
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", program, str(fd), pass_fds=(fd, *inherited, *(s.fileno() for s in listeners)),
    )
    for opened in (fd, *inherited):
        os.close(opened)
    return process


async def _end(process: asyncio.subprocess.Process) -> None:
    if process.returncode is None:
        process.terminate()
        try:
            await asyncio.wait_for(process.wait(), 10)
        except TimeoutError:
            process.kill()
            raise
