"""E-mail identity: addresses are proven, sign-ins are mailed, and nobody learns whose address is whose."""
from __future__ import annotations

import asyncio
import hashlib
import re
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlencode

import aiohttp
import pytest

from tests.product.web_world import HOME, Answer, Browser, WebWorld, listening, web_world
from ussycode.access.facts import Caller, Role
from ussycode.cmdline.render import PLAIN
from ussycode.doors.web.app import serve_web
from ussycode.identity import emails, sessions, store
from ussycode.identity import ops as identity
from ussycode.mail import ops as mail_ops
from ussycode.mail import store as mail
from ussycode.mail.model import Mail
from ussycode.mail.relay import Outbox
from ussycode.tokens import ops as token_ops
from ussycode.tokens.verify import TokenVerifier


@pytest.fixture
async def place(tmp_path: Path) -> AsyncIterator[WebWorld]:
    async with web_world(tmp_path) as made:
        yield made


async def mails(place: WebWorld) -> list[Mail]:
    return await place.app.db.read(mail.every)


async def code(place: WebWorld) -> str:
    found = re.search(r"\b[0-9]{6}\b", (await mails(place))[-1].body)
    assert found is not None
    return found[0]


async def does(place: WebWorld, line: str) -> dict[str, object]:
    place.base.clock.advance(1)
    return await place.base.does(place.caller, line)


async def form(place: WebWorld, at: str, **fields: str) -> Answer:
    place.base.clock.advance(1)
    headers = {"Content-Type": "application/x-www-form-urlencoded", "Origin": HOME, "Accept": "text/html"}
    return await place.ask("POST", HOME + at, data=urlencode(fields), headers=headers)


def pending(page: Answer) -> str:
    found = re.search(r'name="id" value="([^"]+)"', page.text)
    assert found is not None
    return found[1]


async def test_an_address_is_told_to_apps_only_once_it_is_proven(place: WebWorld) -> None:
    await does(place, "email add Alice@Example.org")
    assert (await does(place, "whoami"))["email"] == ""
    assert (await mails(place))[-1].to == "alice@example.org"
    assert (await place.base.fails(place.caller, "email verify alice@example.org 000000"))[0] == "email.code_wrong"
    await does(place, f"email verify alice@example.org {await code(place)}")
    assert await does(place, "email ls") == {
        "email": "alice@example.org",
        "addresses": [{"address": "alice@example.org", "verified": True, "primary": True}],
    }
    await does(place, "email add a@example.net")
    await does(place, f"email verify a@example.net {await code(place)}")
    assert (await does(place, "email primary a@example.net"))["email"] == "a@example.net"
    assert (await does(place, "email ls"))["email"] == "a@example.net"
    for address in ("alice@example.org", "a@example.net"):
        await does(place, f"email rm {address}")
    assert (await does(place, "email ls"))["email"] == ""


async def test_one_address_belongs_to_one_account(place: WebWorld) -> None:
    bob = await place.base.person("bob")
    await place.base.does(bob, "email add shared@example.org")
    bobs = await code(place)
    await does(place, "email add shared@example.org")
    await does(place, f"email verify shared@example.org {await code(place)}")
    assert (await place.base.fails(bob, f"email verify shared@example.org {bobs}"))[0] == "email.code_wrong"
    assert (await place.base.does(bob, "email ls"))["email"] == ""


async def test_the_mails_link_proves_it_too_but_only_by_a_button(place: WebWorld) -> None:
    await does(place, "email add alice@example.org")
    found = re.search(r"/email/(\S+)", (await mails(place))[-1].body)
    assert found is not None
    page = await place.ask("GET", f"{HOME}/email/{found[1]}", headers={"Accept": "text/html"})
    assert "Verify alice@example.org?" in page.text
    assert (await does(place, "whoami"))["email"] == ""
    assert "is verified" in (await form(place, f"/email/{found[1]}")).text
    assert (await form(place, f"/email/{found[1]}")).status == 401


