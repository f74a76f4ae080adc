"""A whole platform on loopback: control with its SSH and web doors, the real feed, and a real edge process over TLS.

VMs are fake. Their shells are the real guest program on this machine, their ports are apps that say who asks.
"""
from __future__ import annotations

import asyncio
import json
import os
import socket
import ssl
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.contract import edge_rig
from tests.contract.edge_rig import Agents, Answer, Client
from tests.name_server import NameServer
from tests.product.signing import Signer
from tests.product.ssh_world import Person, SshWorld, ssh_world
from tests.product.web_world import listening
from ussycode.access.facts import Caller
from ussycode.base.clock import SystemClock
from ussycode.base.pki import Authority, Issuer
from ussycode.domains import certificates
from ussycode.doors.edge.settings import EdgeSettings
from ussycode.doors.edgefeed.answers import Answers
from ussycode.doors.edgefeed.server import FeedServer
from ussycode.doors.web.app import serve_web
from ussycode.identity import links
from ussycode.identity import ops as identity
from ussycode.ports import App
from ussycode.tokens.verify import TokenVerifier
from ussycode.vms import store as vms

DOMAIN = "localhost"
ADDRESSES = tuple(f"127.192.0.{number}" for number in range(2, 10))
"""Where the fake driver puts the first VMs."""


@dataclass
class Whole:
    """Everything, and who lives in it."""

    place: SshWorld
    app: App
    port: int
    agents: Agents
    log: Path
    alternate: tuple[int, ...]
    """Ports that listen for the same port of every VM."""
    ids: dict[str, str] = field(default_factory=dict)
    """Handles by user id."""

    async def member(self, name: str) -> Person:
        """Somebody with an account and an SSH key."""
        person = await self.place.member(name)
        self.ids[(await self.caller(person)).user] = name
        return person

    async def caller(self, person: Person) -> Caller:
        """Somebody as the platform knows them."""
        found = await identity.recognise(self.app, person.key.fingerprint)
        assert found is not None
        return found[0]

    async def does(self, person: Person, line: str) -> dict[str, object]:
        """The document of a command that must succeed."""
        return await self.place.base.does(await self.caller(person), line)

    async def serve(self, name: str, *ports: int) -> None:
        """Apps on ports of the VM called `name`."""
        vm = await self.app.db.read(lambda tx: vms.by_name(tx, name))
        assert vm is not None
        for port in ports:
            app = edge_rig.App(f"{name}:{port}")
            server = await asyncio.start_server(app.serve, "127.0.0.1", 0, limit=1 << 20)
            self.agents.apps[vm.secret, port] = server.sockets[0].getsockname()[:2]

    async def cookie(self, person: Person, host: str) -> str:
        """A browser session of theirs on `host`."""
        url = str((await self.does(person, "browser"))["url"])
        base = await links.redeem(self.app, url.rpartition("/")[2], DOMAIN)
        if host == DOMAIN:
            return base.cookie
        found = await identity.session_of(self.app, base.cookie, DOMAIN)
        assert found is not None
        return (await links.redeem(self.app, await links.hand_off(self.app, found[0], host), host)).cookie

    def token(self, person: Person, namespace: str, **payload: object) -> str:
        """A token that they sign with the real ssh-keygen."""
        return Signer(person.home / "key", person.key).token(json.dumps(payload), namespace)

    async def connect(self, host: str, port: int = 0) -> Client:
        """A TLS connection that names `host`, to an alternate port if one is given; who signed its certificate is
        other tests' business."""
        return Client(*await asyncio.open_connection(
            "127.0.0.1", port or self.port, ssl=_TRUSTING, server_hostname=host, limit=1 << 20,
        ))

    async def get(self, host: str, path: str = "/", cookie: str = "", token: str = "", client: Client | None = None,
                  accept: str = "application/json", port: int = 0) -> Answer:
        """One request, on a connection of its own unless `client` is given; `port` is an alternate one."""
        speaking = client or await self.connect(host, port)
        lines = f"Accept: {accept}\r\n" + (f"Cookie: __Host-ussycode={cookie}\r\n" if cookie else "")
        lines += f"Authorization: Bearer {token}\r\n" if token else ""
        await speaking.send(f"GET {path} HTTP/1.1\r\nHost: {host}:{port or self.port}\r\n{lines}\r\n".encode())
        answer = await speaking.answer()
        if client is None:
            speaking.close()
        return answer

    async def exec(self, line: str, token: str = "", cookie: str = "") -> Answer:
        """`POST /exec` on the base domain."""
        client = await self.connect(DOMAIN)
        lines = f"Authorization: Bearer {token}\r\n" if token else ""
        lines += f"Cookie: __Host-ussycode={cookie}\r\n" if cookie else ""
        head = f"POST /exec HTTP/1.1\r\nHost: {DOMAIN}:{self.port}\r\n{lines}Content-Length: {len(line)}\r\n\r\n"
        await client.send(head.encode() + line.encode())
        answer = await client.answer()
        client.close()
        return answer

    def seen(self, answer: Answer) -> str:
        """What came of a request: the status, and behind a 200 of an app, who the app was told is asking."""
        if answer.status != 200 or not answer.body.startswith(b'{"app"'):
            return str(answer.status)
        told = {key.lower(): value for key, value in json.loads(answer.body)["headers"]}
        return "200 as " + self.ids.get(told.get("x-ussycode-userid", ""), "nobody")


