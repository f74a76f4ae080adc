"""A passkey signs its owner's browser in and nobody else's; what a cheat may send is refused without a hint."""
from __future__ import annotations

import copy
import json
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.product.authenticator import PRESENT, SYNCABLE, SYNCED, VERIFIED, Authenticator, data, text
from tests.product.test_login_flow import signed_in
from tests.product.web_world import HOME, Answer, Browser, WebWorld, web_world
from tests.schemas import check
from ussycode.base.db import Tx, events_table
from ussycode.base.secrets import digest
from ussycode.identity import ceremonies, signing, store
from ussycode.identity.ceremonies import Place, Refused
from ussycode.mail import store as mail

REFUSED = {"error": "this passkey was not accepted"}
DEMO = "https://demo.localhost:8443"


@pytest.fixture
async def place(tmp_path: Path) -> AsyncIterator[WebWorld]:
    async with web_world(tmp_path) as made:
        await signing.rotate(made.app)
        yield made


async def begun(browser: Browser, path: str = "/login/passkey/begin") -> dict[str, Any]:
    got = await browser.send(HOME + path, None)
    assert got.status == 200 and got.headers["Cache-Control"] == "no-store"
    options: dict[str, Any] = got.json
    return options


async def add(browser: Browser, device: Authenticator, name: str = "") -> Answer:
    options = await begun(browser, "/passkeys/begin")
    handle = data(options["user"]["id"]).hex()
    return await browser.send(HOME + "/passkeys/finish", {
        "credential": device.make(options), "handle": handle, "name": name})


async def show(browser: Browser, device: Authenticator, query: str = "") -> Answer:
    answer = device.show(await begun(browser))
    return await browser.send(HOME + "/login/passkey/finish" + query, {"credential": answer})


async def owner(place: WebWorld, name: str = "phone", **said: Any) -> tuple[Browser, Authenticator]:
    browser, device = await signed_in(place), Authenticator(**said)
    assert (await add(browser, device, name)).status == 200
    return browser, device


async def events(place: WebWorld, kind: str) -> list[dict[str, Any]]:
    def find(tx: Tx) -> list[dict[str, Any]]:
        rows = tx.conn.execute(events_table.select().where(events_table.c.kind == kind))
        return [json.loads(row.data) | {"subject": row.subject} for row in rows]

    return await place.app.db.read(find)


async def is_in(browser: Browser) -> bool:
    return "Your machines" in (await browser.get(HOME + "/")).text


async def test_a_passkey_signs_in_without_a_name_being_typed(place: WebWorld) -> None:
    _, device = await owner(place)
    fresh = Browser(place)
    asked = await begun(fresh)
    assert asked["allowCredentials"] == [] and asked["userVerification"] == "required" and asked["rpId"] == "localhost"
    got = await show(fresh, device)
    assert got.json == {"location": "/"} and await is_in(fresh)
    listed = (await place.base.does(place.caller, "passkey list"))["passkeys"]
    assert [(p["name"], p["blocked"], "last_used_at" in p) for p in listed] == [("phone", False, True)]


async def test_what_is_asked_of_a_new_one(place: WebWorld) -> None:
    browser, device = await owner(place)
    asked = await begun(browser, "/passkeys/begin")
    chosen = asked["authenticatorSelection"]
    assert (chosen["residentKey"], chosen["userVerification"]) == ("required", "required")
    assert asked["rp"] == {"id": "localhost", "name": "localhost"} and asked["attestation"] == "none"
    assert [data(c["id"]) for c in asked["excludeCredentials"]] == [device.credential]
    assert data(asked["user"]["id"]) == device.handle
    who = (await place.base.does(place.caller, "whoami"))["user_id"]
    assert str(who).encode() not in device.handle and len(device.handle) == 32


async def test_it_goes_on_to_where_the_browser_wanted_to_go(place: WebWorld) -> None:
    _, device = await owner(place)
    fresh = Browser(place)
    await fresh.get(DEMO + "/__ussycode/login?redirect=/notes")
    assert (await show(fresh, device)).json == {"location": DEMO + "/__ussycode/login?redirect=%2Fnotes"}
    query = "?host=evil.example&path=//evil.example"
    assert (await show(Browser(place), device, query)).json == {"location": "/"}