async def test_a_mailed_code_signs_in_and_goes_where_the_browser_wanted(place: WebWorld) -> None:
    await does(place, "email add alice@example.org")
    await does(place, f"email verify alice@example.org {await code(place)}")
    asked = await form(place, "/login/mail", email="alice@example.org", host="demo.localhost", path="/page")
    assert "demo.localhost" in asked.text
    assert "sign in at demo.localhost" in (await mails(place))[-1].body
    done = await form(place, "/login/code", id=pending(asked), code=await code(place))
    assert (done.status, done.location) == (303, "https://demo.localhost:8443/__ussycode/login?redirect=%2Fpage")
    assert done.cookies["__Host-ussycode"].value
    again = await form(place, "/login/code", id=pending(asked), code=await code(place))
    assert again.status == 401


async def test_guesses_are_few(place: WebWorld) -> None:
    await does(place, "email add alice@example.org")
    await does(place, f"email verify alice@example.org {await code(place)}")
    asked = await form(place, "/login/mail", email="alice@example.org")
    right = await code(place)
    wrong = "111111" if right != "111111" else "222222"
    for _ in range(emails.ATTEMPTS):
        assert (await form(place, "/login/code", id=pending(asked), code=wrong)).status == 401
    assert (await form(place, "/login/code", id=pending(asked), code=right)).status == 401
    for _ in range(10):
        await form(place, "/login/mail", email="alice@example.org")
    assert len([m for m in await mails(place) if "sign in" in m.body]) < emails.CODES_PER_HOUR


async def test_strangers_and_members_see_the_same_page(tmp_path: Path) -> None:
    async with web_world(tmp_path, registration="closed") as place:
        await does(place, "email add alice@example.org")
        await does(place, f"email verify alice@example.org {await code(place)}")
        pages = [(await form(place, "/login/mail", email=e)).text for e in ("alice@example.org", "nobody@example.org")]
        plain = [re.sub(r"code_[a-z2-7]+|alice|nobody", "X", page) for page in pages]
        assert plain[0] == plain[1]
        assert {m.to for m in await mails(place)} == {"alice@example.org"}


async def test_who_is_invited_may_join_by_mail(tmp_path: Path) -> None:
    async with web_world(tmp_path, registration="invite") as place:
        await form(place, "/login/mail", email="carol@example.org")
        assert await mails(place) == []
        assert (await place.base.fails(await _member(place), "invite carol@example.org"))[0] == "access.role"
        await does(place, "invite carol@example.org")
        asked = await form(place, "/login/mail", email="carol@example.org")
        done = await form(place, "/login/code", id=pending(asked), code=await code(place))
        assert done.status == 303
        browser = Browser(place)
        browser.jar["localhost:8443"] = {"__Host-ussycode": done.cookies["__Host-ussycode"].value}
        assert "carol" in (await browser.get(HOME + "/")).text


async def _member(place: WebWorld) -> Caller:
    return replace(place.caller, role=Role.CITIZEN)


async def test_another_sites_form_mails_nothing(place: WebWorld) -> None:
    headers = {"Origin": "https://evil.example", "Accept": "text/html"}
    answer = await place.ask("POST", HOME + "/login/mail", data="email=a@example.org", headers=headers)
    assert answer.status == 403
    assert await mails(place) == []


@pytest.mark.parametrize("bad", [
    "", "plain", "a@b@c", "a b@example.org", "a@example.org\r\nBcc: x@y.z", "a@-", "ä@example.org", "a@" + "b" * 300,
])
async def test_what_is_no_address_is_refused(place: WebWorld, bad: str) -> None:
    assert (await form(place, "/login/mail", email=bad)).status == 422
    assert await mails(place) == []


async def test_browsers_are_listed_and_signed_out(place: WebWorld) -> None:
    for _ in range(2):
        browser = Browser(place)
        link = str((await does(place, "browser"))["url"])
        await browser.post(link)
    listed = (await does(place, "browser --list"))["sessions"]
    assert isinstance(listed, list) and len(listed) == 2
    await does(place, f"browser --revoke {listed[0]['id']}")
    assert len((await does(place, "browser --list"))["sessions"]) == 1  # type: ignore[arg-type]
    await does(place, "logout --all")
    assert (await does(place, "browser --list")) == {"sessions": []}
    assert "Sign in" in (await browser.get(HOME + "/login")).text


