"""Domains of owners: who may have which, what DNS must say, and when one ends. A real name server is asked."""
from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import sqlalchemy as sa

from tests.name_server import OURS, PLATFORM, NameServer
from tests.schemas import check
from tests.world import World, world
from ussycode.access.facts import Caller
from ussycode.base.db import events_table
from ussycode.domains import checking, policy, store
from ussycode.identity import store as people
from ussycode.mail import store as mail


@pytest.fixture
async def w(names: NameServer) -> AsyncIterator[World]:
    async with world(domain=PLATFORM, registration="open", dns_resolver=names.setting) as made:
        yield made


@pytest.fixture
async def olive(w: World) -> Caller:
    made = await w.person("olive")
    await w.does(made, "new --name demo")
    return made


@pytest.fixture
async def mallory(w: World) -> Caller:
    made = await w.person("mallory")
    await w.does(made, "new --name evil")
    return made


async def listed(w: World, who: Caller, line: str = "domain ls -a") -> dict[str, tuple[str, str]]:
    found = await w.does(who, line)
    check("domain ls", found)
    return {d["domain"]: (d["status"], d["proof"]) for d in found["domains"]}  # type: ignore[attr-defined]


async def happened(w: World) -> list[str]:
    def read(tx: object) -> list[str]:
        kinds = sa.select(events_table.c.kind).where(events_table.c.kind.startswith("domain."))
        return [row[0] for row in tx.conn.execute(kinds.order_by(events_table.c.seq))]  # type: ignore[attr-defined]

    return await w.app.db.read(read)


async def test_a_cname_to_the_vm_is_enough_and_everything_is_in_the_audit_log(
    w: World, olive: Caller, names: NameServer,
) -> None:
    names.says("one.test", "CNAME", f"demo.{PLATFORM}")
    added = await w.does(olive, "domain add demo One.Test.")
    assert added == {"vm_name": "demo", "domain": "one.test", "wildcard": False}
    assert await listed(w, olive, "domain ls demo") == {"one.test": ("verified", "cname")}
    assert (await w.does(olive, "share show demo"))["domains"] == ["one.test"]
    assert await w.does(olive, "domain rm demo one.test") == {"vm_name": "demo", "domain": "one.test", "removed": True}
    assert await listed(w, olive) == {}
    assert (await w.fails(olive, "domain rm demo one.test"))[0] == "domain.unknown"
    assert await happened(w) == ["domain.claimed", "domain.verified", "domain.removed"]


async def test_a_domain_that_leads_elsewhere_is_a_claim_that_says_what_to_do(
    w: World, olive: Caller, names: NameServer,
) -> None:
    names.says("two.test", "A", "192.0.2.99")
    added = await w.does(olive, "domain add demo two.test")
    check("domain add", added)
    assert (added["expected"], added["domain"]) == (f"demo.{PLATFORM}", "two.test")
    assert "192.0.2.99" in str(added["error"])
    assert await listed(w, olive) == {"two.test": ("pending", "")}
    names.says("_ussycode.two.test", "TXT", f'"{added["txt_value"]}"')
    assert "error" not in await w.does(olive, "domain add demo two.test")
    assert await listed(w, olive) == {"two.test": ("verified", "txt")}


async def test_addresses_of_ours_alone_are_enough_and_a_mixture_is_not(
    w: World, olive: Caller, names: NameServer,
) -> None:
    names.says("apex.test", "A", OURS)
    assert "error" not in await w.does(olive, "domain add demo apex.test")
    names.says("mixed.test", "A", OURS, "192.0.2.99")
    assert "error" in await w.does(olive, "domain add demo mixed.test")
    names.says("platform.test", "CNAME", PLATFORM)
    assert "error" not in await w.does(olive, "domain add demo platform.test")
    assert (await listed(w, olive))["platform.test"] == ("verified", "platform")


async def test_a_domain_that_leads_to_one_vm_cannot_be_taken_by_another(
    w: World, olive: Caller, mallory: Caller, names: NameServer,
) -> None:
    """Its address is ours, so that looking at addresses alone would give it to whoever asks first."""
    names.says("shop.test", "CNAME", f"demo.{PLATFORM}")
    refused = await w.does(mallory, "domain add evil shop.test")
    assert f"demo.{PLATFORM}" in str(refused["error"])
    await w.does(olive, "domain add demo shop.test")
    assert (await w.fails(mallory, "domain add evil shop.test"))[0] != "ok"
    assert await listed(w, olive) == {"shop.test": ("verified", "cname")}