async def test_devices_that_do_not_count_and_synced_ones_work(place: WebWorld) -> None:
    browser, device = await owner(place, step=0, flags=PRESENT | VERIFIED | SYNCABLE | SYNCED)
    for _ in range(2):
        assert (await show(Browser(place), device)).status == 200
    page = (await browser.get(HOME + "/passkeys")).text
    assert "phone" in page and "synced" in page and "last used" in page


async def test_removing_a_passkey_ends_what_it_began_and_only_that(place: WebWorld) -> None:
    browser, device = await owner(place)
    carried = Browser(place)
    await show(carried, device)
    await carried.get(DEMO + "/__ussycode/login")
    shared = {(e["passkey"]) for e in await events(place, "session.started") if "passkey" in e}
    assert len(shared) == 1
    got = await place.base.does(place.caller, "passkey remove phone")
    assert got["sessions_ended"] == 1
    assert not await is_in(carried) and await is_in(browser)
    host_session = carried.jar["demo.localhost:8443"]["__Host-ussycode"]
    ended = {e["subject"] for e in await events(place, "session.ended")}
    assert digest(host_session) in ended
    assert (await show(Browser(place), device)).json["error"] == REFUSED["error"]
    assert [e["name"] for e in await events(place, "passkey.removed")] == ["phone"]


async def test_renaming_and_removing_on_the_page(place: WebWorld) -> None:
    browser, _ = await owner(place)
    await add(browser, Authenticator())
    assert (await browser.form(HOME + "/passkeys/rename", name="phone", new_name="--json")).status == 200
    names = [p["name"] for p in (await place.base.does(place.caller, "passkey list"))["passkeys"]]  # type: ignore[attr-defined]
    assert names == ["--json", "passkey-1"]
    taken = await browser.form(HOME + "/passkeys/rename", name="--json", new_name="passkey-1")
    assert taken.status == 422 and "already have" in taken.text
    await browser.form(HOME + "/passkeys/remove", name="--json")
    assert "--json" not in (await browser.get(HOME + "/passkeys")).text
    kinds = [await events(place, f"passkey.{k}") for k in ("added", "renamed", "removed")]
    assert [len(found) for found in kinds] == [2, 1, 1]


async def test_commands_answer_as_their_schemas_say(place: WebWorld) -> None:
    _, device = await owner(place)
    await show(Browser(place), device)
    for line in ("passkey list", "passkey rename phone pocket", "passkey remove pocket"):
        check(" ".join(line.split()[:2]), await place.base.does(place.caller, line))


async def test_commands_refuse_names_that_are_not_there_or_taken(place: WebWorld) -> None:
    browser, _ = await owner(place)
    await add(browser, Authenticator(), "laptop")
    assert await place.base.fails(place.caller, "passkey rename nope x") == ("passkey.unknown", 1)
    assert await place.base.fails(place.caller, "passkey rename phone laptop") == ("passkey.name_taken", 1)
    assert await place.base.fails(place.caller, "passkey remove nope") == ("passkey.unknown", 1)
    bob = await place.base.person("bob")
    assert await place.base.fails(bob, "passkey remove phone") == ("passkey.unknown", 1)
    assert (await place.base.does(bob, "passkey list"))["passkeys"] == []


Cheat = Callable[[Authenticator], object]
CHEATS: dict[str, Cheat] = {
    "a page of a VM": lambda d: setattr(d, "origin", DEMO),
    "another site": lambda d: setattr(d, "origin", "https://evil.example"),
    "without TLS": lambda d: setattr(d, "origin", "http://localhost:8443"),
    "another port": lambda d: setattr(d, "origin", "https://localhost"),
    "for another domain": lambda d: setattr(d, "rp_id", "evil.example"),
    "nobody touched it": lambda d: setattr(d, "flags", VERIFIED),
    "its person not verified": lambda d: setattr(d, "flags", PRESENT),
    "another account's handle": lambda d: setattr(d, "handle", b"x" * 32),
    "no handle": lambda d: setattr(d, "handle", b""),
    "another key": lambda d: setattr(d, "key", Authenticator().key),
    "a credential nobody has": lambda d: setattr(d, "credential", b"y" * 32),
}


@pytest.mark.parametrize("cheat", CHEATS)
async def test_cheats_are_refused_alike(place: WebWorld, cheat: str) -> None:
    _, device = await owner(place)
    honest = copy.copy(device)
    CHEATS[cheat](device)
    fresh = Browser(place)
    got = await show(fresh, device)
    assert got.status == 401 and got.json["error"] == REFUSED["error"]
    assert "__Host-ussycode" not in fresh.jar["localhost:8443"]
    known = cheat != "a credential nobody has"
    assert len(await events(place, "passkey.refused")) == known
    honest.count = device.count
    assert (await show(Browser(place), honest)).status == 200


