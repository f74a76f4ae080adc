"""Every console block of the page on signing in is executed, with a browser that did what the page says in between."""
from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp

from tests.live.test_guide import GUIDE, steps
from tests.product.authenticator import Authenticator
from tests.product.signing import Signer
from tests.product.ssh_world import Person, SshWorld
from tests.product.test_guide_lobby import expected
from tests.product.test_passkeys import add, show
from tests.product.test_requests import ask
from tests.product.web_world import Browser, WebWorld, listening
from ussycode.access.facts import Caller
from ussycode.doors.web.app import serve_web
from ussycode.identity import ops as identity
from ussycode.identity import signing
from ussycode.tokens.verify import TokenVerifier


@asynccontextmanager
async def web_beside(lobby: SshWorld, owner: Person, folder: Path) -> AsyncIterator[tuple[WebWorld, Caller]]:
    """The web door of the platform that the lobby belongs to."""
    found = await identity.recognise(lobby.app, owner.key.fingerprint)
    assert found is not None
    await signing.rotate(lobby.app)
    path, tokens = folder / "web.sock", TokenVerifier(lobby.app)
    serving = asyncio.create_task(serve_web(lobby.app, tokens, listening(path)))
    try:
        async with aiohttp.ClientSession(connector=aiohttp.UnixConnector(str(path))) as client:
            signer = Signer(owner.home / "key", owner.key)
            yield WebWorld(lobby.base, lobby.app, path, signer, found[0], tokens, client), found[0]
    finally:
        serving.cancel()
        await asyncio.gather(serving, return_exceptions=True)


async def browser_of(web: WebWorld, who: Caller) -> Browser:
    browser = Browser(web)
    await browser.post(str((await web.base.does(who, "browser"))["url"]))
    return browser


async def test_the_page_is_what_happens(place: SshWorld, tmp_path: Path) -> None:
    olive, bob = await place.member("olive"), await place.member("bob")
    (olive.home / "ssh").write_text(f'#!/bin/sh\nexec /usr/bin/ssh -F {olive.home}/config "$@"\n')
    (olive.home / "ssh").chmod(0o755)
    async with web_beside(place, olive, tmp_path) as (web, caller):
        await web.base.does(caller, "new --name shop")
        found = await identity.recognise(place.app, bob.key.fingerprint)
        assert found is not None
        await ask(await browser_of(web, found[0]), "https://shop.localhost:8443", message="the new prices, please")
        phone = Authenticator()
        await add(await browser_of(web, caller), phone, "phone")
        await show(Browser(web), phone)
        await web.base.does(caller, "logout --all")
        await show(Browser(web), phone)
        page = (GUIDE / "sign-in.md").read_text().replace("2222", str(place.port))
        done = 0
        for command, shown in steps(page):
            ran = await olive.run("bash", "-c", f"{{ {command}\n}} 2>&1", env={
                "PATH": f"{olive.home}:{os.environ['PATH']}"})
            said = "\n".join(line.rstrip() for line in ran.text.replace(str(place.port), "2222").strip().splitlines())
            wanted = shown.replace(str(place.port), "2222")
            assert expected(wanted).fullmatch(said), f"$ {command}\nshowed {said!r}\nthe page: {wanted!r}"
            done += 1
        assert done >= 10
