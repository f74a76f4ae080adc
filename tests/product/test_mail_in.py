"""Mail reaches a VM that takes it, whole and once; nobody learns which VMs there are, and nothing is lost silently."""
from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.product.mail_world import UID, MailWorld, mail_world, new
from ussycode.access.facts import Caller
from ussycode.cmdline.render import PLAIN
from ussycode.identity import store as accounts
from ussycode.inbox.model import Outcome, together
from ussycode.inbox.ops import MAILS_PER_HOUR
from ussycode.mail import store as outgoing
from ussycode.vms.model import MAX_UNREAD

TO = "any@demo.localhost"


@pytest.fixture
async def place(guest_program: Path, tmp_path: Path) -> AsyncIterator[MailWorld]:
    async with mail_world(guest_program, tmp_path) as made:
        yield made


async def shown(place: MailWorld, line: str) -> str:
    """What a command says to a person."""
    outcome = await place.base.run(place.owner, line)
    assert outcome.view is not None, outcome.failure
    return outcome.view.text(PLAIN)


async def test_off_until_turned_on_and_what_came_stays_when_turned_off(place: MailWorld) -> None:
    home = await place.vm("demo", on=False)
    assert await place.send(TO) == "550"
    assert await place.base.does(place.owner, "share receive-email demo") == {
        "vm_name": "demo", "email_enabled": False, "email_address": "anything@demo.localhost", "reply_policy": "none",
    }
    made = await place.base.does(place.owner, "share receive-email demo on")
    assert made["status"] == "success" and made["email_enabled"] is True
    assert await place.send(TO, b"Subject: hi\r\n\r\n..dot\r\n") == "250"
    (mail,) = new(home)
    lines = mail.decode().split("\n")
    assert lines[:2] == [f"Delivered-To: {TO}", "Return-Path: <a@example.org>"]
    assert lines[2].startswith("Received: from client.example ([127.0.0.1]) by localhost with ESMTP; ")
    assert mail.endswith(b"\nSubject: hi\n\n.dot\n") and b"\r" not in mail
    await place.base.does(place.owner, "share receive-email demo off")
    assert await place.send(TO) == "550"
    assert new(home) == [mail]


async def test_a_mail_belongs_to_the_login_user_and_to_nobody_else(place: MailWorld) -> None:
    home = await place.vm("demo")
    assert await place.send(TO) == "250"
    (file,) = (home / "Maildir" / "new").iterdir()
    found = [file, home / "Maildir", *(home / "Maildir" / name for name in ("new", "cur", "tmp"))]
    assert [(f.stat().st_uid, f.stat().st_mode & 0o777) for f in found] == [(UID, 0o600), *[(UID, 0o700)] * 4]
    assert list((home / "Maildir" / "tmp").iterdir()) == []


OTHERS = (
    "any@localhost", "any@nosuch.localhost", "any@a.demo.localhost", "any@4000--demo.localhost", "postmaster",
    "any@demo.localhost.example.org", "any@example.org", "any@dem0.localhost", "demo.localhost", "@demo.localhost",
    "any@off.localhost", "any@demo.localhost.", "", "any@[127.0.0.1]", "any@demo..localhost", "any%demo.localhost@x.y",
    "any@demo@off.localhost", "any@trash.localhost", "any@shop.test",
)


async def test_every_other_address_gets_the_same_refusal(place: MailWorld) -> None:
    """Whether a VM is there, is somebody else's, or takes no mail cannot be told from outside."""
    await place.vm("demo")
    await place.base.does(place.owner, "new --name off")
    await place.base.does(place.owner, "new --name trash")
    await place.base.does(place.owner, "share receive-email trash on")
    await place.base.does(place.owner, "rm trash")
    client = await place.connect()
    await client.say("EHLO client.example", "MAIL FROM:<a@example.org>")
    for address in OTHERS:
        refused = await client.say(f"RCPT TO:<{address}>")
        assert refused == "550 5.1.1 no machine here takes mail for this address", address
    assert (await client.say("DATA")).startswith("503")
    assert (await client.say(f"RCPT TO:<{TO}>")).startswith("250")
    client.close()


