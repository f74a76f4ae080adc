"""One SSH key signs a browser in once, on the domain and on every VM host, and one sign-out ends it everywhere."""
from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import parse_qs, quote, urlsplit

import pytest

from tests.product.web_world import HOME, Browser, WebWorld, web_world
from ussycode.base.db import events_table

DEMO = "https://demo.localhost:8443"
SESSION = "__Host-ussycode"


@pytest.fixture
async def place(tmp_path: Path) -> AsyncIterator[WebWorld]:
    async with web_world(tmp_path) as made:
        yield made


async def link(place: WebWorld) -> str:
    url = (await place.base.does(place.caller, "browser"))["url"]
    assert isinstance(url, str)
    return url


async def signed_in(place: WebWorld) -> Browser:
    browser = Browser(place)
    await browser.post(await link(place))
    return browser


async def test_looking_at_a_link_uses_nothing_up(place: WebWorld) -> None:
    url, browser = await link(place), Browser(place)
    for _ in range(3):
        shown = await browser.get(url)
        assert shown.status == 200 and "Sign in as alice?" in shown.text
    assert browser.jar["localhost:8443"] == {}
    shown = await browser.post(url)
    assert browser.at == HOME + "/" and "Your machines" in shown.text


async def test_a_link_works_once(place: WebWorld) -> None:
    url = await link(place)
    await Browser(place).post(url)
    late = Browser(place)
    assert (await late.post(url)).status == 401
    assert (await late.get(url)).status == 401
    assert late.jar["localhost:8443"] == {}


async def test_an_old_link_is_refused(place: WebWorld) -> None:
    url = await link(place)
    place.base.clock.advance(301)
    shown = await Browser(place).get(url)
    assert shown.status == 401 and "ssh -p 2222 localhost browser" in shown.text


async def test_the_sign_in_page_leads_back_to_where_the_browser_wanted_to_go(place: WebWorld) -> None:
    browser = Browser(place)
    shown = await browser.get(DEMO + "/__ussycode/login?redirect=/notes%3Fday=1")
    assert urlsplit(browser.at).path == "/login"
    assert "demo.localhost" in shown.text and "ssh -p 2222 localhost browser" in shown.text
    await browser.post(await link(place))
    assert browser.at == DEMO + "/notes?day=1"
    assert SESSION in browser.jar["demo.localhost:8443"]


async def test_a_signed_in_browser_comes_through_without_a_question(place: WebWorld) -> None:
    browser = await signed_in(place)
    for host in ("demo.localhost:8443", "3000--demo.localhost:8443", "never-made.localhost:8443"):
        await browser.get(f"https://{host}/__exe.dev/login?redirect=/x")
        assert browser.at == f"https://{host}/x"
    cookies = [browser.jar[h][SESSION] for h in browser.jar]
    assert len(set(cookies)) == 4


async def test_a_session_cookie_is_worth_nothing_on_another_host(place: WebWorld) -> None:
    browser = await signed_in(place)
    await browser.get(DEMO + "/__ussycode/login")
    thief = Browser(place)
    thief.jar["localhost:8443"] = {SESSION: browser.jar["demo.localhost:8443"][SESSION]}
    assert "one command away" in (await thief.get(HOME + "/")).text


async def test_signing_out_anywhere_ends_it_everywhere(place: WebWorld) -> None:
    browser = await signed_in(place)
    await browser.get(DEMO + "/__ussycode/login")
    assert "Signed out." in (await browser.post(DEMO + "/__exe.dev/logout")).text
    assert "one command away" in (await browser.get(HOME + "/")).text
    other = await signed_in(place)
    await other.post(HOME + "/logout")
    assert other.jar["localhost:8443"] == {}


async def test_a_link_to_sign_out_signs_nobody_out(place: WebWorld) -> None:
    browser = await signed_in(place)
    assert "Sign out?" in (await browser.get(HOME + "/logout")).text
    assert "Your machines" in (await browser.get(HOME + "/")).text


