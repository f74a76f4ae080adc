"""`ussycode dev-proxy`: an app that is being written gets the headers of the platform, and checks them the same way."""
from __future__ import annotations

import asyncio
import json
import re
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from types import ModuleType

import aiohttp
import pytest
from websockets.asyncio.client import connect as ws_connect
from websockets.asyncio.server import ServerConnection
from websockets.asyncio.server import serve as ws_serve

from tests.contract.edge_rig import App
from tests.contract.login_rig import SAMPLES
from ussycode.base.clock import SystemClock
from ussycode.cli.dev_proxy import DevProxy


@dataclass
class Place:
    proxy: DevProxy
    client: aiohttp.ClientSession

    async def get(self, path: str = "/", **headers: str) -> dict[str, str]:
        """Headers that the app received, by lower-case name."""
        async with self.client.get(self.proxy.address + path, headers=headers) as answer:
            return {k.lower(): v for k, v in json.loads(await answer.read())["headers"]}


@pytest.fixture
async def place() -> AsyncIterator[Place]:
    app = await asyncio.start_server(App("mine").serve, "127.0.0.1", 0)
    proxy = DevProxy("a@example.org", app.sockets[0].getsockname()[1], SystemClock())
    server = await proxy.listen(0)
    async with aiohttp.ClientSession() as client, app, server:
        yield Place(proxy, client)


async def test_the_app_sees_somebody_signed_in(place: Place) -> None:
    seen = await place.get("/x", **{"X-Ussycode-Email": "forged@example.org", "X_Ussycode_UserID": "forged"})
    assert seen["x-ussycode-email"] == seen["x-exedev-email"] == "a@example.org"
    assert re.fullmatch(r"user_[a-z2-7]{16}", seen["x-ussycode-userid"])
    assert "forged" not in str(seen) and seen["x-forwarded-proto"] == "http"
    assert (await place.get())["x-ussycode-userid"] == seen["x-ussycode-userid"]


async def test_signing_out_and_in_works_as_on_the_platform(place: Place) -> None:
    async with place.client.post(place.proxy.address + "/__ussycode/logout") as answer:
        assert answer.status == 200
    assert not [name for name in await place.get() if "ussycode" in name or "exedev" in name]
    for to, where in (("/back%3Fx", "/back?x"), ("//evil.example", "/"), ("https://evil.example", "/")):
        url = f"{place.proxy.address}/__exe.dev/login?redirect={to}"
        async with place.client.get(url, allow_redirects=False) as answer:
            assert (answer.status, answer.headers["Location"]) == (302, where)
    assert "x-ussycode-userid" in await place.get()


async def test_the_samples_believe_its_assertion_and_no_other(place: Place) -> None:
    token = (await place.get())["x-ussycode-assertion"]
    verify = sample_module()
    keys = await asyncio.to_thread(verify.fetch_keys, place.proxy.address)
    claims = verify.verify(token, place.proxy.address, "localhost", keys)
    assert claims["email"] == "a@example.org"
    with pytest.raises(Exception, match="aud"):
        verify.verify(token, place.proxy.address, "demo.localhost", keys)
    said = await node(place, token, "localhost")
    assert json.loads(said) == claims
    assert await node(place, token, "demo.localhost") == "meant for somebody else"
    assert await node(place, token[:-6] + "AAAAAA", "localhost") == "the signature is wrong"


def sample_module() -> ModuleType:
    made = ModuleType("verify")
    exec((SAMPLES / "verify.py").read_text(), made.__dict__)
    return made


async def node(place: Place, token: str, audience: str) -> str:
    """What the sample for Node says of a token."""
    script = f"""
        import {{ verify }} from "{SAMPLES / 'login.mjs'}";
        const issuer = "{place.proxy.address}";
        const {{ keys }} = await (await fetch(issuer + "/.well-known/jwks.json")).json();
        try {{ console.log(JSON.stringify(verify("{token}", {{ issuer, audience: "{audience}", keys }}))); }}
        catch (error) {{ console.log(error.message); }}
    """
    process = await asyncio.create_subprocess_exec(
        "node", "--input-type=module", "-e", script, stdout=asyncio.subprocess.PIPE)
    async with asyncio.timeout(60):
        out, _ = await process.communicate()
    return out.decode().strip()


async def test_bodies_pass_and_nothing_after_them_does(place: Place) -> None:
    async with place.client.post(place.proxy.address + "/up", data=b"x" * 300_000) as answer:
        assert json.loads(await answer.read())["size"] == 300_000
    port = int(place.proxy.address.rpartition(":")[2])
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    forged = b"GET /second HTTP/1.1\r\nHost: x\r\nX-Ussycode-UserID: forged\r\n\r\n"
    writer.write(b"POST /first HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n\r\nhi" + forged)
    writer.write_eof()
    said = await asyncio.wait_for(reader.read(), 20)
    writer.close()
    assert b"/first" in said and b"/second" not in said


async def test_websockets_pass() -> None:
    async def echo(socket: ServerConnection) -> None:
        assert socket.request is not None
        await socket.send(socket.request.headers["X-Ussycode-Email"])
        async for message in socket:
            await socket.send(message)

    async with ws_serve(echo, "127.0.0.1", 0) as app:
        proxy = DevProxy("a@example.org", next(iter(app.sockets)).getsockname()[1], SystemClock())
        async with await proxy.listen(0), ws_connect(proxy.address.replace("http:", "ws:")) as socket:
            assert await socket.recv() == "a@example.org"
            await socket.send("twice")
            assert await socket.recv() == "twice"


async def test_an_app_that_is_not_started_is_named(place: Place) -> None:
    proxy = DevProxy("a@example.org", 1, SystemClock())
    async with await proxy.listen(0), place.client.get(proxy.address) as answer:
        assert answer.status == 502 and "port 1" in await answer.text()


async def test_the_verb_says_where_it_is(place: Place) -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "ussycode", "dev-proxy", "--user", "B@Example.org", "--port", "1", "--on", "0",
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    line = (await asyncio.wait_for(process.stdout.readline(), 60)).decode()
    assert re.fullmatch(r"http://localhost:\d+ shows port 1 with b@example.org signed in; Ctrl-C ends it\n", line)
    async with place.client.get(line.split()[0] + "/.well-known/jwks.json") as answer:
        assert len((await answer.json())["keys"]) == 1
    process.terminate()
    await process.wait()
