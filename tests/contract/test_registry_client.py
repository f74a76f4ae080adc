"""The registry client against servers that break, lie and redirect."""
from __future__ import annotations

import asyncio
import hashlib
import http.server
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from ussycode.base.errors import Failure
from ussycode.runtime.images import registry as client
from ussycode.runtime.images.manifest import MAX_MANIFEST, Descriptor
from ussycode.runtime.images.reference import parse
from ussycode.runtime.images.registry import Registries
from ussycode.runtime.images.registry_auth import Credentials

BLOB = bytes(range(256)) * 4096
DIGEST = "sha256:" + hashlib.sha256(BLOB).hexdigest()


class Server(http.server.ThreadingHTTPServer):
    """Answers as `mode` says and remembers what it was asked."""

    def __init__(self, mode: str) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.mode, self.elsewhere, self.heard = mode, "", list[tuple[str, dict[str, str]]]()
        self.given = self.used = 0

    @property
    def host(self) -> str:
        return f"127.0.0.1:{self.server_port}"


class Handler(http.server.BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        asked = {name.lower(): value for name, value in self.headers.items()}
        self.server.heard.append((self.path, asked))
        getattr(self, self.server.mode)(asked)

    def whole(self, asked: dict[str, str]) -> None:
        self.send(200, BLOB)

    def cut(self, asked: dict[str, str]) -> None:
        """A third of what is missing each time, then silence."""
        begin = int(asked.get("range", "bytes=0-")[6:].rstrip("-"))
        self.send(206 if begin else 200, BLOB[begin:], cut=begin < len(BLOB) // 2)

    def ignorant(self, asked: dict[str, str]) -> None:
        """Cut the first time; the second time the whole again in spite of the range."""
        self.send(200, BLOB, cut=len(self.server.heard) == 1)

    def long(self, asked: dict[str, str]) -> None:
        self.send(200, BLOB + b"more")

    def other(self, asked: dict[str, str]) -> None:
        self.send(200, BLOB[::-1])

    def away(self, asked: dict[str, str]) -> None:
        if "authorization" not in asked:
            self.send(401, b"", ("WWW-Authenticate", 'Basic realm="x"'))
        else:
            self.send(307, b"", ("Location", self.server.elsewhere))

    def circle(self, asked: dict[str, str]) -> None:
        self.send(302, b"", ("Location", self.path))

    def huge(self, asked: dict[str, str]) -> None:
        self.send(200, b" " * (MAX_MANIFEST + 1))

    def drips(self, asked: dict[str, str]) -> None:
        """A byte now and then, so that the silence between two is never long."""
        self.send_response(200)
        self.end_headers()
        try:
            for _ in range(1000):
                self.wfile.write(b" ")
                time.sleep(0.02)
        except OSError:
            self.close_connection = True

    def expiring(self, asked: dict[str, str]) -> None:
        """Each token is good for one blob."""
        realm = f'Bearer realm="http://{self.server.host}/token",service="x"'
        if self.path.startswith("/token"):
            self.server.given += 1
            self.send(200, b'{"access_token": "t%d"}' % self.server.given)
        elif asked.get("authorization") == f"Bearer t{self.server.given}" and self.server.used < self.server.given:
            self.server.used = self.server.given
            self.send(200, BLOB)
        else:
            self.send(401, b"", ("WWW-Authenticate", realm))

    def tokens(self, asked: dict[str, str]) -> None:
        """Sends everybody to a token server (itself) whose token has no end."""
        if self.path.startswith("/token"):
            self.send(200, b'{"token": "' + b"x" * (client.MAX_TOKEN + 1) + b'"}')
        else:
            self.send(401, b"", ("WWW-Authenticate", f'Bearer realm="http://{self.server.host}/token",service="x"'))

    def send(self, status: int, body: bytes, *headers: tuple[str, str], cut: bool = False) -> None:
        self.send_response(status)
        for name, value in headers:
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[: len(body) // 3] if cut else body)
        self.close_connection = True

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def serve() -> Iterator[object]:
    servers: list[Server] = []

    def start(mode: str) -> Server:
        made = Server(mode)
        threading.Thread(target=made.serve_forever, args=(0.02,), daemon=True).start()
        servers.append(made)
        return made

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


async def fetched(server: Server, to: Path, *trusted: str, given: Credentials | None = None) -> bytes:
    rules = Registries(trusted=frozenset({server.host, *trusted}))
    told: list[int] = []
    async with rules.open(parse(f"{server.host}/app"), given) as registry:
        await registry.download(Descriptor(DIGEST, len(BLOB)), to, told.append)
    assert sum(told) == len(BLOB), "what is told while it goes on is what has arrived"
    return to.read_bytes()


@pytest.mark.parametrize("mode", ["whole", "cut", "ignorant"])
async def test_a_broken_download_goes_on_where_it_broke(serve: object, tmp_path: Path, mode: str) -> None:
    server = serve(mode)  # type: ignore[operator]
    assert await fetched(server, tmp_path / "blob") == BLOB
    asked = [headers.get("range", "") for _, headers in server.heard]
    assert asked[0] == "" and all(asked[1:])


@pytest.mark.parametrize("mode", ["long", "other", "circle"])
async def test_what_was_not_promised_is_refused(serve: object, tmp_path: Path, mode: str) -> None:
    with pytest.raises(Failure, match=r"something else than what it promised|redirects without end"):
        await fetched(serve(mode), tmp_path / "blob")  # type: ignore[operator]


@pytest.mark.parametrize(("mode", "why"), [
    ("huge", "something else than what it promised"), ("tokens", "something else than what it promised"),
    ("drips", "it takes too long to answer"),
])
async def test_a_manifest_has_a_bound_in_bytes_and_in_time(
    serve: object, monkeypatch: pytest.MonkeyPatch, mode: str, why: str,
) -> None:
    monkeypatch.setattr(client, "SMALL_SECONDS", 1.0)
    server = serve(mode)  # type: ignore[operator]
    async with Registries(trusted=frozenset({server.host})).open(parse(f"{server.host}/app")) as registry:
        with pytest.raises(Failure, match=why):
            await registry.manifest()


async def test_a_token_that_expires_in_the_middle_is_replaced(serve: object, tmp_path: Path) -> None:
    """Large images take longer than a token lives."""
    server = serve("expiring")  # type: ignore[operator]
    async with Registries(trusted=frozenset({server.host})).open(parse(f"{server.host}/app")) as registry:
        for number in range(3):
            await registry.download(Descriptor(DIGEST, len(BLOB)), tmp_path / str(number), lambda _: None)
    tokens = [path for path, _ in server.heard if path.startswith("/token")]
    assert len(tokens) == 3 and server.given == 3


async def test_names_are_looked_up_where_nobody_else_waits(serve: object, tmp_path: Path) -> None:
    """A name server that is silent may not keep others from what needs a thread, nor they the lookup."""
    server, go_on = serve("whole"), threading.Event()  # type: ignore[operator]
    with ThreadPoolExecutor(1) as only:
        loop = asyncio.get_running_loop()
        loop.set_default_executor(only)
        busy = loop.run_in_executor(None, go_on.wait)
        place = f"localhost:{server.server_port}"
        async with asyncio.timeout(20), Registries(trusted=frozenset({place})).open(parse(f"{place}/app")) as registry:
            await registry.download(Descriptor(DIGEST, len(BLOB)), tmp_path / "blob", lambda _: None)
        go_on.set()
        await busy


async def test_credentials_stay_with_the_registry_that_asked(serve: object, tmp_path: Path) -> None:
    home, other = serve("away"), serve("whole")  # type: ignore[operator]
    home.elsewhere = f"http://{other.host}/elsewhere"
    assert await fetched(home, tmp_path / "blob", other.host, given=Credentials("a", "b")) == BLOB
    assert "authorization" in home.heard[-1][1] and "authorization" not in other.heard[-1][1]


@pytest.mark.parametrize("target", [
    "http://127.0.0.1:9/x", "http://169.254.169.254/latest", "file:///etc/passwd", "https://10.0.0.1/", "http://[::1]:80/",
])
async def test_a_registry_cannot_send_us_into_private_places(serve: object, tmp_path: Path, target: str) -> None:
    home = serve("away")  # type: ignore[operator]
    home.elsewhere = target
    with pytest.raises(Failure) as refused:
        await fetched(home, tmp_path / "blob", given=Credentials("a", "b"))
    assert refused.value.error.code == "image.registry_forbidden"
