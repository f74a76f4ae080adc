"""Somebody who may not open a VM asks its owner, who answers with one command or button; who asks learns nothing."""
from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.product.ssh_world import SshWorld, ssh_world
from tests.product.test_login_flow import signed_in
from tests.product.web_world import HOME, Answer, Browser, WebWorld, web_world
from tests.schemas import check
from ussycode.access.actions import Action
from ussycode.access.decide import decide
from ussycode.access.facts import Caller, Facts
from ussycode.base.db import events_table
from ussycode.cmdline.render import PLAIN
from ussycode.identity import ops as identity
from ussycode.identity import store
from ussycode.mail import store as mail
from ussycode.sharing import asking
from ussycode.sharing import ops as sharing

DEMO, ASK = "https://demo.localhost:8443", "/__ussycode/request"


@pytest.fixture
async def place(tmp_path: Path) -> AsyncIterator[WebWorld]:
    async with web_world(tmp_path) as made:
        await made.base.does(made.caller, "new --name demo")
        await address(made, made.caller, "alice@example.org")
        yield made


@pytest.fixture
async def lobby(guest_program: Path, tmp_path: Path) -> AsyncIterator[SshWorld]:
    async with ssh_world(guest_program, tmp_path) as made:
        yield made


async def address(place: WebWorld, who: Caller, email: str) -> None:
    await place.app.db.write(lambda tx: store.update_user(tx, who.user, email=email))


async def person(place: WebWorld, handle: str) -> tuple[Caller, Browser]:
    """Somebody else, and their browser."""
    caller = await place.base.person(handle)
    browser = Browser(place)
    await browser.post(str((await place.base.does(caller, "browser"))["url"]))
    return caller, browser


async def ask(browser: Browser, host: str = DEMO, **said: str) -> Answer:
    await browser.get(host + "/__ussycode/login?redirect=" + ASK)
    assert browser.at == host + ASK
    return await browser.form(host + ASK, follow=False, **said)


async def mails(place: WebWorld, to: str) -> list[str]:
    found = await place.app.db.read(mail.every)
    return [f"{m.subject}\n{m.body}" for m in found if m.to == to]


async def waiting(place: WebWorld) -> list[tuple[str, str, str]]:
    listed = await place.base.does(place.caller, "share requests")
    check("share requests", listed)
    return [(r["vm_name"], r["handle"], r["message"]) for r in listed["requests"]]  # type: ignore[attr-defined]


async def may_open(place: WebWorld, who: Caller, port: int | None = None) -> bool:
    found = await sharing.facts_of(place.app, "demo")
    assert found is not None
    return decide(Action.VM_OPEN, Facts(who, found, port or found.primary_port, now=place.base.clock.now())).allowed


async def told(place: WebWorld) -> list[str]:
    rows = await place.app.db.read(lambda tx: list(tx.conn.execute(events_table.select())))
    return [r.kind for r in rows if r.kind.startswith("share.") and "bob" in r.data]


async def test_a_request_reaches_the_owner_who_lets_them_in_with_one_command(place: WebWorld) -> None:
    bob, browser = await person(place, "bob")
    await address(place, bob, "bob@example.org")
    page = await browser.get(DEMO + "/__ussycode/login?redirect=" + ASK)
    assert "demo.localhost" in page.text and "<strong>bob</strong>, bob@example.org" in page.text
    assert "has been told" in (await ask(browser, message="  the plan,\nplease ")).text
    assert await waiting(place) == [("demo", "bob", "the plan, please")]
    [letter] = await mails(place, "alice@example.org")
    assert letter.startswith("bob asks to open demo\n") and "the plan, please" in letter
    assert f"{HOME}/requests" in letter and "share approve demo bob" in letter
    assert not await may_open(place, bob)
    check("share approve", await place.base.does(place.caller, "share approve demo bob"))
    assert await may_open(place, bob) and not await may_open(place, bob, 3000)
    assert await waiting(place) == []
    [letter] = await mails(place, "bob@example.org")
    assert "shares demo with you" in letter
    got = await ask(browser)
    assert (got.status, got.location) == (303, "/"), "who may enter goes in"
    assert await told(place) == ["share.asked", "share.added", "share.approved"]


async def test_the_owner_answers_on_a_page_and_only_by_its_buttons(place: WebWorld) -> None:
    bob, browser = await person(place, "bob")
    await ask(browser, "https://3000--demo.localhost:8443", message="<b>hi</b>")
    home = await signed_in(place)
    assert "bob asks to open demo" in (await home.get(HOME + "/")).text
    page = (await home.get(HOME + "/requests")).text
    assert "port 3000 of" in page and "&lt;b&gt;hi&lt;/b&gt;" in page and len(await waiting(place)) == 1
    assert (await home.get(HOME + "/requests/approve")).status == 405
    answer = {"vm": "demo", "who": "bob"}
    for origin in ("https://evil.example", DEMO):
        got = await home._go("POST", HOME + "/requests/approve", {"Origin": origin}, True, "vm=demo&who=bob")
        assert got.status == 403
    assert (await browser.form(HOME + "/requests/approve", **answer)).status == 422, "not the owner"
    assert not await may_open(place, bob, 3000)
    assert "Nobody asks." in (await home.form(HOME + "/requests/approve", **answer)).text
    assert await may_open(place, bob, 3000) and not await may_open(place, bob)


