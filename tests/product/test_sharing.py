"""Whom an owner shares a VM with, and exactly what that gives them. Anything more would be a breach."""
from __future__ import annotations

import asyncio
from collections.abc import Sequence

from tests.world import World, world
from ussycode.access.actions import Action
from ussycode.access.decide import Decision, decide
from ussycode.access.facts import NOBODY, Caller, Facts, Role, Via
from ussycode.base.db import Tx
from ussycode.base.errors import Failure
from ussycode.base.events import Event
from ussycode.cmdline.render import PLAIN
from ussycode.identity import addresses, emails
from ussycode.identity import ops as identity
from ussycode.identity import store as accounts
from ussycode.identity.keys import PublicKey
from ussycode.mail import store as mail
from ussycode.sharing import facts, links, ops, people

BOB = "bob@example.org"


async def prove(w: World, who: Caller, address: str) -> None:
    """Somebody proves an address, as `email verify` does."""

    def write(tx: Tx) -> None:
        addresses.verify(tx, address, who.user)
        accounts.update_user(tx, who.user, email=address)
        tx.emit(Event("email.verified", who.user, who.user, {"address": address}))

    await w.app.db.write(write)


async def judged(w: World, who: Caller, action: Action = Action.VM_OPEN, port: int = 8000) -> Decision:
    """The decision about the VM called demo, from the facts as they are now."""
    found = await w.app.db.read(lambda tx: facts.of_vm(tx, w.app.images, "demo"))
    asked = port if action is Action.VM_OPEN else None
    return decide(action, Facts(who, found, asked, now=w.clock.now()))


async def may(w: World, who: Caller) -> dict[str, bool]:
    """What somebody may do with demo."""
    return {
        "8000": (await judged(w, who)).allowed, "3000": (await judged(w, who, port=3000)).allowed,
        "shell": (await judged(w, who, Action.VM_SHELL)).allowed,
        "read": (await judged(w, who, Action.VM_READ)).allowed,
        "change": (await judged(w, who, Action.VM_CHANGE)).allowed,
        "share": (await judged(w, who, Action.VM_SHARE)).allowed,
    }


NOTHING = dict.fromkeys(("8000", "3000", "shell", "read", "change", "share"), False)
WEB = NOTHING | {"8000": True}
SHELL = NOTHING | dict.fromkeys(("8000", "3000", "shell", "read"), True)


async def mails(w: World) -> list[tuple[str, str, str]]:
    return [(m.to, m.subject, m.body) for m in await w.app.db.read(mail.every)]


async def kinds(w: World) -> list[str]:
    """Kinds of the events about sharing, in order."""
    rows: Sequence[tuple[str]] = await w.app.db.read(
        lambda tx: tx.conn.exec_driver_sql("SELECT kind FROM events WHERE kind LIKE 'share.%' ORDER BY seq").all()
    )
    return [row[0] for row in rows]


async def users(w: World, olive: Caller) -> list[tuple[object, ...]]:
    shown = (await w.does(olive, "share show demo"))["users"]
    assert isinstance(shown, list)
    return [(u["email"], u.get("handle"), u["status"], u["share_level"], u["via"]) for u in shown]


async def test_an_invited_address_is_pending_until_somebody_proves_it_and_then_opens_one_port() -> None:
    async with world() as w:
        olive, bob = await w.person("olive"), await w.person("bob")
        await w.does(olive, "new --name demo")
        done = await w.does(olive, f"share add demo {BOB} --message 'have a look'")
        assert done == {
            "status": "success", "vm_name": "demo", "shared_with": BOB, "url": "https://demo.localhost:8443/",
            "message": "Invitation sent",
        }
        assert await users(w, olive) == [(BOB, None, "pending", "web", "invite")]
        assert await may(w, bob) == NOTHING
        ((to, subject, body),) = await mails(w)
        assert (to, subject) == (BOB, "olive shares demo with you")
        assert "have a look" in body and "https://demo.localhost:8443/" in body and f"this address, {BOB}" in body
        await prove(w, bob, BOB)
        assert await users(w, olive) == [(BOB, None, "active", "web", "invite")]
        assert await may(w, bob) == WEB
        assert (await judged(w, bob)).reason == "granted" and (await judged(w, bob, port=3000)).reason == "not_shared"
        assert await w.fails(bob, "ssh demo id") == ("ssh.no_vm", 1)
        assert (await w.does(bob, "ls"))["vms"] == []