async def test_the_first_proof_wins_and_dns_is_the_judge_afterwards(
    w: World, olive: Caller, mallory: Caller, names: NameServer,
) -> None:
    names.says("first.test", "A", OURS)
    await w.does(olive, "domain add demo first.test")
    assert (await w.fails(mallory, "domain add evil first.test"))[0] == "domain.taken"
    assert await listed(w, mallory) == {}
    names.says("first.test", "CNAME", f"evil.{PLATFORM}")  # it was sold
    assert "error" not in await w.does(mallory, "domain add evil first.test")
    assert (await listed(w, olive), await listed(w, mallory)) == ({}, {"first.test": ("verified", "cname")})
    await w.does(mallory, "new --name other")
    assert (await w.fails(mallory, "domain add other first.test"))[0] == "domain.on_another_vm"


async def test_who_proves_nothing_takes_nothing_not_even_while_the_owners_dns_is_wrong(
    w: World, olive: Caller, mallory: Caller, names: NameServer,
) -> None:
    names.says("moving.test", "CNAME", f"demo.{PLATFORM}")
    await w.does(olive, "domain add demo moving.test")
    names.says("moving.test", "A", "192.0.2.99")
    assert "error" in await w.does(mallory, "domain add evil moving.test")
    w.clock.advance(2 * policy.FIRST_WAIT)
    await checking.look_at_due(w.app)
    assert await listed(w, olive) == {"moving.test": ("verified", "cname")}
    names.says("moving.test", "CNAME", f"demo.{PLATFORM}")
    w.clock.advance(policy.LAST_WAIT)
    await checking.look_at_due(w.app)
    assert await listed(w, mallory) == {"moving.test": ("pending", "")}


async def test_a_wildcard_needs_its_delegation_and_shields_the_names_below_it(
    w: World, olive: Caller, mallory: Caller, names: NameServer,
) -> None:
    names.says("*.wild.test", "A", OURS)
    names.says("wild.test", "A", OURS)
    added = await w.does(olive, "domain add --wildcard demo wild.test")
    check("domain add", added)
    assert added["delegation_name"] == "_acme-challenge.wild.test" and added["wildcard_base"] == "wild.test"
    theirs = await w.does(mallory, "domain add evil '*.wild.test'")
    assert theirs["delegation_target"] != added["delegation_target"]
    names.says("_acme-challenge.wild.test", "CNAME", str(added["delegation_target"]))
    done = await w.does(olive, "domain add --wildcard demo wild.test")
    assert done == {"vm_name": "demo", "domain": "wild.test", "wildcard": True, "wildcard_base": "wild.test"}
    assert (await w.fails(mallory, "domain add evil '*.wild.test'"))[0] == "domain.taken"
    assert "wildcard of another account" in str((await w.does(mallory, "domain add evil a.wild.test"))["error"])
    await w.does(olive, "domain rm demo wild.test")
    again = await w.does(olive, "domain add demo '*.wild.test'")
    assert again == {"vm_name": "demo", "domain": "*.wild.test", "wildcard": True, "wildcard_base": "wild.test",
                     "pattern": True}


async def test_a_vm_that_is_renamed_keeps_its_domain_and_one_in_the_trash_lends_it(
    w: World, olive: Caller, names: NameServer,
) -> None:
    names.says("keep.test", "CNAME", f"demo.{PLATFORM}")
    await w.does(olive, "domain add demo keep.test")
    await w.does(olive, "rename demo shop")
    w.clock.advance(policy.LOOK_AGAIN)
    assert await checking.look_at_due(w.app) == 1
    assert await listed(w, olive, "domain ls shop") == {"keep.test": ("verified", "cname")}
    await w.does(olive, "new --name demo")
    assert (await w.fails(olive, "domain add demo keep.test"))[0] == "domain.on_another_vm"
    await w.does(olive, "rm shop")
    assert "error" not in await w.does(olive, "domain add demo keep.test")


async def test_a_claim_is_looked_at_by_itself_and_forgotten_after_a_week(
    w: World, olive: Caller, names: NameServer,
) -> None:
    for name in ("late.test", "never.test"):
        names.forgets(name)
        await w.does(olive, f"domain add demo {name}")
    names.says("late.test", "CNAME", f"demo.{PLATFORM}")
    assert await checking.look_at_due(w.app) == 0
    w.clock.advance(2 * policy.FIRST_WAIT)
    assert await checking.look_at_due(w.app) == 2
    assert await listed(w, olive) == {"late.test": ("verified", "cname"), "never.test": ("pending", "")}
    w.clock.advance(policy.CLAIM_SECONDS)
    await checking.look_at_due(w.app)
    assert await listed(w, olive) == {"late.test": ("verified", "cname")}
    assert "domain.expired" in await happened(w)