@pytest.mark.parametrize("origin", ["https://evil.example", DEMO, "null", "http://localhost:8443", "https://localhost"])
async def test_forms_of_other_sites_do_nothing(place: WebWorld, origin: str) -> None:
    url, browser = await link(place), await signed_in(place)
    for target in (url, HOME + "/logout"):
        assert (await browser.post(target, origin)).status == 403
    assert "Your machines" in (await browser.get(HOME + "/")).text
    assert (await Browser(place).get(url)).status == 200


async def test_browsers_that_say_cross_site_are_believed(place: WebWorld) -> None:
    got = await place.ask("POST", HOME + "/logout", headers={"Sec-Fetch-Site": "same-site"})
    assert got.status == 403


@pytest.mark.parametrize("path", [
    "//evil.example/", "/\\evil.example", "https://evil.example/", "javascript:alert(1)", "evil", "",
    "/a\r\nX: y", "/\tx", "/" + "x" * 3000, "/é",
])
async def test_no_path_leads_to_another_site(place: WebWorld, path: str) -> None:
    browser = await signed_in(place)
    await browser.get(f"{DEMO}/__ussycode/login?redirect={quote(path, safe='')}")
    assert browser.at == DEMO + "/"
    await browser.post(f"{await link(place)}?next={quote(path, safe='')}")
    assert browser.at == HOME + "/"


@pytest.mark.parametrize("host", [
    "evil.example", "demo.localhost.evil.example", "a.demo.localhost", "localhost", "demo.localhost:8443",
    "DEMO.localhost", "demo.localhost/", "80--demo.localhost", "x--demo.localhost", "demo--.localhost",
    ".localhost", "demo.localhost@evil",
])
async def test_only_our_own_hosts_are_handed_a_sign_in(place: WebWorld, host: str) -> None:
    browser = await signed_in(place)
    got = await browser.get(f"{HOME}/login/to?host={host}&path=/&state=abc", follow=False)
    assert (got.status, got.location) == (303, "/")
    got = await Browser(place).get(f"{HOME}/login?host={host}&path=/x")
    assert "__Host-ussycode-next" not in got.cookies


async def test_a_hand_off_is_bound_to_the_browser_that_began_it(place: WebWorld) -> None:
    mallory, victim = await signed_in(place), Browser(place)
    begun = await mallory.get(DEMO + "/__ussycode/login", follow=False)
    carried = await mallory.get(begun.location, follow=False)
    assert urlsplit(carried.location).path == "/__ussycode/session"
    await victim.get(carried.location)
    assert SESSION not in victim.jar["demo.localhost:8443"]
    await mallory.get(carried.location)
    assert SESSION in mallory.jar["demo.localhost:8443"]


async def test_a_hand_off_code_works_once_and_on_its_host_only(place: WebWorld) -> None:
    browser = await signed_in(place)
    begun = await browser.get(DEMO + "/__ussycode/login", follow=False)
    carried = (await browser.get(begun.location, follow=False)).location
    code = parse_qs(urlsplit(carried).query)["code"][0]
    browser.jar["other.localhost:8443"] = dict(browser.jar["demo.localhost:8443"])
    stolen = await browser.get(carried.replace("//demo.", "//other."))
    assert stolen.status == 401 and SESSION not in browser.jar["other.localhost:8443"]
    assert (await Browser(place).post(f"{HOME}/login/{code}")).status == 401


async def test_what_is_said_does_not_tell_which_vms_exist(place: WebWorld) -> None:
    await place.base.does(place.caller, "new --name demo")
    stranger = Browser(place)
    for path in ("login?redirect=/", "session?code=x", "logout", "nope"):
        told = []
        for name in ("demo", "gone"):
            got = await stranger.get(f"https://{name}.localhost:8443/__ussycode/{path}", follow=False)
            told.append((got.status, got.body.replace(name.encode(), b"")))
        assert told[0] == told[1]


