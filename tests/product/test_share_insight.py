"""What an owner is told about who can reach a VM, and who did, is what the doors decide."""
from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from tests.name_server import NameServer
from tests.product.test_reach import PRIMARY, PUBLIC, people
from tests.product.test_sharing import BOB, prove
from tests.product.whole_world import whole_world
from tests.world import World, world
from ussycode.access.actions import Action
from ussycode.access.decide import Permit, permit
from ussycode.access.facts import Caller, Facts
from ussycode.sharing import facts, visitors
from ussycode.wire.edge import Visitor


async def asked(w: World, olive: Caller, person: str = "") -> dict[str, tuple[str, str, list[str]]]:
    shown = (await w.does(olive, f"share who demo {person}"))["people"]
    assert isinstance(shown, list)
    return {p["who"]: (p["status"], p["shell_reason"], [d["reason"] for d in p["ports"]]) for p in shown}


async def test_who_tells_the_decision_of_everybody_and_of_one() -> None:
    async with world() as w:
        olive, bob = await w.person("olive"), await w.person("bob")
        await w.person("sam")
        for line in ("new --name demo", f"share add demo {BOB}", "share add demo ann@example.org --root",
                     "share set-public demo --port 3000"):
            await w.does(olive, line)
        assert await asked(w, olive) == {
            "olive": ("owner", "owner", ["owner", "owner"]), BOB: ("pending", "not_shared", ["granted", "public"]),
            "ann@example.org": ("pending", "granted_shell", ["granted_shell", "public"]),
            "anyone": ("anyone", "not_yours", ["not_yours", "public"]),
        }
        await prove(w, bob, BOB)
        assert (await asked(w, olive))[BOB][0] == "active"
        for name in (BOB, "bob"):
            assert await asked(w, olive, name) == {name: ("active", "not_shared", ["granted", "public"])}
        for name in ("sam", "nobodyhere", "x@example.org"):
            assert await asked(w, olive, name) == {name: ("stranger", "not_yours", ["not_yours", "public"])}
        assert await w.fails(bob, "share who demo") == await w.fails(bob, "share log demo") == ("vm.unknown", 1)


async def test_mine_tells_people_what_others_share_with_them() -> None:
    async with world() as w:
        olive, bob = await w.person("olive"), await w.person("bob")
        for line in ("new --name demo", "new --name shop", "share add demo bob --root --expires 7d",
                     f"share add shop {BOB}", "share add shop bob --port 3000", "share add demo sam@example.org"):
            await w.does(olive, line)
        await prove(w, bob, BOB)
        shown = (await w.does(bob, "share mine"))["shares"]
        assert isinstance(shown, list)
        assert [(s["vm_name"], s["owner"], s["share_level"], s["port"], s.get("ssh_dest")) for s in shown] == [
            ("demo", "olive", "root", 8000, "demo@localhost"), ("shop", "olive", "web", 3000, None),
            ("shop", "olive", "web", 8000, None),
        ]
        assert (await w.does(olive, "share mine"))["shares"] == []
        w.clock.advance(8 * 86_400)
        await w.does(olive, "rm shop")
        assert (await w.does(bob, "share mine"))["shares"] == []


async def owners(w: World, olive: Caller) -> Permit:
    found = await w.app.db.read(lambda tx: facts.of_vm(tx, w.app.images, "demo"))
    made = permit(Action.VM_SHARE, Facts(olive, found))[0]
    assert made is not None
    return made


async def test_the_log_is_bounded_and_forgets() -> None:
    async with world() as w:
        olive = await w.person("olive")
        await w.does(olive, "new --name demo")
        may = await owners(w, olive)
        assert may.vm is not None
        vm = may.vm.vm
        for batch in range(0, visitors.MAX_ROWS + 100, 25):
            w.clock.advance(1)
            await visitors.record(w.app, [
                Visitor(vm, 8000, "", f"10.1.{n >> 8}.{n & 255}", False, "not_yours", 1)
                for n in range(batch, batch + 25)
            ])
        kept = await visitors.newest(w.app, may, 10_000)
        assert len(kept) == visitors.MAX_ROWS and kept[0].address == "10.1.4.75"
        w.clock.advance(visitors.KEEP_SECONDS + 60)
        await visitors.forget_old(w.app)
        assert await visitors.newest(w.app, may, 10) == []


async def test_nonsense_of_an_edge_and_vms_that_are_gone_are_left_out() -> None:
    async with world() as w:
        olive = await w.person("olive")
        await w.does(olive, "new --name demo")
        may = await owners(w, olive)
        assert may.vm is not None
        good = Visitor(may.vm.vm, 8000, olive.user, "::1", True, "owner", 3)
        bad = [
            Visitor("vm_gone", 8000, "", "10.0.0.1", True, "owner", 1),
            Visitor(may.vm.vm, 8000, "", "\x1b[2J", True, "owner", 1),
            Visitor(may.vm.vm, 8000, "", "10.0.0.1", True, "<b>", 1),
            Visitor(may.vm.vm, 1, "", "10.0.0.1", True, "owner", 0),
        ]
        await visitors.record(w.app, [*bad, good])
        await visitors.record(w.app, [good])
        (visit,) = await visitors.newest(w.app, may, 10)
        assert (visit.who, visit.address, visit.requests, visit.allowed) == ("olive", "::1", 6, True)


async def test_a_real_edge_tells_who_came_and_what_was_decided(
    guest_program: Path, tmp_path: Path, names: NameServer
) -> None:
    async with whole_world(guest_program, tmp_path, names) as w:
        made = await people(w, names)
        for name in ("invited", "stranger"):
            await w.get(PRIMARY, cookie=await w.cookie(made[name], PRIMARY))
        for _ in range(3):
            await w.get(PUBLIC)
        await w.get(PRIMARY)
        await w.get(PRIMARY, "/__ussycode/login")
        want = {
            ("invited", 8000, True, "granted", 1), ("stranger", 8000, False, "not_yours", 1),
            ("", 3000, True, "public", 3), ("", 8000, False, "not_yours", 1),
        }
        seen: set[tuple[object, ...]] = set()
        for _ in range(100):  # it is told every two seconds
            shown = (await w.does(made["owner"], "share log demo"))["visitors"]
            assert isinstance(shown, list) and {v["address"] for v in shown} <= {"127.0.0.1"}
            seen = {(v["who"], v["port"], v["allowed"], v["reason"], v["requests"]) for v in shown}
            if seen == want:
                break
            await asyncio.sleep(0.1)
        assert seen == want


@pytest.mark.parametrize("line", ["share log demo --limit 0", "share log demo --limit 99999", "share who demo '?'"])
async def test_words_that_mean_nothing_are_refused(line: str) -> None:
    async with world() as w:
        olive = await w.person("olive")
        await w.does(olive, "new --name demo")
        assert (await w.fails(olive, line))[0] == "usage.bad_value"