async def test_who_stays_away_is_signed_out(place: WebWorld) -> None:
    await Browser(place).post(str((await does(place, "browser"))["url"]))
    place.base.clock.advance(sessions.IDLE_SECONDS - 1)
    assert await sessions.end_idle(place.app) == 0
    place.base.clock.advance(2)
    assert await sessions.end_idle(place.app) == 1


async def test_a_session_ends_after_thirty_days_of_daily_use(place: WebWorld) -> None:
    browser = Browser(place)
    await browser.post(str((await does(place, "browser"))["url"]))
    for _ in range(29):
        place.base.clock.advance(86_400)
        assert "Your machines" in (await browser.get(HOME + "/")).text
        await token_ops.write_uses(place.app)
        assert await sessions.end_idle(place.app) == 0
    place.base.clock.advance(86_400)
    assert "Your machines" not in (await browser.get(HOME + "/")).text


async def test_sessions_are_kept_as_digests_and_outlive_the_process(place: WebWorld, tmp_path: Path) -> None:
    browser = Browser(place)
    await browser.post(str((await does(place, "browser"))["url"]))
    cookie = browser.jar["localhost:8443"]["__Host-ussycode"]
    kept = await place.app.db.read(store.live_sessions)
    assert [s.digest for s in kept] == [hashlib.sha256(cookie.encode()).hexdigest()]
    path, serving = tmp_path / "again.sock", None
    try:
        serving = asyncio.create_task(serve_web(place.app, TokenVerifier(place.app), listening(path)))
        async with aiohttp.ClientSession(connector=aiohttp.UnixConnector(str(path))) as client:
            head = {"X-Forwarded-Host": "localhost:8443", "Cookie": f"__Host-ussycode={cookie}"}
            async with client.get("http://control/", headers=head) as got:
                assert "Your machines" in await got.text()
    finally:
        assert serving is not None
        serving.cancel()
        await asyncio.gather(serving, return_exceptions=True)


async def test_flows_name_the_outbox_while_no_relay_is_set(place: WebWorld) -> None:
    await place.app.db.write(lambda tx: store.update_user(tx, place.caller.user, role="admin"))
    found = await identity.recognise(place.app, place.alice.public.fingerprint)
    assert found is not None
    for line in ("email add alice@example.org", "invite bob@example.org"):
        outcome = await place.base.run(found[0], line)
        assert outcome.view is not None and "`ussycode outbox`" in outcome.view.text(PLAIN)
    assert "<code>ussycode outbox</code>" in (await form(place, "/login/mail", email="alice@example.org")).text


async def test_without_a_relay_mails_are_kept_for_the_operator(place: WebWorld) -> None:
    await does(place, "email add alice@example.org")
    assert await mail_ops.deliver(place.app, Outbox()) == 1
    assert [m.state.value for m in await mails(place)] == ["kept"]
    assert await mail_ops.deliver(place.app, Outbox()) == 0


async def test_page_and_mail_name_the_machine_being_opened(place: WebWorld) -> None:
    await does(place, "email add alice@example.org")
    await does(place, f"email verify alice@example.org {await code(place)}")
    asked = await place.ask("GET", HOME + "/login?host=demo.localhost&path=/x", headers={"Accept": "text/html"})
    assert "To open <strong>demo.localhost</strong>" in asked.text
    await form(place, "/login/mail", email="alice@example.org", host="demo.localhost", path="/x")
    assert "sign in at demo.localhost" in (await mails(place))[-1].body


async def test_a_browser_has_the_role_of_now(place: WebWorld) -> None:
    browser = Browser(place)
    url = (await does(place, "browser"))["url"]
    assert "<small>newbie</small>" in (await browser.post(str(url))).text
    await place.app.db.write(lambda tx: store.update_user(tx, place.caller.user, role="citizen"))
    assert "<small>citizen</small>" in (await browser.get(HOME + "/")).text