async def test_sharing_twice_is_one_row_one_mail_and_says_so() -> None:
    async with world() as w:
        olive, bob = await w.person("olive"), await w.person("bob")
        await w.does(olive, "new --name demo")
        await w.does(olive, f"share add demo {BOB}")
        again = await w.does(olive, f"share add demo {BOB.upper()}")
        assert again["message"] == f"Already shared with {BOB}"
        await prove(w, bob, BOB)
        assert (await w.does(olive, "share add demo bob"))["message"] == "Already shared with bob"
        assert len(await users(w, olive)) == 1 and len(await mails(w)) == 1
        assert await kinds(w) == ["share.added"]


async def test_a_shell_is_given_and_taken_without_touching_the_web_share() -> None:
    async with world() as w:
        olive, bob = await w.person("olive"), await w.person("bob")
        await w.does(olive, "new --name demo")
        given = await w.does(olive, "share add demo bob --root")
        assert (given["status"], given["shared_with"], given["share_level"]) == ("updated", "bob", "root")
        assert await may(w, bob) == SHELL and (await judged(w, bob, port=9)).reason == "granted_shell"
        assert (await w.run(bob, "ssh demo id")).attach is not None
        assert await w.fails(bob, "restart demo") == ("vm.unknown", 1)
        assert await w.fails(bob, "share show demo") == ("vm.unknown", 1)
        taken = await w.does(olive, "share remove demo bob --root")
        assert (taken["status"], taken["share_level"]) == ("updated", "web")
        assert await may(w, bob) == WEB
        await w.does(olive, "share add demo bob --root")
        assert (await w.does(olive, "share remove demo bob"))["message"] == "demo is not shared with bob any more"
        assert await may(w, bob) == NOTHING
        assert await w.fails(olive, "share remove demo bob") == ("share.unknown", 1)
        assert await kinds(w) == ["share.added", "share.lowered", "share.changed", "share.removed"]


async def test_each_port_is_shared_and_shown_by_itself() -> None:
    async with world() as w:
        olive, bob = await w.person("olive"), await w.person("bob")
        await w.does(olive, "new --name demo")
        done = await w.does(olive, "share add demo bob --port 3000")
        assert done["url"] == "https://3000--demo.localhost:8443/"
        assert await may(w, bob) == NOTHING | {"3000": True}
        opened = await w.does(olive, "share set-public demo --port 4000")
        assert (opened["port"], opened["share"]) == (4000, "public")
        await w.does(olive, "share set-public demo")
        shown = await w.does(olive, "share show demo")
        assert [p["port"] for p in shown["ports"]] == [4000, 8000]  # type: ignore[union-attr, index]
        assert (await judged(w, NOBODY, port=4000)).allowed and not (await judged(w, NOBODY, port=3000)).allowed
        await w.does(olive, "share set-private demo")
        assert not (await judged(w, NOBODY)).allowed and (await judged(w, NOBODY, port=4000)).allowed
        assert await w.fails(olive, "share set-public demo --port 22") == ("share.no_address", 2)
        assert await w.fails(olive, "share add demo bob --port 22") == ("share.no_address", 2)
        assert await w.fails(olive, "share add demo bob --port 3000 --root") == ("share.shell_port", 2)


async def test_a_share_of_the_primary_port_follows_it_and_opens_no_other() -> None:
    async with world() as w:
        olive, bob = await w.person("olive"), await w.person("bob")
        await w.does(olive, "new --name demo")
        await w.does(olive, "share add demo bob")
        await w.does(olive, "share port demo 3000")
        assert await may(w, bob) == NOTHING | {"3000": True}


async def test_a_share_with_an_end_is_over_then_even_before_it_is_swept() -> None:
    async with world() as w:
        olive, bob = await w.person("olive"), await w.person("bob")
        await w.does(olive, "new --name demo")
        await w.does(olive, "share add demo bob --root --expires 12h")
        assert (await judged(w, bob, Action.VM_SHELL)).until == w.clock.now() + 12 * 3600
        w.clock.advance(12 * 3600)
        assert await may(w, bob) == NOTHING and (await judged(w, bob)).reason == "grant_ended"
        assert (await w.does(olive, "share add demo bob"))["message"] == "Share created"
        assert await may(w, bob) == WEB
        await w.does(olive, "share add demo bob --expires 1h")
        w.clock.advance(3600)
        await people.end_over(w.app)
        assert await users(w, olive) == [] and (await kinds(w))[-1] == "share.ended"


async def test_an_address_that_is_given_up_takes_its_share_along() -> None:
    async with world() as w:
        olive, bob, carl = await w.person("olive"), await w.person("bob"), await w.person("carl")
        await w.does(olive, "new --name demo")
        await w.does(olive, f"share add demo {BOB}")
        await prove(w, bob, BOB)
        await w.does(bob, f"email rm {BOB}")
        assert await may(w, bob) == NOTHING
        await prove(w, carl, BOB)
        assert await may(w, carl) == WEB and await may(w, bob) == NOTHING