@pytest.mark.parametrize("cheat", [c for c in CHEATS if "handle" not in c and "key" not in c and "nobody has" not in c])
async def test_no_passkey_is_made_by_a_cheat(place: WebWorld, cheat: str) -> None:
    browser, device = await signed_in(place), Authenticator()
    CHEATS[cheat](device)
    assert (await add(browser, device)).status == 400
    assert (await place.base.does(place.caller, "passkey list"))["passkeys"] == []


async def test_a_challenge_is_for_one_use_one_browser_one_purpose_and_five_minutes(place: WebWorld) -> None:
    home, device = await owner(place, step=0)
    finish = HOME + "/login/passkey/finish"
    first, other = Browser(place), Browser(place)
    options = await begun(first)
    answer = device.show(options)
    await begun(other)
    assert (await other.send(finish, {"credential": answer})).status == 401, "another browser's challenge"
    kept = dict(first.jar["localhost:8443"])
    assert (await first.send(finish, {"credential": answer})).status == 200
    first.jar["localhost:8443"] = dict(kept)
    assert (await first.send(finish, {"credential": answer})).status == 401, "a replayed challenge"
    late = Browser(place)
    answer = device.show(await begun(late))
    place.base.clock.advance(301)
    assert (await late.send(finish, {"credential": answer})).status == 401, "an old challenge"
    for_making = await begun(await signed_in(place), "/passkeys/begin")
    confused = Browser(place)
    await begun(confused)
    answer = device.show(for_making)
    assert (await confused.send(finish, {"credential": answer})).status == 401, "a challenge for making one"
    invented = device.show({"challenge": text(b"\xff" * 56)})
    assert (await confused.send(finish, {"credential": invented})).status == 401, "a challenge that is not ours"
    answer = device.show(await begun(confused), kind="webauthn.create")
    assert (await confused.send(finish, {"credential": answer})).status == 401, "an answer to something else"
    reasons = [e["reason"] for e in await events(place, "passkey.refused")]
    assert reasons == ["challenge"] * 5 + ["unproven"]
    told = place.app.telemetry.metrics().decode()
    assert 'ussycode_sign_ins_total{how="passkey",result="challenge"} 5.0' in told
    assert await is_in(home)


async def test_the_challenge_survives_a_change_of_signing_keys(place: WebWorld) -> None:
    _, device = await owner(place)
    fresh = Browser(place)
    place.base.clock.advance(signing.ROTATE_SECONDS - signing.LEAD_SECONDS - 1)
    options = await begun(fresh)
    place.base.clock.advance(2)
    await signing.rotate(place.app)
    got = await fresh.send(HOME + "/login/passkey/finish", {"credential": device.show(options)})
    assert got.status == 200


async def test_another_persons_credential_signs_in_its_owner_alone(place: WebWorld) -> None:
    _, device = await owner(place)
    browser = await signed_in(place)
    again = Authenticator(credential=device.credential)
    assert (await add(browser, again)).json["error"] == "that passkey is registered already"
    thief = copy.copy(device)
    thief.key = again.key
    assert (await show(Browser(place), thief)).status == 401


async def test_a_copy_blocks_the_passkey_and_ends_what_it_began(place: WebWorld) -> None:
    home, device = await owner(place)
    for _ in range(3):
        await show(Browser(place), device)
    copied = copy.copy(device)
    await show(thief := Browser(place), copied)
    assert await is_in(thief)
    assert (await show(Browser(place), device)).status == 401, "the owner's counts less than the copy did"
    assert not await is_in(thief) and await is_in(home)
    copied.count += 100
    assert (await show(Browser(place), copied)).status == 401
    listed = (await place.base.does(place.caller, "passkey list"))["passkeys"]
    assert [p["blocked"] for p in listed] == [True]  # type: ignore[attr-defined]
    assert len(await events(place, "passkey.copied")) == 1
    assert "a copy of it was seen" in (await home.get(HOME + "/passkeys")).text


