"""From the dashboard and every sign-in page, each link, form and redirect leads somewhere, for everybody; and is usable
without eyes, mouse or colours."""
from __future__ import annotations

import re
import shlex
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import urljoin, urlsplit

import pytest

from tests.product.authenticator import Authenticator
from tests.product.test_login_flow import signed_in
from tests.product.test_passkeys import add
from tests.product.test_requests import ask, person
from tests.product.web_world import HOME, Answer, Browser, WebWorld, web_world
from ussycode.catalog import TREE
from ussycode.doors.web.pages import HERE
from ussycode.identity import signing, store
from ussycode.mail import store as mail

FILLED = {"email": "alice@example.org", "new_name": "renamed", "code": "000000", "message": "hello", "name": "phone"}
"""What a person types into fields that are empty."""
ENDS = {200, 401, 422}
"""Statuses of pages: done, a code that is wrong, a name that is taken. Nothing is missing, forbidden or broken."""


@dataclass
class Form:
    """One form as a browser would send it."""

    method: str
    action: str
    fields: dict[str, str] = field(default_factory=dict)


class Page(HTMLParser):
    """What there is to follow on a page, and what somebody without eyes hears of it."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.forms: list[Form] = []
        self.commands: list[str] = []
        self.labelled: set[str] = set()
        self.unnamed: list[str] = []
        self.headings = 0
        self.language = self.title = ""
        self._inside: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        if tag == "a":
            self.links.append(given["href"])
        elif tag == "form":
            self.forms.append(Form(given.get("method", "get").upper(), given["action"]))
        elif tag in ("input", "textarea") and "name" in given:
            self.forms[-1].fields[given["name"]] = given.get("value") or FILLED.get(given["name"], "")
            named = given.get("type") == "hidden" or "label" in self._inside or given.get("id") in self.labelled
            self.unnamed += [] if named else [given["name"]]
        elif tag == "label":
            self.labelled.add(given.get("for", ""))
        if tag == "html":
            self.language = given.get("lang", "")
        if "data-copy" in given:
            self.commands.append(given["data-copy"])
        self.headings += tag == "h1"
        if tag not in ("input", "meta", "link", "br"):
            self._inside.append(tag)

    def handle_endtag(self, tag: str) -> None:
        while self._inside and self._inside.pop() != tag:
            pass

    def handle_data(self, data: str) -> None:
        self.title += data if "title" in self._inside else ""


@dataclass
class Crawler:
    """Follows everything once. Forms that sign out are kept for the end."""

    browser: Browser
    seen: set[tuple[str, str]] = field(default_factory=set)
    pages: int = 0

    async def visit(self, url: str) -> None:
        if not self._is_new("GET", url):
            return
        await self._take(await self.browser.get(url), f"GET {url}")

    async def _submit(self, form: Form, at: str) -> None:
        url = urljoin(at, form.action)
        if form.method == "GET" or not self._is_new("POST", url + str(sorted(form.fields))):
            return
        await self._take(await self.browser.form(url, **form.fields), f"POST {url} from {at}")

    async def _take(self, got: Answer, how: str) -> None:
        at = self.browser.at
        if "Location" in got.headers:
            assert re.fullmatch(r"(\d{4}--)?[a-z0-9-]+\.localhost:8443", urlsplit(at).netloc), how
            return  # a VM's own page comes next
        assert got.status in ENDS, (how, at, got.status, got.text[:500])
        if not got.headers["Content-Type"].startswith("text/html"):
            return
        page = Page(got.text)
        self.pages += 1
        if "<html" in got.text:
            assert HOME + "/" in page.links, f"no way back: {how}"
            assert page.headings == 1 and page.language == "en" and page.title.strip(), how
        assert page.unnamed == [], (how, page.unnamed)
        for command in page.commands:
            words = shlex.split(command.removeprefix("ssh -p 2222 "))
            assert "@" in words[0] or TREE.find(words[1:] or ["help"])[0], command
        for link in page.links:
            await self.visit(urljoin(at, link))
        for form in page.forms:
            if not form.action.endswith("logout"):
                await self._submit(form, at)

    def _is_new(self, method: str, url: str) -> bool:
        ours = urlsplit(url).netloc == "localhost:8443" or "/__ussycode/" in url
        if not ours or (method, url) in self.seen:
            return False
        self.seen.add((method, url))
        return True


@pytest.fixture
async def place(tmp_path: Path) -> AsyncIterator[WebWorld]:
    async with web_world(tmp_path, registration="open") as made:
        await signing.rotate(made.app)
        yield made


async def crawl(browser: Browser, *more: str) -> int:
    """Pages seen from the dashboard and the sign-in pages on."""
    crawler = Crawler(browser)
    begin = ("/", "/login", "/login?host=demo.localhost&path=/x", "/login?next=/requests", "/passkeys", "/requests",
             "/logout")
    for url in (*(HOME + path for path in begin), *more):
        await crawler.visit(url)
    return crawler.pages


async def letters(place: WebWorld) -> list[str]:
    """Addresses in the mails that were sent."""
    return re.findall(r"https://\S+", "\n".join(m.body for m in await place.app.db.read(mail.every)))


async def test_a_stranger(place: WebWorld) -> None:
    hosts = [f"https://{host}.localhost:8443/__ussycode/{page}" for host in ("demo", "3000--demo") for page in (
        "login", "request", "logout")]
    assert await crawl(Browser(place), *hosts) >= 6
    assert await crawl(Browser(place), *await letters(place)) >= 6


async def test_somebody_without_a_vm(place: WebWorld) -> None:
    browser = await signed_in(place)
    await add(browser, Authenticator(), "phone")
    demo = "https://demo.localhost:8443/__ussycode/"
    assert await crawl(browser, demo + "login?redirect=/__ussycode/request", demo + "logout") >= 6


async def test_somebody_with_a_vm_that_others_ask_for(place: WebWorld) -> None:
    await place.base.does(place.caller, "new --name demo")
    await place.base.does(place.caller, "email add alice@example.org")
    _, bob = await person(place, "bob")
    await ask(bob, message="please")
    link = (await place.base.does(place.caller, "share add-link demo"))["url"]
    browser = await signed_in(place)
    await add(browser, Authenticator(), "phone")
    fresh = str((await place.base.does(place.caller, "browser demo"))["url"])
    assert await crawl(browser, str(link), fresh, *await letters(place)) >= 8
    assert await crawl(bob, str(link)) >= 5


async def test_an_admin(place: WebWorld) -> None:
    await place.app.db.write(lambda tx: store.update_user(tx, place.caller.user, role="admin"))
    await place.base.does(place.caller, "new --name demo")
    browser = await signed_in(place)
    assert "<small>admin</small>" in (await browser.get(HOME + "/")).text
    assert await crawl(browser) >= 5


def luminance(colour: str) -> float:
    full = colour if len(colour) == 7 else "#" + "".join(c * 2 for c in colour[1:])
    parts = [int(full[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    high, low = sorted((luminance(one), luminance(other)), reverse=True)
    return (high + 0.05) / (low + 0.05)


def test_words_are_legible_in_the_light_and_in_the_dark() -> None:
    css = (HERE / "static" / "style.css").read_text()
    themes = [dict(re.findall(r"--(\w+): (#[0-9a-f]+)", block)) for block in re.findall(r":root \{([^}]*)\}", css)]
    assert len(themes) == 2
    for theme in themes:
        for words in ("ink", "soft", "mark", "good"):
            for ground in ("paper", "card"):
                assert contrast(theme[words], theme[ground]) >= 4.5, (words, ground)
        assert contrast(theme["ink"], theme["code"]) >= 4.5
    assert contrast("#fff", "#b3401f") >= 4.5 and ":focus-visible" in css