async def test_a_domain_without_proof_is_served_for_three_days_and_silence_is_no_proof_of_absence(
    w: World, olive: Caller, names: NameServer,
) -> None:
    names.says("lost.test", "CNAME", f"demo.{PLATFORM}")
    await w.does(olive, "domain add demo lost.test")
    names.says("lost.test", "CNAME", "dead.test")
    w.clock.advance(policy.LOOK_AGAIN)
    await checking.look_at_due(w.app)
    assert await listed(w, olive) == {"lost.test": ("failing", "cname")}
    names.says("lost.test", "CNAME", f"demo.{PLATFORM}")
    w.clock.advance(policy.LOOK_SOON)
    await checking.look_at_due(w.app)
    assert await listed(w, olive) == {"lost.test": ("verified", "cname")}
    names.says("lost.test", "A", "192.0.2.99")
    await w.app.db.write(lambda tx: people.update_user(tx, olive.user, email="olive@example.org"))
    for wait in (policy.LOOK_AGAIN, policy.PATIENCE):
        w.clock.advance(wait)
        await checking.look_at_due(w.app)
    assert await listed(w, olive) == {}
    assert (await happened(w))[-3:] == ["domain.failing", "domain.failing", "domain.lost"]
    told = await w.app.db.read(mail.every)
    assert [m.to for m in told] == ["olive@example.org"] * 2 and "192.0.2.99" in told[0].body
    assert [m.subject.partition(" ")[2] for m in told] == ["no longer leads to your VM", "is not served any more"]


async def test_a_silent_dns_takes_nothing_away(w: World, olive: Caller, names: NameServer) -> None:
    names.says("quiet.test", "CNAME", f"demo.{PLATFORM}")
    await w.does(olive, "domain add demo quiet.test")
    names.says("quiet.test", "NS", "ns.nobody.test")  # delegated to a server that does not exist
    w.clock.advance(policy.PATIENCE)
    for _ in range(2):
        await checking.look_at_due(w.app)
        w.clock.advance(policy.PATIENCE)
    assert await listed(w, olive) == {"quiet.test": ("verified", "cname")}


async def test_a_vm_that_is_gone_frees_its_domains(w: World, olive: Caller, names: NameServer) -> None:
    names.says("gone.test", "CNAME", f"demo.{PLATFORM}")
    await w.does(olive, "domain add demo gone.test")
    await w.does(olive, "rm demo")
    await w.does(olive, "trash empty demo")
    for _ in range(2):  # once to remove it, once to see that it is gone
        await w.loop.look()
        await w.loop.settled()
    await checking.look_at_due(w.app)
    assert await listed(w, olive) == {} and (await happened(w))[-1] == "domain.removed"


@pytest.mark.parametrize(("typed", "code"), [
    (PLATFORM, "domain.ours"), (f"a.b.{PLATFORM}", "domain.ours"), ("'*.test'", "usage.bad_value"),
    ("localhost", "usage.bad_value"), ("app.localhost", "usage.bad_value"), ("192.0.2.1", "usage.bad_value"),
    ("a-.test", "usage.bad_value"), ("a_b.test", "usage.bad_value"), ("a.*.test", "usage.bad_value"),
    ("a..test", "usage.bad_value"), (f"{'a' * 64}.test", "usage.bad_value"), ("'a b.test'", "usage.bad_value"),
    ("pаypal.test", "usage.bad_value"), ("xn--pypal-4ve.test", "usage.bad_value"), ("xn--a.test", "usage.bad_value"),
])
async def test_names_that_nobody_may_have(w: World, olive: Caller, typed: str, code: str) -> None:
    assert (await w.fails(olive, f"domain add demo {typed}"))[0] == code


async def test_names_of_other_alphabets_are_kept_as_dns_writes_them(
    w: World, olive: Caller, names: NameServer,
) -> None:
    names.says("xn--bcher-kva.test", "CNAME", f"demo.{PLATFORM}")
    assert (await w.does(olive, "domain add demo BÜCHER.test"))["domain"] == "xn--bcher-kva.test"
    await w.does(olive, "domain rm demo bücher.test")


async def test_an_account_has_a_limit_and_a_wildcard_over_the_platform_is_refused() -> None:
    async with world(domain="vms.example.test", registration="open", dns_resolver="127.0.0.1#9") as other:
        anna = await other.person("anna")
        await other.does(anna, "new --name demo")
        assert (await other.fails(anna, "domain add --wildcard demo example.test"))[0] == "domain.ours"
        await fill(other, anna, policy.MAX_OF_ACCOUNT)
        assert (await other.fails(anna, "domain add demo more.test"))[0] == "domain.too_many"


async def fill(w: World, who: Caller, count: int) -> None:
    """Claims, put there without asking DNS about each."""
    def put(tx: object) -> None:
        for number in range(count):
            made = store.VmDomain(f"dom_{number}", "vm_x", who.user, f"n{number}.test", store.Covers.EXACT, 0.0)
            store.insert(tx, made)  # type: ignore[arg-type]

    await w.app.db.write(put)


async def test_somebody_elses_vm_and_a_missing_one_are_refused_alike(w: World, olive: Caller, mallory: Caller) -> None:
    for line in ("domain add demo a.test", "domain rm demo a.test", "domain ls demo"):
        missing = line.replace("demo", "nothere")
        assert await w.fails(mallory, line) == await w.fails(mallory, missing) == ("vm.unknown", 1)
