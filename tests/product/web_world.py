"""A platform with its web door on a unix socket, asked as the edge asks it."""
from __future__ import annotations

import asyncio
import dataclasses
import html
import json
import re
import socket
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from http.cookies import SimpleCookie
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urlsplit

import aiohttp

from tests.product.signing import Signer
from tests.product.ssh_world import OneGuest, RootImages
from tests.schemas import check
from tests.unit.runtime.guest.host_agent import HostAgent, start_configured
from tests.world import World, world
from ussycode.access.facts import Caller
from ussycode.agent.link import LocalLink
from ussycode.catalog import TREE
from ussycode.cmdline.lex import split
from ussycode.doors.web.app import serve_web
from ussycode.identity import ops as identity
from ussycode.ports import App
from ussycode.runtime.drivers.fake import FakeDriver
from ussycode.tokens.verify import TokenVerifier

HOME = "https://localhost:8443"
ALL = json.dumps({"cmds": [
    "help", "ls", "new", "rm", "whoami", "ssh", "export", "import", "restart", "rename", "ssh-key list",
    "ssh-key remove", "browser",
]})

REFRESH = re.compile(r'http-equiv="refresh" content="0; url=([^"]+)"')


@dataclass(frozen=True)
class Answer:
    """One response, read to its end."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    cookies: SimpleCookie

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def text(self) -> str:
        return self.body.decode()

    @property
    def location(self) -> str:
        return self.headers["Location"]


@dataclass
class WebWorld:
    """The web door, the platform behind it and one registered person, Alice."""

    base: World
    app: App
    path: Path
    alice: Signer
    caller: Caller
    tokens: TokenVerifier
    client: aiohttp.ClientSession

    async def ask(
        self, method: str, url: str, *, data: str | bytes | None = None, headers: Mapping[str, str] | None = None
    ) -> Answer:
        """One request as the edge hands it over; redirects are not followed."""
        parts = urlsplit(url)
        sent = {"X-Forwarded-Host": parts.netloc, "X-Forwarded-Proto": "https", **(headers or {})}
        where = "http://control" + (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        async with self.client.request(method, where, data=data, headers=sent, allow_redirects=False) as got:
            return Answer(got.status, got.headers, await got.read(), got.cookies)

    async def exec(self, line: str | bytes, token: str | None = None, **headers: str) -> Answer:
        """`POST /exec` with a token of Alice's that may do everything, unless another is given."""
        bearer = self.alice.token(ALL) if token is None else token
        sent = {"Authorization": f"Bearer {bearer}", **{k.replace("_", "-"): v for k, v in headers.items()}}
        answer = await self.ask("POST", HOME + "/exec", data=line, headers=sent)
        if answer.headers.get("Content-Type", "").startswith("application/json"):
            check(named(line) if answer.status == 200 else "error", answer.json)
        return answer


def named(line: str | bytes) -> str:
    """Whose schema the document of a line fits that succeeded."""
    words = split(line.decode() if isinstance(line, bytes) else line)
    flags = words[: words.index("--")] if "--" in words else words
    return "help" if {"--help", "-h"} & set(flags) else TREE.find(words)[0].name


