"""The command line through dispatch, with the reconciler and a fake node underneath."""
from __future__ import annotations

import asyncio

from tests.world import World, world
from ussycode.access.facts import Caller, Role
from ussycode.cmdline.render import Style
from ussycode.runtime.driver import Phase
from ussycode.runtime.drivers.fake import DiskFullDriver, NeverDriver, SlowDriver


async def test_new_gives_a_running_vm_with_its_places() -> None:
    async with world() as w:
        owner = await w.person("olive")
        made = await w.does(owner, "new --name demo --env A=1")
        assert made["ssh_command"] == "ssh -p 2222 demo@localhost"
        assert made["https_url"] == "https://demo.localhost:8443/"
        listed = await w.does(owner, "ls -l")
        assert [(v["vm_name"], v["status"], v["cpu"]) for v in listed["vms"]] == [("demo", "running", 1)]


async def test_an_invented_name_is_a_valid_one() -> None:
    async with world() as w:
        made = await w.does(await w.person("olive"), "new")
        assert (await w.fails(await w.person("sam"), f"new --name {made['vm_name']}"))[0] == "vm.name_taken"


async def test_rm_removes_many_and_names_what_was_not_there() -> None:
    async with world() as w:
        owner = await w.person("olive")
        for name in ("demo", "shop"):
            await w.does(owner, f"new --name {name}")
        outcome = await w.run(owner, "rm demo nothere shop")
        assert outcome.exit_code == 1 and outcome.view is not None
        assert outcome.view.document() == {
            "deleted": ["demo", "shop"], "failed": ["nothere"], "not_found": ["nothere"],
        }
        assert (await w.does(owner, "ls"))["vms"] == []
        assert {seen.phase for seen in w.driver.vms.values()} == {Phase.STOPPED}
        for name in ("demo", "shop"):
            await w.does(owner, f"trash empty {name}")
        await w.loop.look()
        await w.loop.settled()
        assert w.driver.vms == {}


async def test_restart_boots_again_and_rename_moves_the_host_name() -> None:
    async with world() as w:
        owner = await w.person("olive")
        await w.does(owner, "new --name demo")
        assert await w.does(owner, "restart demo") == {"status": "restarted", "vm_name": "demo"}
        assert [s.boot for s in w.driver.vms.values()] == [2]
        moved = await w.does(owner, "rename demo shop")
        assert moved["https_url"] == "https://shop.localhost:8443/"
        assert (await w.fails(owner, "restart demo"))[0] == "vm.unknown"


async def test_another_owners_vm_and_a_missing_one_are_refused_alike() -> None:
    async with world() as w:
        owner, attacker = await w.person("olive"), await w.person("mallory")
        await w.does(owner, "new --name demo")
        for line in ("restart {}", "rename {} mine", "share show {}", "share set-public {}", "ssh {} id", "rm {}"):
            his, missing = [await w.run(attacker, line.format(n)) for n in ("demo", "nope")]
            told = [str(o.failure or (o.view and o.view.document())).replace("demo", "X").replace("nope", "X")
                    for o in (his, missing)]
            assert told[0] == told[1], line
            assert his.exit_code == missing.exit_code == 1
        assert len(w.driver.vms) == 1


async def test_share_opens_and_closes_the_primary_port() -> None:
    async with world() as w:
        owner = await w.person("olive")
        await w.does(owner, "new --name demo")
        opened = await w.does(owner, "share set-public demo")
        assert (opened["share"], opened["status"], opened["port"]) == ("public", "updated", 8000)
        moved = await w.does(owner, "share port demo 3000")
        assert (moved["port"], moved["share"]) == (3000, "public")
        assert [v["proxy_port"] for v in (await w.does(owner, "ls -l"))["vms"]] == [3000]
        closed = await w.does(owner, "share set-private demo")
        assert closed["share"] == "private"
        shown = await w.does(owner, "share show demo")
        assert shown["status"] == "private" and shown["ports"] == [] and shown["listening"] == [22, 8000]


async def says(w: World, who: Caller, line: str) -> str:
    """What a person reads."""
    outcome = await w.run(who, line, json=False)
    assert outcome.view is not None, outcome.failure
    return outcome.view.text(Style(80, False))


async def test_show_says_what_listens_and_what_to_do_when_nothing_does() -> None:
    async with world() as w:
        owner = await w.person("olive")
        await w.does(owner, "new --name demo")
        said = await says(w, owner, "share show demo")
        assert "in it listens: 22, 8000" in said and "nothing" not in said
        await w.does(owner, "share port demo 3000")
        assert "nothing listens on port 3000 in it; share port demo PORT" in await says(w, owner, "share show demo")
        w.driver.ports = ()
        assert "nothing listens on port 3000 in it; 127.0.0.1 is enough" in await says(w, owner, "share show demo")
        await w.does(owner, "stop demo")
        assert "listen" not in await says(w, owner, "share show demo")