async def test_a_link_makes_a_named_share_once_and_stops_when_it_is_removed() -> None:
    async with world() as w:
        olive, bob, carl = await w.person("olive"), await w.person("bob"), await w.person("carl")
        await w.does(olive, "new --name demo")
        made = await w.does(olive, "share add-link demo --label meetup --max-uses 2")
        token = str(made["token"])
        assert made["url"] == f"https://demo.localhost:8443/__ussycode/share/{token}"
        assert await may(w, bob) == NOTHING
        for _ in range(3):
            assert (await links.redeem(w.app, bob, token)).url == "https://demo.localhost:8443/"
        assert await may(w, bob) == WEB and (await judged(w, bob)).reason == "link"
        assert await users(w, olive) == [("", "bob", "active", "web", "link")]
        (link,) = (await w.does(olive, "share show demo"))["links"]  # type: ignore[misc]
        assert (link["use_count"], link["label"], link["max_uses"]) == (1, "meetup", 2) and link["last_used_at"]
        assert token not in str(await w.does(olive, "share show demo"))
        await w.does(olive, f"share remove-link demo {link['token']}")
        assert await may(w, bob) == WEB
        assert await dead(w, carl, token)
        other = await new_link(w, olive)
        assert (await links.redeem(w.app, bob, other)).there
        await w.does(olive, f"share remove-share-link demo {other} --revoke")
        assert await may(w, bob) == WEB, "bob came through the other link"


async def new_link(w: World, olive: Caller, flags: str = "") -> str:
    return str((await w.does(olive, f"share add-share-link demo {flags}"))["token"])


async def dead(w: World, who: Caller, token: str) -> bool:
    """Whether a link opens nothing, and says no more than that."""
    for act in (links.look, links.redeem):
        try:
            await act(w.app, who, token)
        except Failure as failure:
            assert failure.error is links.DEAD_LINK and not failure.words
        else:
            return False
    return True


async def test_links_that_are_wrong_altered_over_used_up_or_revoked_look_alike() -> None:
    async with world() as w:
        olive, bob, carl = await w.person("olive"), await w.person("bob"), await w.person("carl")
        await w.does(olive, "new --name demo")
        once, timed = await new_link(w, olive, "--max-uses 1"), await new_link(w, olive, "--expires 1h")
        await links.redeem(w.app, bob, once)
        w.clock.advance(3600)
        altered = timed[:-1] + ("A" if timed[-1] != "A" else "B")
        for token in (once, timed, altered, "", "x" * 5000, "link_aaaaaaaaaaaaaaaa"):
            assert await dead(w, carl, token), token
        gone = await w.does(olive, f"share remove-link demo {once} --revoke")
        assert gone["message"] == "Link removed, and with it 1 person who came through it"
        assert await may(w, bob) == NOTHING and await dead(w, bob, once)
        unused = await new_link(w, olive)
        await w.does(olive, "rm demo")
        assert await dead(w, carl, unused)


async def test_a_link_is_of_one_port_and_only_its_digest_is_kept() -> None:
    async with world() as w:
        olive, bob = await w.person("olive"), await w.person("bob")
        await w.does(olive, "new --name demo")
        token = await new_link(w, olive, "--port 3000")
        assert (await links.redeem(w.app, bob, token)).url == "https://3000--demo.localhost:8443/"
        assert await may(w, bob) == NOTHING | {"3000": True}
        dump = await w.app.db.read(lambda tx: str(list(tx.conn.connection.iterdump())))  # type: ignore[union-attr]
        assert token not in dump and "share_links" in dump


async def test_ten_people_at_once_cannot_use_a_link_twice_more_than_allowed() -> None:
    async with world() as w:
        olive = await w.person("olive")
        crowd = [await w.person(f"guest-{n}x") for n in range(10)]
        await w.does(olive, "new --name demo")
        token = await new_link(w, olive, "--max-uses 3")
        await asyncio.gather(*(links.redeem(w.app, one, token) for one in crowd), return_exceptions=True)
        assert sum([(await judged(w, one)).allowed for one in crowd]) == 3


async def test_nobody_shares_what_is_not_theirs_or_with_themselves_or_a_team() -> None:
    async with world() as w:
        olive, bob, mallory = await w.person("olive"), await w.person("bob"), await w.person("mallory")
        await w.does(olive, "new --name demo")
        await w.does(olive, "share add demo bob --root")
        for who in (bob, mallory):
            for line in ("add demo mallory", "remove demo bob", "add-link demo", "show demo", "set-public demo"):
                assert await w.fails(who, f"share {line}") == ("vm.unknown", 1), line
        assert await w.fails(olive, "share add demo olive") == ("share.owner", 1)
        assert await w.fails(olive, "share add demo nosuchone") == ("share.nobody", 1)
        assert await w.fails(olive, "share add demo 'not an address'") == ("usage.bad_value", 2)
        for line in ("share add demo team", "share add demo team --root", "share access allow demo"):
            assert await w.fails(olive, line) == ("share.no_teams", 1)