async def test_the_link_of_the_mail_leads_through_the_sign_in(place: WebWorld) -> None:
    late = Browser(place)
    assert "Sign in" in (await late.get(HOME + "/requests")).text and late.at == HOME + "/login?next=/requests"
    await late.post(str((await place.base.does(place.caller, "browser"))["url"]))
    assert late.at == HOME + "/requests"
    assert (await late.get(HOME + "/login?next=//evil.example")).status == 200 and late.at == HOME + "/"


async def test_nobody_learns_whether_there_is_a_vm(place: WebWorld) -> None:
    await place.base.does(place.caller, "new --name trashed")
    await place.base.does(place.caller, "rm trashed")
    _, browser = await person(place, "bob")
    shown = []
    for name in ("demo", "nothing", "trashed"):
        host = f"https://{name}.localhost:8443"
        offered = await browser.get(host + "/__ussycode/login?redirect=" + ASK)
        asked = await ask(browser, host)
        again = await ask(browser, host)
        shown.append([(a.status, a.body.replace(name.encode(), b"")) for a in (offered, asked, again)])
    assert shown[0] == shown[1] == shown[2]
    assert [r[0] for r in await waiting(place)] == ["demo"] and len(await mails(place, "alice@example.org")) == 1


@pytest.mark.parametrize("name", ["demo", "nothing"])
async def test_asking_has_a_limit_that_is_the_same_everywhere(place: WebWorld, name: str) -> None:
    _, browser = await person(place, "bob")
    got = [await ask(browser, f"https://{name}.localhost:8443") for _ in range(asking.ASKS_PER_DAY + 1)]
    assert [g.status for g in got] == [200] * asking.ASKS_PER_DAY + [429]
    place.base.clock.advance(asking.DAY + 1)
    assert (await ask(browser, f"https://{name}.localhost:8443")).status == 200


async def test_who_is_declined_hears_nothing_and_asks_in_vain_for_a_month(place: WebWorld) -> None:
    bob, browser = await person(place, "bob")
    first = await ask(browser)
    check("share decline", await place.base.does(place.caller, "share decline demo bob"))
    assert (await ask(browser)).body == first.body and await waiting(place) == []
    assert await place.base.fails(place.caller, "share approve demo bob") == ("request.unknown", 1)
    place.base.clock.advance(asking.DECLINED_SECONDS + 1)
    await asking.end_over(place.app)
    _, browser = bob, Browser(place)
    await browser.post(str((await place.base.does(bob, "browser"))["url"]))
    await ask(browser)
    assert len(await waiting(place)) == 1 and len(await mails(place, "alice@example.org")) == 2


async def test_a_request_is_forgotten_after_two_weeks(place: WebWorld) -> None:
    _, browser = await person(place, "bob")
    await ask(browser)
    place.base.clock.advance(asking.WAIT_SECONDS - 1)
    await asking.end_over(place.app)
    assert len(await waiting(place)) == 1
    place.base.clock.advance(2)
    assert await waiting(place) == []
    await asking.end_over(place.app)
    assert (await told(place)) == ["share.asked"]
    ended = [r for r in await place.app.db.read(lambda tx: list(tx.conn.execute(events_table.select())))
             if r.kind == "share.request_ended"]
    assert len(ended) == 1 and json.loads(ended[0].data)["who"].startswith("user_")


async def test_a_flood_fills_neither_the_list_nor_the_mailbox(
    place: WebWorld, monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(asking, "MAX_WAITING", 4)
    monkeypatch.setattr(asking, "MAILS_PER_DAY", 2)
    for number in range(6):
        _, browser = await person(place, f"bob{number}")
        assert "has been told" in (await ask(browser)).text
    assert len(await waiting(place)) == 4 and len(await mails(place, "alice@example.org")) == 2


async def test_only_the_own_page_of_somebody_signed_in_asks(place: WebWorld) -> None:
    stranger = Browser(place)
    await stranger.get(DEMO + ASK)
    assert stranger.at.startswith(HOME + "/login?")
    got = await place.ask("POST", DEMO + ASK, data="message=x", headers={"Origin": DEMO})
    assert got.status == 303
    _, browser = await person(place, "bob")
    await browser.get(DEMO + "/__ussycode/login")
    for origin in (HOME, "https://evil.localhost:8443"):
        assert (await browser._go("POST", DEMO + ASK, {"Origin": origin}, True, "message=x")).status == 403
    assert await waiting(place) == []


async def test_others_see_and_answer_nothing(place: WebWorld) -> None:
    _, browser = await person(place, "bob")
    await ask(browser)
    mallory = await place.base.person("mallory")
    assert (await place.base.does(mallory, "share requests")) == {"requests": []}
    for line in ("share approve demo bob", "share decline demo bob"):
        assert (await place.base.fails(mallory, line))[0] == "vm.unknown"
    text = await place.base.run(place.caller, "share requests", json=False)
    assert text.view is not None and "share approve demo bob" in text.view.text(PLAIN)


async def test_the_lobby_greets_with_it(lobby: SshWorld) -> None:
    olive = await lobby.member("olive")
    await olive.ssh("host", "new", "--name", "demo")
    bob = await lobby.member("bob")
    found = await identity.recognise(lobby.app, bob.key.fingerprint)
    assert found is not None
    assert not await asking.ask(lobby.app, found[0], asking.Place("demo.localhost", "demo"), "")
    async with olive.terminal("host") as tty:
        await tty.until("bob asks to open demo: share approve demo bob")