async def test_a_newbie_has_room_for_three_vms_and_an_admin_for_more() -> None:
    async with world() as w:
        owner, admin = await w.person("olive"), await w.person("ada", Role.ADMIN)
        for _ in range(3):
            await w.does(owner, "new")
        assert await w.fails(owner, "new") == ("quota.vms", 1)
        for _ in range(4):
            await w.does(admin, "new")


async def test_names_that_are_taken_say_whose() -> None:
    async with world() as w:
        owner, other = await w.person("olive"), await w.person("sam")
        await w.does(owner, "new --name demo")
        assert (await w.fails(owner, "new --name demo"))[0] == "vm.name_yours"
        assert (await w.fails(other, "new --name demo"))[0] == "vm.name_taken"
        assert (await w.fails(other, "new --name admin"))[0] == "usage.bad_value"
        assert (await w.fails(owner, "new --name olive"))[0] == "vm.name_is_lobby"
        assert (await w.fails(owner, "rename demo olive"))[0] == "vm.name_is_lobby"


async def test_an_image_that_does_not_exist_leaves_nothing() -> None:
    async with world() as w:
        owner = await w.person("olive")
        assert (await w.fails(owner, "new --image nosuch"))[0] == "image.unknown"
        assert (await w.does(owner, "ls"))["vms"] == [] and w.driver.vms == {}


async def test_a_guest_that_never_boots_is_one_sentence_and_nothing_is_left() -> None:
    async with world(NeverDriver()) as w:
        owner = await w.person("olive")
        outcome = await w.run(owner, "new --name demo")
        assert outcome.failure is not None and outcome.failure.code == "vm.not_made"
        assert "did not answer" in outcome.failure.sentence
        while w.driver.vms:
            await asyncio.wait_for(w.loop.settled(), 5)
            w.loop.nudge()
            await asyncio.sleep(0)
        assert (await w.does(owner, "ls"))["vms"] == []


async def test_a_full_disk_is_one_sentence_and_the_name_is_free_again() -> None:
    async with world(DiskFullDriver()) as w:
        owner = await w.person("olive")
        code, status = await w.fails(owner, "new --name demo")
        assert (code, status) == ("vm.not_made", 1)
        assert (await w.does(owner, "ls"))["vms"] == []


async def test_new_waits_for_the_boot_and_not_longer() -> None:
    driver = SlowDriver()
    async with world(driver) as w:
        owner = await w.person("olive")
        task = asyncio.create_task(w.does(owner, "new --name demo"))
        while not driver.waiting:
            await asyncio.sleep(0.005)
        assert [v["status"] for v in (await w.does(owner, "ls"))["vms"]] == ["starting"]
        driver.let_boot(next(iter(driver.waiting)))
        assert (await asyncio.wait_for(task, 5))["vm_name"] == "demo"


async def test_keys_are_added_renamed_and_removed_but_never_the_last() -> None:
    line = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGJzDOXvS0ZkB2bq8v1yYkN0Vn5t9h6n8v6mJt0m3sQF laptop"
    async with world() as w:
        owner, other = await w.person("olive"), await w.person("sam")
        assert (await w.fails(owner, "ssh-key remove olive"))[0] == "key.last"
        w.clock.advance(1)
        await w.does(owner, f"ssh-key add {line}")
        assert (await w.fails(other, f"ssh-key add {line}"))[0] == "key.taken"
        await w.does(owner, "ssh-key rename laptop desk")
        keys = (await w.does(owner, "whoami"))["ssh_keys"]
        assert [(k["name"], k["current"]) for k in keys] == [("olive", True), ("desk", False)]
        await w.does(owner, "ssh-key rm desk")
        assert len((await w.does(owner, "ssh-key list"))["ssh_keys"]) == 1
        assert (await w.fails(owner, "ssh-key add not a key"))[0] == "key.bad"


async def test_what_nodes_see_is_shown_as_it_is() -> None:
    async with world() as w:
        owner = await w.person("olive")
        await w.does(owner, "new --name demo")
        (vm,) = w.driver.vms
        w.driver.crash(vm, "the guest died", "last words")
        while (await w.does(owner, "ls"))["vms"][0]["status"] != "failed":
            w.loop.nudge()
            await asyncio.sleep(0.005)
        shown = (await w.does(owner, "ls"))["vms"][0]
        assert (shown["detail"], shown["console"]) == ("the guest died", "last words")
        assert w.driver.vms[vm].phase is Phase.FAILED
        code, _ = await w.fails(owner, "ssh demo id")
        assert code == "vm.not_running"


async def test_absence_on_a_node_never_deletes_a_vm() -> None:
    async with world() as w:
        owner = await w.person("olive")
        await w.does(owner, "new --name demo")
        await w.app.db.read(lambda tx: None)
        w.driver.vms.clear()
        w.loop.nudge()
        await asyncio.wait_for(w.loop.settled(), 5)
        assert [v["vm_name"] for v in (await w.does(owner, "ls"))["vms"]] == ["demo"]