async def test_what_a_share_may_hold_is_bounded() -> None:
    async with world() as w:
        olive = await w.person("olive")
        await w.does(olive, "new --name demo")
        for n in range(links.MAX_LINKS):
            await new_link(w, olive, f"--label n{n}")
        assert await w.fails(olive, "share add-link demo") == ("share.too_many_links", 1)
        for n in range(people.MAIL_PER_HOUR):
            await w.does(olive, f"share add demo p{n}@example.org")
        assert await w.fails(olive, "share add demo more@example.org") == ("share.too_many_mails", 1)
        w.clock.advance(3601)
        await w.does(olive, "share add demo more@example.org")


async def test_shares_end_with_the_vm_and_a_new_one_of_that_name_has_none() -> None:
    async with world() as w:
        olive, bob = await w.person("olive"), await w.person("bob")
        await w.does(olive, "new --name demo")
        await w.does(olive, "share add demo bob --root")
        await w.does(olive, "rm --now demo")
        await w.does(olive, "new --name demo")
        assert await may(w, bob) == NOTHING and await users(w, olive) == []


async def test_the_guests_own_sshd_knows_the_keys_of_who_may_have_a_shell() -> None:
    async with world() as w:
        olive = await w.person("olive")
        await w.person("bob")
        await w.does(olive, "new --name demo")
        keys = [[k.split()[1] for k in want.authorized_keys] for want in await ops.wants(w.app)]
        assert keys == [["olive"]]
        await w.does(olive, "share add demo bob --root --expires 1h")
        assert [k.split()[1] for k in (await ops.wants(w.app))[0].authorized_keys] == ["olive", "bob"]
        w.clock.advance(3600)
        assert [k.split()[1] for k in (await ops.wants(w.app))[0].authorized_keys] == ["olive"]


async def test_where_accounts_are_by_invitation_an_invited_visitor_gets_in_and_no_further() -> None:
    async with world(registration="invite") as w:
        await identity.approve_admins(w.app, [PublicKey("ssh-ed25519 olive", "SHA256:olive", "olive")])
        olive = await w.person("olive")
        await w.does(olive, "new --name demo")
        await w.does(olive, f"share add demo {BOB}")
        await w.does(olive, "share add demo gone@example.org")
        await w.does(olive, "share remove demo gone@example.org")
        assert await sign_in(w, "gone@example.org") is None, "who is not invited any more makes no account"
        bob = await sign_in(w, BOB)
        assert bob is not None and bob.role is Role.GUEST and await may(w, bob) == WEB
        assert await w.fails(bob, "new") == ("quota.guest", 1)
        await w.does(olive, f"invite {BOB}")
        bob = await sign_in(w, BOB)
        assert bob is not None and bob.role is Role.NEWBIE
        await w.does(bob, "new")


async def sign_in(w: World, address: str) -> Caller | None:
    """Sign in with a mailed code; None when none was mailed."""
    w.clock.advance(1)
    before = len(await mails(w))
    pending = await emails.begin_sign_in(w.app, address, "/", "")
    sent = (await mails(w))[before:]
    if not sent:
        return None
    made, _ = await emails.finish_sign_in(w.app, pending.id, sent[0][1].split()[0], "")
    found = await identity.session_of(w.app, made.cookie, "localhost")
    assert found is not None
    return identity.caller_of(found[1], Via.SESSION)


async def test_who_names_a_handle_learns_no_address_and_the_other_way_round() -> None:
    async with world() as w:
        olive, bob, ann = await w.person("olive"), await w.person("bob"), await w.person("ann")
        await w.does(olive, "new --name demo")
        await prove(w, bob, BOB)
        await prove(w, ann, "ann@example.org")
        lines = (
            "share add demo bob", "share add demo bob --root", "share add demo bob --port 3000", "share show demo",
            "share who demo", "share who demo bob", "share remove demo bob --root", "share remove demo bob",
        )
        for line in lines:
            outcome = await w.run(olive, line)
            assert outcome.view is not None
            assert "example.org" not in str(outcome.view.document()) + outcome.view.text(PLAIN), line
        for line in (one.replace(" bob", " ann@example.org") for one in lines):
            outcome = await w.run(olive, line)
            assert outcome.view is not None
            said = (str(outcome.view.document()) + outcome.view.text(PLAIN)).replace("ann@example.org", "")
            assert "ann" not in said, line
        await links.redeem(w.app, bob, await new_link(w, olive))
        assert await users(w, olive) == [(BOB, "bob", "active", "web", "link")], "the page of the link says so"
