"""Pages show what the command line says, carry the headers that browsers need, and never run what people typed."""
from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.product.web_world import HOME, Answer, Browser, WebWorld, web_world
from ussycode.runtime.drivers.fake import FakeDriver

PAGE = {"Accept": "text/html"}


@pytest.fixture
async def place(tmp_path: Path) -> AsyncIterator[WebWorld]:
    async with web_world(tmp_path) as made:
        yield made


async def signed_in(place: WebWorld) -> Browser:
    browser = Browser(place)
    await browser.post(str((await place.base.does(place.caller, "browser"))["url"]))
    return browser


async def test_the_front_page_is_three_commands(place: WebWorld) -> None:
    got = await place.ask("GET", HOME + "/", headers=PAGE)
    assert got.status == 200
    for command in ("ssh -p 2222 localhost<", "ssh -p 2222 localhost new<", "ssh -p 2222 localhost browser<"):
        assert command in got.text


async def test_the_dashboard_is_ls(place: WebWorld) -> None:
    browser = await signed_in(place)
    assert "No machines yet" in (await browser.get(HOME + "/")).text
    await place.base.does(place.caller, "new --name demo")
    for path in ("/", "/dashboard/vms"):
        shown = (await browser.get(HOME + path)).text
        assert 'href="https://demo.localhost:8443/"' in shown
        assert 'data-copy="ssh -p 2222 demo@localhost"' in shown
        assert "running" in shown


async def test_the_dashboard_says_what_stands_around_a_machine(tmp_path: Path) -> None:
    async with web_world(tmp_path, containers="true") as place:
        await place.base.does(place.caller, "new --name heavy")
        await place.base.does(place.caller, "new --name light --isolation container")
        shown = (await (await signed_in(place)).get(HOME + "/")).text
        names = ("heavy", "light")
        heavy, light = (shown.partition(f"<strong>{name}</strong>")[2].partition("</li>")[0] for name in names)
        assert "· container" in light and "· VM" in heavy and "container" not in heavy


async def test_the_list_is_for_its_owner(place: WebWorld) -> None:
    got = await place.ask("GET", HOME + "/dashboard/vms")
    assert (got.status, got.location) == (303, "/login")


async def test_what_a_guest_says_is_text(tmp_path: Path) -> None:
    driver = FakeDriver()
    async with web_world(tmp_path, driver=driver) as place:
        await place.base.does(place.caller, "new --name demo")
        driver.crash(next(iter(driver.vms)), "<script>alert(1)</script>", "")
        browser = await signed_in(place)
        shown = (await browser.get(HOME + "/")).text
        while "alert" not in shown:
            shown = (await browser.get(HOME + "/")).text
        assert "&lt;script&gt;alert(1)&lt;/script&gt;" in shown and "<script>alert" not in shown


@pytest.mark.parametrize("path", ["/", "/login", "/nope", "/exec", "/healthz", "/__ussycode/static/style.css"])
async def test_every_answer_has_the_headers(place: WebWorld, path: str) -> None:
    got = await place.ask("GET", HOME + path, headers=PAGE)
    policy = got.headers["Content-Security-Policy"]
    assert "default-src 'self'" in policy and "frame-ancestors 'none'" in policy and "unsafe" not in policy
    assert got.headers["X-Content-Type-Options"] == "nosniff"
    assert got.headers["Referrer-Policy"] == "same-origin"
    assert got.headers["X-Request-Id"]


async def test_pages_need_nothing_from_elsewhere(place: WebWorld) -> None:
    browser = await signed_in(place)
    shown = (await browser.get(HOME + "/")).text
    assert "<style" not in shown and "style=" not in shown and "onclick" not in shown
    for asset in ("style.css", "page.js", "mark.svg"):
        assert f'"/__ussycode/static/{asset}"' in shown
        for host in ("localhost", "demo.localhost"):
            url = f"https://{host}:8443/__ussycode/static/{asset}"
            got = await place.ask("GET", url)
            assert got.status == 200
            again = {"If-None-Match": got.headers["ETag"]}
            assert (await place.ask("GET", url, headers=again)).status == 304


@pytest.mark.parametrize("path", [
    "/__ussycode/static/../app.py", "/__ussycode/static/%2e%2e%2fapp.py", "/__ussycode/static/", "/static/style.css",
])
async def test_only_the_pages_own_files_are_served(place: WebWorld, path: str) -> None:
    assert (await place.ask("GET", HOME + path)).status == 404


async def test_nothing_here_is_a_page_or_json(place: WebWorld) -> None:
    page = await place.ask("GET", HOME + "/nope", headers=PAGE)
    assert page.status == 404 and page.headers["Content-Type"].startswith("text/html")
    program = await place.ask("GET", HOME + "/nope")
    assert (program.status, program.json) == (404, {"error": "there is nothing at this address"})


@pytest.mark.parametrize("host", ["evil.example", "localhost.evil.example", "a.b.localhost", "", "x", "127.0.0.1"])
async def test_other_hosts_are_never_the_main_site(place: WebWorld, host: str) -> None:
    got = await place.ask("GET", "https://localhost/", headers={"X-Forwarded-Host": host or " ", **PAGE})
    assert got.status == 404 and "ssh" not in got.text


async def test_a_wrong_method_says_which_are_right(place: WebWorld) -> None:
    got = await place.ask("DELETE", HOME + "/logout")
    assert (got.status, got.headers["Allow"]) == (405, "GET, POST")


async def test_it_says_that_it_lives(place: WebWorld) -> None:
    assert (await place.ask("GET", HOME + "/healthz")).json == {"status": "ok"}


async def test_one_address_signs_in_so_often_and_hears_when_it_may_again(tmp_path: Path) -> None:
    async with web_world(tmp_path) as place:
        async def tries(address: str) -> Answer:
            headers = {"X-Forwarded-For": address, "Accept": "text/html"}
            return await place.ask("POST", HOME + "/login/code", data="id=x&code=000000", headers=headers)

        answers = [await tries("192.0.2.1") for _ in range(10)]
        assert 429 not in [a.status for a in answers[:5]] and answers[-1].status == 429
        assert int(answers[-1].headers["Retry-After"]) >= 1 and "too many attempts" in answers[-1].text
        assert (await tries("192.0.2.2")).status != 429 and (await tries("127.0.0.1")).status != 429
        six = [(await tries(f"2001:db8::{n}")).status for n in range(10)]
        assert six[-1] == 429
        place.base.clock.advance(60)
        assert (await tries("192.0.2.1")).status != 429