async def test_a_cookie_that_means_nothing_is_no_sign_in(place: WebWorld) -> None:
    got = await place.ask("GET", HOME + "/", headers={"Cookie": SESSION + "=" + "x" * 5000, "Accept": "text/html"})
    assert got.status == 200 and "one command away" in got.text


async def test_a_link_for_a_vm_opens_it_and_shows_nothing_of_others(place: WebWorld) -> None:
    await place.base.does(place.caller, "new --name demo")
    url = str((await place.base.does(place.caller, "browser demo"))["url"])
    browser = Browser(place)
    assert "Sign in as alice?" in (await browser.get(url)).text
    await browser.post(url)
    assert browser.at == DEMO + "/" and SESSION in browser.jar["demo.localhost:8443"]
    bob = await place.base.person("bob")
    for name in ("demo", "nothing"):
        assert (await place.base.fails(bob, f"browser {name}"))[0] == "vm.unknown"


async def test_what_becomes_of_a_link_is_recorded_with_its_reason(place: WebWorld) -> None:
    async def told(kind: str) -> list[str]:
        rows = await place.app.db.read(lambda tx: list(tx.conn.execute(
            events_table.select().where(events_table.c.kind == kind))))
        return [json.loads(row.data).get("reason", "") for row in rows]

    good, late, away = [await link(place) for _ in range(3)]
    await Browser(place).post(good)
    await Browser(place).post(good)
    code = away.rpartition("/")[2]
    browser = Browser(place)
    begun = await browser.get(DEMO + "/__ussycode/login", follow=False)
    state = parse_qs(urlsplit(begun.location).query)["state"][0]
    assert (await browser.get(f"{DEMO}/__ussycode/session?code={code}&state={state}")).status == 401
    place.base.clock.advance(301)
    await Browser(place).post(late)
    assert [len(await told(f"link.{kind}")) for kind in ("made", "redeemed")] == [3, 1]
    assert await told("link.refused") == ["other_host", "expired"]
    counted = place.app.telemetry.metrics().decode()
    for result in ("ok", "unknown", "other_host", "expired"):
        assert f'ussycode_sign_ins_total{{how="link",result="{result}"}} 1.0' in counted


async def test_an_apps_keys_are_on_its_own_host_too(place: WebWorld) -> None:
    keys = [(await place.ask("GET", url)).json for url in (
        HOME + "/.well-known/jwks.json", DEMO + "/__ussycode/jwks.json")]
    assert keys[0] == keys[1] and "keys" in keys[0]


async def test_the_way_back_leads_to_the_alternate_port_that_was_opened(tmp_path: Path) -> None:
    async with web_world(tmp_path, alternate_ports="3000-9999") as place:
        browser, alternate = Browser(place), "https://demo.localhost:3456"
        shown = await browser.get(alternate + "/__ussycode/login?redirect=/notes")
        assert urlsplit(browser.at).path == "/login" and "demo.localhost:3456" in shown.text
        await browser.post(await link(place))
        assert browser.at == alternate + "/notes"
        session = browser.jar["demo.localhost:3456"][SESSION]
        # The session is the host's: browsers send it to every port of the host, and it counts on each.
        browser.jar["demo.localhost:8443"] = {SESSION: session}
        assert "Signed out." in (await browser.post(alternate + "/__ussycode/logout")).text
        left = await browser.post(alternate + "/__ussycode/logout", origin="https://evil.example")
        assert left.status == 403


@pytest.mark.parametrize("port", ["9464", "2999", "10000", "x"])
async def test_ports_that_are_nobodys_are_no_place_to_go_back_to(tmp_path: Path, port: str) -> None:
    async with web_world(tmp_path, alternate_ports="3000-9999") as place:
        browser = await signed_in(place)
        got = await browser.get(f"{HOME}/login/to?host=demo.localhost:{port}&path=/x&state=" + "s" * 20, follow=False)
        assert got.location == "/"