class Browser:
    """Keeps cookies by host, as `__Host-` cookies are kept, and follows redirects between our hosts."""

    def __init__(self, place: WebWorld) -> None:
        self._place = place
        self.jar: dict[str, dict[str, str]] = {}
        self.at = ""

    async def get(self, url: str, follow: bool = True) -> Answer:
        return await self._go("GET", url, {}, follow)

    async def post(self, url: str, origin: str | None = None, follow: bool = True) -> Answer:
        parts = urlsplit(url)
        own = origin if origin is not None else f"{parts.scheme}://{parts.netloc}"
        return await self._go("POST", url, {"Origin": own}, follow)

    async def send(self, url: str, content: object, origin: str = HOME) -> Answer:
        """What a page's script posts: JSON, or text as it is, with this browser's cookies."""
        data = content if isinstance(content, str) else "" if content is None else json.dumps(content)
        sent = {"Accept": "application/json", "Content-Type": "application/json"}
        return await self._go("POST", url, {"Origin": origin, **sent}, False, data)

    async def form(self, url: str, follow: bool = True, **fields: str) -> Answer:
        """What a plain form posts."""
        parts = urlsplit(url)
        kind = {"Content-Type": "application/x-www-form-urlencoded"}
        return await self._go("POST", url, {"Origin": f"{parts.scheme}://{parts.netloc}", **kind}, follow,
                              urlencode(fields))

    async def _go(
        self, method: str, url: str, headers: dict[str, str], follow: bool, data: str | None = None
    ) -> Answer:
        posted = method == "POST"
        for _ in range(10):
            self.at = url
            kept = self.jar.setdefault(urlsplit(url).netloc, {})
            sent = {"Accept": "text/html", **headers} | ({"Cookie": _line(kept)} if kept else {})
            got = await self._place.ask(method, url, headers=sent, data=data)
            self._keep(kept, got.cookies)
            onward = REFRESH.search(got.text) if got.headers.get("Content-Type", "").startswith("text/html") else None
            if (got.status not in (302, 303) and onward is None) or not follow:
                return got
            parts = urlsplit(url)
            to = html.unescape(onward[1]) if onward is not None else got.location
            posted = posted and onward is None
            host = urlsplit(to).hostname or "localhost"
            assert not posted or host in ("localhost", parts.hostname) or host.endswith(".localhost"), \
                f"a browser holds a form to its policy, and stops before {to}"
            data = None
            url, method, headers = (to if "://" in to else f"{parts.scheme}://{parts.netloc}{to}"), "GET", {}
            if "/__ussycode/" not in url and urlsplit(url).netloc != "localhost:8443":
                self.at = url
                return got  # the edge would ask the VM now
        raise AssertionError(f"a loop of redirects at {url}")

    def _keep(self, kept: dict[str, str], cookies: SimpleCookie) -> None:
        for name, morsel in cookies.items():
            assert morsel["secure"] and morsel["httponly"] and morsel["path"] == "/" and not morsel["domain"]
            assert morsel["samesite"].lower() == "lax"
            kept.pop(name, None)
            if morsel["max-age"] != "0":
                kept[name] = morsel.value


def _line(kept: Mapping[str, str]) -> str:
    return "; ".join(f"{name}={value}" for name, value in kept.items())


@asynccontextmanager
async def web_world(
    folder: Path, program: Path | None = None, *, driver: FakeDriver | None = None, seconds: float = 30.0,
    **options: str,
) -> AsyncIterator[WebWorld]:
    """A running web door whose `/exec` waits `seconds`; with `program`, every VM is one agent on this machine."""
    agent = await start_configured(program, folder / "guest") if program is not None else None
    async with world(driver, default_image="debian-min", **options) as base:
        app = base.app if agent is None else _with_guest(base.app, agent)
        alice = Signer.make(folder)
        if app.config.registration != "open":
            await identity.approve_admins(app, [alice.public])
        await identity.register(app, alice.public, "alice", "alice")
        found = await identity.recognise(app, alice.public.fingerprint)
        assert found is not None
        tokens = TokenVerifier(app)
        app.db.listen(tokens.heard)
        path = folder / "web.sock"
        serving = asyncio.create_task(serve_web(app, tokens, listening(path), seconds))
        async with aiohttp.ClientSession(connector=aiohttp.UnixConnector(str(path), limit=0)) as client:
            try:
                yield WebWorld(base, app, path, alice, found[0], tokens, client)
            finally:
                serving.cancel()
                await asyncio.gather(serving, return_exceptions=True)
                if agent is not None:
                    await agent.stop()


def _with_guest(app: App, agent: HostAgent) -> App:
    return dataclasses.replace(app, link=LocalLink(OneGuest(agent)), images=RootImages(("debian-min",)))


def listening(path: Path) -> socket.socket:
    """A listening unix socket, as the supervisor hands one over."""
    made = socket.socket(socket.AF_UNIX)
    made.bind(str(path))
    made.listen(128)
    made.setblocking(False)
    return made