@asynccontextmanager
async def whole_world(program: Path, home: Path, names: NameServer, **options: str) -> AsyncIterator[Whole]:
    """A platform whose edge has its first snapshot; `options` are settings as text."""
    https, others = edge_rig._listener(), (edge_rig._alternate(), edge_rig._alternate())
    port = https.getsockname()[1]
    async with AsyncExitStack() as stack:
        for opened in (https, *others):
            stack.callback(opened.close)
        place = await stack.enter_async_context(ssh_world(program, home, **{
            "dns_resolver": names.setting, "exec_rate": "100000", "https_port": str(port),
            "alternate_ports": "3000-9999", **options,
        }))
        place.base.clock.at = time.time()  # the edge has a clock of its own
        app = place.app
        tokens = TokenVerifier(app)
        feed = FeedServer(app, frozenset({os.getuid()}), Answers(app, tokens))
        signer = certificates.LocalSigner(Issuer(Authority.make(SystemClock()).foreign_intermediate(DOMAIN), app.clock))
        for listener in (tokens.heard, feed.heard, certificates.Certifier(app, signer, signer).heard):
            app.db.listen(listener)
        agents = Agents()
        agent_port = _free_port()
        agent_server = await asyncio.start_server(agents.serve, ADDRESSES, agent_port, limit=1 << 20)
        stack.callback(agent_server.close)
        for work in (
            feed.serve(listening(home / "feed.sock")), serve_web(app, tokens, listening(home / "control.sock"), 30.0),
        ):
            stack.push_async_callback(_cancelled, asyncio.create_task(work))
        process = await edge_rig._start(_settings(home, https, others, agent_port), https, *others)
        stack.push_async_callback(edge_rig._end, process)
        await _connected(feed)
        yield Whole(place, app, port, agents, home / "access.log", tuple(one.getsockname()[1] for one in others))


def _settings(home: Path, https: socket.socket, others: tuple[socket.socket, ...], agent_port: int) -> EdgeSettings:
    authority = Authority.make(SystemClock())
    signer = authority.intermediate(DOMAIN)
    (home / "root.pem").write_bytes(authority.root_pem)
    return EdgeSettings(
        domain=DOMAIN, https_fds=[https.fileno()], control_socket=str(home / "control.sock"),
        feed_socket=str(home / "feed.sock"), ca_certificate=signer.certificate.decode(),
        ca_key=signer.key.decode(), log_path=str(home / "access.log"), public_port=https.getsockname()[1],
        agent_port=agent_port, alternate_fds=[(one.fileno(), one.getsockname()[1]) for one in others],
    )


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        return int(free.getsockname()[1])


async def _connected(feed: FeedServer) -> None:
    async with asyncio.timeout(20):
        while not feed.edges:
            await asyncio.sleep(0.02)


async def _cancelled(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


_TRUSTING = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
_TRUSTING.check_hostname, _TRUSTING.verify_mode = False, ssl.CERT_NONE