async def test_the_name_of_the_host_may_be_written_large(place: MailWorld) -> None:
    home = await place.vm("demo")
    assert await place.send("John.Doe+x@Demo.LOCALHOST") == "250"
    assert new(home)[0].startswith(b"Delivered-To: John.Doe+x@Demo.LOCALHOST\n")


async def test_two_machines_get_one_copy_each_and_one_address_twice_gets_one(place: MailWorld) -> None:
    one, two = await place.vm("one"), await place.vm("two")
    assert await place.send(("a@one.localhost", "b@two.localhost", "a@one.localhost")) == "250"
    assert [len(new(home)) for home in (one, two)] == [1, 1]
    assert new(two)[0].startswith(b"Delivered-To: b@two.localhost\n")


async def test_who_has_it_does_not_get_it_again_when_the_others_do(place: MailWorld) -> None:
    one, two = await place.vm("one"), await place.vm("two")
    await place.halt("two")
    both = ("a@one.localhost", "b@two.localhost")
    assert await place.send(both, b"once\r\n") == "451"
    assert [len(new(home)) for home in (one, two)] == [1, 0]
    await place.boot("two")
    assert await place.send(both, b"once\r\n") == "250"
    assert [len(new(home)) for home in (one, two)] == [1, 1]
    assert await place.send(both, b"once\r\n") == "250"  # somebody says the same once more
    assert [len(new(home)) for home in (one, two)] == [2, 2]


def test_one_answer_for_several_never_says_taken_for_what_somebody_did_not_get() -> None:
    taken, full, later = Outcome.TAKEN, Outcome.FULL, Outcome.NOT_RUNNING
    assert together([taken, taken]) is taken
    assert together([taken, later]) is later and together([full, later]) is later
    assert together([full, full]) is full
    assert not together([taken, full]).final


async def test_a_machine_that_does_not_run_gets_its_mail_later(place: MailWorld) -> None:
    home = await place.vm("demo")
    await place.base.does(place.owner, "stop demo")
    assert await place.send(TO) == "450"
    await place.base.does(place.owner, "start demo")
    assert await place.send(TO) == "250"
    assert len(new(home)) == 1


async def test_a_machine_that_may_be_woken_is(place: MailWorld) -> None:
    home = await place.vm("demo")
    await place.base.does(place.owner, "wake demo on")
    await place.base.does(place.owner, "stop demo")
    assert await place.send(TO) == "250"
    assert len(new(home)) == 1
    assert "running" in await shown(place, "ls")


async def test_a_full_mailbox_is_turned_off_and_its_owner_is_told(place: MailWorld) -> None:
    home = await place.vm("demo")
    await place.app.db.write(lambda tx: accounts.update_user(tx, place.owner.user, email="olive@example.org"))
    assert await place.send(TO) == "250"
    folder = home / "Maildir" / "new"
    for number in range(MAX_UNREAD - 2):
        (folder / f"unread-{number}").touch()
    assert await place.send(TO) == "250"  # the thousandth
    assert await place.send(TO) == "552"
    assert len(list(folder.iterdir())) == MAX_UNREAD
    assert await place.send(TO) == "550"
    why = f"{MAX_UNREAD} mails lay unread in ~/Maildir/new"
    made = await place.base.does(place.owner, "share show demo")
    assert made["receive_email"] is False and made["email_stopped"] == why
    assert why in await shown(place, "share show demo") and why in await shown(place, "ls")
    assert (await place.base.does(place.owner, "share receive-email demo"))["email_stopped"] == why
    (told,) = [mail for mail in await place.app.db.read(outgoing.every) if "no mail" in mail.subject]
    assert told.to == "olive@example.org" and "share receive-email demo on" in told.body
    for file in folder.iterdir():
        file.unlink()
    await place.base.does(place.owner, "share receive-email demo on")
    assert await place.send(TO) == "250"
    assert "email_stopped" not in await place.base.does(place.owner, "share show demo")