async def test_the_owner_hears_of_a_new_passkey_and_of_a_copy(place: WebWorld) -> None:
    await place.app.db.write(lambda tx: store.update_user(tx, place.caller.user, email="alice@example.org"))
    _, device = await owner(place)
    device.count = 0
    await show(Browser(place), device)
    mails = await place.app.db.read(lambda tx: mail.due(tx, 10))
    assert [m.to for m in mails] == ["alice@example.org"] * 2
    assert "phone was added" in mails[0].body and "counted backwards" in mails[1].body


async def test_only_a_signed_in_browsers_own_page_may_add_change_or_remove(place: WebWorld) -> None:
    browser, device = await owner(place)
    stranger = Browser(place)
    for path in ("begin", "finish", "rename", "remove"):
        assert (await stranger.send(f"{HOME}/passkeys/{path}", {})).status == 401
        assert (await browser.send(f"{HOME}/passkeys/{path}", {}, "https://evil.example")).status == 403
        assert (await browser.send(f"{HOME}/passkeys/{path}", {}, DEMO)).status == 403
    for path in ("begin", "finish"):
        assert (await stranger.send(f"{HOME}/login/passkey/{path}", {}, DEMO)).status == 403
    got = await stranger.get(HOME + "/passkeys")
    assert stranger.at == HOME + "/login" and "Sign in with a passkey" in got.text
    assert (await show(stranger, device)).status == 200


async def test_a_passkey_begun_before_signing_out_is_not_kept(place: WebWorld) -> None:
    browser, device = await signed_in(place), Authenticator()
    options = await begun(browser, "/passkeys/begin")
    other = await signed_in(place)
    body = {"credential": device.make(options), "handle": device.handle.hex()}
    assert (await other.send(HOME + "/passkeys/finish", body)).status == 400, "made for another session"
    await place.base.does(place.caller, "logout --all")
    assert (await browser.send(HOME + "/passkeys/finish", body)).status == 401


async def test_an_account_has_room_for_twenty(place: WebWorld) -> None:
    browser = await signed_in(place)
    for _ in range(20):
        assert (await add(browser, Authenticator())).status == 200
    assert (await browser.send(HOME + "/passkeys/begin", None)).json["error"].endswith("at most 20 passkeys")


@pytest.mark.parametrize("body", [
    "", "[]", "null", '{"credential": 1}', '{"credential": {}}', '{"credential": {"id": 1}}', "[" * 9000,
    '{"credential": {"response": {"clientDataJSON": "!!"}}}', '{"credential": {"response": []}}', "x" * 40_000,
])
async def test_what_is_no_answer_is_refused(place: WebWorld, body: str) -> None:
    browser = await signed_in(place)
    await begun(browser, "/passkeys/begin")
    for path in ("/login/passkey/finish", "/passkeys/finish"):
        assert (await browser.send(HOME + path, body)).status in (400, 401, 413)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text() | st.binary(max_size=200).map(text),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4), max_leaves=8,
)
PLACE, CHALLENGE, DEVICE = Place("localhost", HOME), b"c" * 56, Authenticator()
MADE = DEVICE.make({"challenge": text(CHALLENGE), "user": {"id": text(b"h" * 32)}})
SHOWN = DEVICE.show({"challenge": text(CHALLENGE)})
FIELDS = st.sampled_from(["id", "rawId", "type", "response", "clientDataJSON", "attestationObject", "userHandle",
                          "authenticatorData", "signature"])
BITES = st.tuples(st.integers(0, 400), st.integers(0, 255), st.integers(0, 400))


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(FIELDS, JSON | BITES)
def test_hostile_answers_are_refused_and_nothing_else_happens(name: str, put: object) -> None:
    made, shown = copy.deepcopy(MADE), copy.deepcopy(SHOWN)
    for where in (made, made["response"], shown, shown["response"]):
        if name in where:
            bite = isinstance(put, tuple) and isinstance(where[name], str)
            where[name] = _bitten(where[name], *put) if bite else put
    key = ceremonies.made(PLACE, CHALLENGE, MADE).public_key
    for act in (lambda: ceremonies.made(PLACE, CHALLENGE, made), lambda: ceremonies.shown(shown),
                lambda: ceremonies.prove(PLACE, ceremonies.Shown(b"", b"", CHALLENGE, shown), key)):
        with suppress(Refused):
            act()


def _bitten(raw: str, spot: int, value: int, end: int) -> str:
    content = bytearray(raw.encode() if raw == "public-key" else data(raw))
    content[spot % len(content)] = value
    return text(bytes(content[: end or None]))
