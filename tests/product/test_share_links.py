"""A share link in a browser: it opens only after signing in, and makes nobody known who did not press the button."""
from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.product.web_world import Browser, WebWorld, web_world
from ussycode.access.facts import Caller

DEMO = "https://demo.localhost:8443"


@pytest.fixture
async def place(tmp_path: Path) -> AsyncIterator[WebWorld]:
    async with web_world(tmp_path) as made:
        await made.base.does(made.caller, "new --name demo")
        yield made


async def link(place: WebWorld, flags: str = "") -> str:
    return str((await place.base.does(place.caller, f"share add-link demo {flags}"))["url"])


async def signed_in(place: WebWorld, who: Caller) -> Browser:
    browser = Browser(place)
    await browser.post(str((await place.base.does(who, "browser"))["url"]))
    return browser


async def users(place: WebWorld) -> list[str]:
    shown = (await place.base.does(place.caller, "share show demo"))["users"]
    return [u["handle"] for u in shown]  # type: ignore[union-attr]


async def test_a_link_asks_to_sign_in_whether_or_not_it_is_good(place: WebWorld) -> None:
    good = await link(place)
    shown = []
    for url in (good, good[:-1] + "?", DEMO + "/__ussycode/share/nonsense"):
        browser = Browser(place)
        got = await browser.get(url.rstrip("?"))
        assert got.status == 200 and "must be signed in" in got.text
        shown.append(got.text.replace(url.rpartition("/")[2].rstrip("?"), "TOKEN"))
    assert shown[0] == shown[2] and await users(place) == []


async def test_it_names_what_it_gives_and_takes_a_button(place: WebWorld) -> None:
    url = await link(place)
    browser = await signed_in(place, await place.base.person("bob"))
    page = await browser.get(url)
    assert "alice shares demo with you" in page.text and "<strong>bob</strong>" in page.text
    assert await users(place) == [], "looking makes nobody known"
    assert (await browser.post(url, origin="https://evil.example")).status == 403 and await users(place) == []
    await browser.post(url)
    assert browser.at == DEMO + "/" and await users(place) == ["bob"]
    assert (await browser.get(url)).status == 303 and browser.at != url


async def test_signing_in_on_the_way_comes_back_to_the_link(place: WebWorld) -> None:
    url, bob = await link(place), await place.base.person("bob")
    browser = Browser(place)
    await browser.get(url)
    page = await browser.post(str((await place.base.does(bob, "browser"))["url"]))
    assert browser.at == url and "alice shares demo with you" in page.text


async def test_links_that_open_nothing_give_one_page(place: WebWorld) -> None:
    gone, over = await link(place), await link(place, "--expires 1h")
    await place.base.does(place.caller, f"share remove-link demo {gone}")
    browser = await signed_in(place, await place.base.person("bob"))
    place.base.clock.advance(3600)
    altered = over[:-1] + ("A" if over[-1] != "A" else "B")
    pages = {(await browser.get(url)).text for url in (gone, over, altered, DEMO + "/__ussycode/share/none")}
    posts = {(await browser.post(url)).text for url in (gone, over, altered)}
    assert len(pages | posts) == 1 and "this link opens nothing" in pages.pop()


async def test_the_owner_and_who_is_in_already_just_go_there(place: WebWorld) -> None:
    browser = await signed_in(place, place.caller)
    await browser.get(await link(place))
    assert browser.at == DEMO + "/" and await users(place) == []


async def test_a_renamed_vm_keeps_its_links(place: WebWorld) -> None:
    url = await link(place)
    await place.base.does(place.caller, "rename demo shop")
    browser = await signed_in(place, await place.base.person("bob"))
    await browser.get(url)
    await browser.post(url)
    assert browser.at == "https://shop.localhost:8443/"


async def test_a_link_of_another_port_leads_there(place: WebWorld) -> None:
    url = await link(place, "--port 3000")
    browser = await signed_in(place, await place.base.person("bob"))
    await browser.get(url)
    await browser.post(url)
    assert browser.at == "https://3000--demo.localhost:8443/"