async def test_a_renamed_machine_has_mail_at_its_new_name_and_a_copy_takes_none(place: MailWorld) -> None:
    await place.vm("demo")
    await place.base.does(place.owner, "rename demo other")
    assert await place.send(TO) == "550"
    assert await place.send("any@other.localhost") == "250"
    await place.base.does(place.owner, "cp other third")
    assert await place.send("any@third.localhost") == "550"


async def test_only_the_owner_turns_it_on(place: MailWorld) -> None:
    await place.vm("demo", on=False)
    mallory = await place.base.person("mallory")
    shell: Caller = await place.base.person("shell")
    await place.base.does(place.owner, "share add demo shell --root")
    for caller in (mallory, shell):
        for line in ("share receive-email demo on", "share receive-email demo"):
            assert (await place.base.fails(caller, line))[0] == "vm.unknown"
    assert await place.send(TO) == "550"


async def test_a_platform_without_the_door_says_so(guest_program: Path, tmp_path: Path) -> None:
    async with mail_world(guest_program, tmp_path, announced=False) as place:
        await place.base.does(place.owner, "new --name demo")
        assert (await place.base.fails(place.owner, "share receive-email demo on"))[0] == "mail.no_door"
        assert (await place.base.does(place.owner, "share receive-email demo off"))["email_enabled"] is False


async def test_what_a_guest_breaks_hurts_itself_alone_and_the_mail_waits(place: MailWorld) -> None:
    """The mailbox leads elsewhere: it is written to with the rights of the guest's user, or not at all."""
    home = await place.vm("demo")
    elsewhere = place.folder / "elsewhere"
    elsewhere.mkdir(mode=0o700)
    (home / "Maildir").mkdir()
    for name in ("new", "tmp", "cur"):
        (home / "Maildir" / name).symlink_to(elsewhere)
    assert await place.send(TO) == "451"
    assert list(elsewhere.iterdir()) == []
    for name in ("new", "tmp", "cur"):
        (home / "Maildir" / name).unlink()
    os.chown(home / "Maildir", UID, UID)
    assert await place.send(TO) == "250"


async def test_a_guest_that_dies_amid_a_mail_has_none_of_it(place: MailWorld) -> None:
    home = await place.vm("demo")
    assert await place.send(TO) == "250"
    drafts = home / "Maildir" / "tmp"
    sending = asyncio.create_task(place.send(TO, (b"x" * 998 + b"\r\n") * 10_000))
    async with asyncio.timeout(20):
        while not list(drafts.iterdir()):
            await asyncio.sleep(0)
    await place.halt("demo")
    reply, found = await sending, max(new(home), key=len)
    assert reply == ("250" if found.count(b"\n") > 10_000 else "451")  # it may just have got it whole
    assert len(found) in range(1000) or found.count(b"x" * 998 + b"\n") == 10_000


async def test_a_machine_takes_so_many_mails_within_an_hour(place: MailWorld) -> None:
    home = await place.vm("demo")
    other = await place.vm("other")
    client = await place.connect()
    await client.say("EHLO client.example")
    for _ in range(MAILS_PER_HOUR):
        assert (await client.say("MAIL FROM:<a@example.org>", f"RCPT TO:<{TO}>")).startswith("250")
        await client.say("RSET")
    assert await place.send(TO) == "451"
    assert await place.send("any@other.localhost") == "250"
    place.base.clock.advance(3600 / MAILS_PER_HOUR + 1)
    assert await place.send(TO) == "250"
    assert [len(new(h)) for h in (home, other)] == [1, 1]
    client.close()
