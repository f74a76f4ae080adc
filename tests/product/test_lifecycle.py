"""Every verb of a VM's life, as owners type them; the machine is the fake driver, everything above it is real."""
from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from tests.world import World, world
from ussycode.access.facts import Caller, Role
from ussycode.runtime.driver import Phase
from ussycode.vms import samples, snapshots, store, trash, waking


@pytest.fixture
async def w() -> AsyncIterator[World]:
    async with world() as made:
        yield made


@pytest.fixture
async def olive(w: World) -> Caller:
    return await w.person("olive", Role.CITIZEN)


async def state(w: World, who: Caller, name: str = "demo") -> str:
    (one,) = (await w.does(who, f"ls {name}"))["vms"]  # type: ignore[misc]
    return str(one["status"])


async def test_stop_and_start_are_idempotent_and_say_the_state(w: World, olive: Caller) -> None:
    await w.does(olive, "new --name demo")
    for _ in range(2):
        assert await w.does(olive, "stop demo") == {"vm_name": "demo", "status": "stopped"}
    assert await state(w, olive) == "stopped"
    for _ in range(2):
        assert await w.does(olive, "start demo") == {"vm_name": "demo", "status": "running"}
    assert await state(w, olive) == "running"


async def test_pause_and_resume_bring_the_same_boot_back(w: World, olive: Caller) -> None:
    await w.does(olive, "new --name demo")
    for _ in range(2):
        assert await w.does(olive, "pause demo") == {"vm_name": "demo", "status": "paused"}
    assert await state(w, olive) == "paused"
    assert (await w.fails(olive, "ssh demo id"))[0] == "vm.not_running"
    assert await w.does(olive, "resume demo") == {"vm_name": "demo", "status": "running", "cold_booted": "false"}
    await w.does(olive, "pause demo")
    w.driver.lose_memory(next(iter(w.driver.vms)))
    assert (await w.does(olive, "resume demo"))["cold_booted"] == "true"


async def test_what_does_not_run_is_not_paused(w: World, olive: Caller) -> None:
    await w.does(olive, "new --name demo")
    await w.does(olive, "stop demo")
    assert (await w.fails(olive, "pause demo"))[0] == "vm.not_pausable"


async def test_a_guest_that_switched_itself_off_is_stopped_and_starts_again(w: World, olive: Caller) -> None:
    await w.does(olive, "new --name demo")
    (vm,) = w.driver.vms
    w.driver.power_off(vm)
    await w.loop.look()
    assert await state(w, olive) == "stopped"
    explained = await w.does(olive, "why demo")
    assert explained["why"] == "the guest powered itself off"
    assert explained["advice"] == "start demo"
    await w.does(olive, "start demo")
    assert await state(w, olive) == "running"


async def test_a_copy_says_what_it_left_behind(w: World, olive: Caller) -> None:
    await w.does(olive, "new --name demo --comment 'the shop' --tag prod,web --env A=1")
    made = await w.does(olive, "cp demo shop --memory 1G")
    assert {k: made[k] for k in ("name", "state", "source", "tags", "comment")} == {
        "name": "shop", "state": "starting", "source": "demo", "tags": ["prod", "web"], "comment": "the shop",
    }
    left = made["not_copied"]
    assert isinstance(left, list) and left[0] == "the programs that were running"
    assert left[-1] == "its machine id and SSH host keys"
    copied = next(want for want in w.driver.told.values() if want.name == "shop")
    assert (copied.origin.kind.value, copied.memory_mib, copied.env) == ("vm", 1024, (("A", "1"),))
    assert (await w.does(olive, "cp demo plain --copy-tags=false"))["tags"] == []


async def test_snapshots_by_name(w: World, olive: Caller) -> None:
    await w.does(olive, "new --name demo")
    await w.does(olive, "snapshot create demo before")
    assert (await w.fails(olive, "snapshot create demo before"))[0] == "snapshot.name_taken"
    (row,) = (await w.does(olive, "snapshot ls demo"))["snapshots"]  # type: ignore[misc]
    assert (row["name"], row["ready"], row["size"]) == ("before", True, 1 << 20)
    assert await w.does(olive, "restore demo before") == {"vm_name": "demo", "status": "running"}
    (seen,) = w.driver.vms.values()
    assert (seen.disk_turn, seen.boot) == (2, 2)
    await w.does(olive, "stop demo")
    assert (await w.does(olive, "snapshot restore demo before"))["status"] == "stopped"
    await w.does(olive, "snapshot rm demo before")
    assert (await w.does(olive, "snapshot ls demo"))["snapshots"] == []
    assert (await w.fails(olive, "restore demo before"))[0] == "snapshot.unknown"


async def test_daily_snapshots_are_seven(w: World, olive: Caller) -> None:
    await w.does(olive, "new --name demo")
    await w.does(olive, "snapshot schedule demo daily")
    for _ in range(9):
        assert await snapshots.take_due(w.app) == 1
        assert await snapshots.take_due(w.app) == 0
        await w.loop.look()
        await w.loop.settled()
        await w.loop.look()
        w.clock.advance(snapshots.DAY)
    assert len((await w.does(olive, "snapshot ls demo"))["snapshots"]) == snapshots.DAILY_KEPT  # type: ignore[arg-type]


async def test_sizes_change_and_say_when(w: World, olive: Caller) -> None:
    await w.does(olive, "new --name demo")
    assert await w.does(olive, "resize demo --disk 8G --memory 1G --cpu 2") == {
        "vm_name": "demo", "old_memory": 512 << 20, "new_memory": 1 << 30, "old_cpus": 1, "new_cpus": 2,
        "disk_old_bytes": 5 << 30, "disk_new_bytes": 8 << 30,
    }
    assert next(iter(w.driver.vms.values())).disk_gib == 8
    assert (await w.fails(olive, "resize demo --disk 4G"))[0] == "disk.shrink"
    assert (await w.fails(olive, "resize demo --cpu 9"))[0] == "quota.vcpus"
    assert await w.does(olive, "resize demo") == {"vm_name": "demo"}


async def test_rm_is_a_trash_with_a_way_back(w: World, olive: Caller) -> None:
    await w.does(olive, "new --name demo --comment kept")
    await w.does(olive, "rm demo")
    assert (await w.does(olive, "ls"))["vms"] == []
    assert (await w.fails(olive, "start demo"))[0] == "vm.unknown"
    (gone,) = (await w.does(olive, "trash ls"))["trash"]  # type: ignore[misc]
    assert gone["vm_name"] == "demo"
    await w.does(olive, "new --name demo")
    assert (await w.fails(olive, "trash restore demo"))[0] == "vm.name_yours"
    assert await w.does(olive, "trash restore demo --name old") == {"vm_name": "old", "status": "stopped"}
    (back,) = (await w.does(olive, "ls old"))["vms"]  # type: ignore[misc]
    assert back["comment"] == "kept"
    await w.does(olive, "start old")


async def test_the_trash_empties_itself_and_by_hand(w: World, olive: Caller) -> None:
    for name in ("one", "two", "three"):
        await w.does(olive, f"new --name {name}a")
        await w.does(olive, f"rm {name}a")
    await w.does(olive, "trash empty onea")
    w.clock.advance(trash.KEEP_SECONDS + 1)
    assert await trash.expire(w.app) == 2
    await w.loop.look()
    await w.loop.settled()
    assert w.driver.vms == {}


async def test_the_trash_gives_way_to_new_vms(w: World) -> None:
    """Somebody with room for three disks who removes three VMs can make three more at once."""
    newbie = await w.person("newbie")
    for turn in ("aa", "bb"):
        for n in "xyz":
            await w.does(newbie, f"new --name {turn}{n}")
        await w.does(newbie, " ".join(["rm", *(f"{turn}{n}" for n in "xyz")]))
    assert len((await w.does(newbie, "trash ls"))["trash"]) == 3  # type: ignore[arg-type]


async def test_memory_counts_while_a_vm_runs(w: World) -> None:
    newbie = await w.person("newbie")
    await w.does(newbie, "new --name one1a --memory 1G")
    await w.does(newbie, "new --name two1a --memory 1G")
    assert (await w.fails(newbie, "new --name three1a"))[0] == "quota.memory"
    await w.does(newbie, "stop one1a")
    await w.does(newbie, "new --name three1a")
    assert (await w.fails(newbie, "start one1a"))[0] == "quota.memory"
    shown = (await w.does(newbie, "quota"))["quota"]
    assert shown["memory_mib"] == {"used": 1536, "limit": 2048, "counts": "memory of VMs that run"}  # type: ignore[index]


async def test_no_way_of_starting_a_vm_passes_the_quota(w: World) -> None:
    """Whoever asks: the memory that counts is its owner's."""
    newbie = await w.person("newbie")
    await w.does(newbie, "new --name sleeper --memory 1G --wake")
    await w.does(newbie, "stop sleeper")
    await w.does(newbie, "new --name awake1 --memory 2G")
    for verb in ("start", "restart", "resume"):
        assert (await w.fails(newbie, f"{verb} sleeper"))[0] == "quota.memory", verb
    sleeper = next(vm for vm, told in w.driver.told.items() if told.name == "sleeper")
    woken, why = await waking.wake(w.app, sleeper)
    assert not woken and "would pass your 2048 MiB of memory" in why
    code, _ = await w.fails(newbie, "ssh sleeper id")
    assert code == "vm.not_running" and w.driver.vms[sleeper].phase is Phase.STOPPED
    await w.does(newbie, "stop awake1")
    assert await waking.wake(w.app, sleeper) == (True, "")


async def test_every_resource_is_counted_and_told(w: World) -> None:
    newbie = await w.person("newbie")
    await w.does(newbie, "new --name one1a --disk 6G")
    await w.does(newbie, "new --name two1a --disk 6G --memory 256M")
    await w.does(newbie, "rm two1a")
    await w.does(newbie, "snapshot create one1a kept")
    shown = (await w.does(newbie, "quota"))["quota"]
    assert isinstance(shown, dict)
    assert {what: (row["used"], row["limit"]) for what, row in shown.items()} == {
        "vms": (1, 3), "vcpus": (1, 1), "memory_mib": (512, 2048), "disk_gib": (12, 15)}
    for line, code in (("new --disk 10G", "quota.disk"), ("new --cpu 2", "quota.vcpus"),
                       ("new --memory 4G", "quota.memory"), ("resize one1a --disk 20G", "quota.disk"),
                       ("cp one1a --disk 10G", "quota.disk")):
        assert (await w.fails(newbie, line))[0] == code, line
    assert len((await w.does(newbie, "trash ls"))["trash"]) <= 1  # type: ignore[arg-type]


async def test_what_is_said_twice_is_done_once(w: World, olive: Caller) -> None:
    """Whoever repeats a command because an answer was lost does no harm by it."""
    await w.does(olive, "new --name demo")
    await w.does(olive, "snapshot create demo kept")
    (vm,) = w.driver.vms
    for line, seen in (
        ("stop demo", Phase.STOPPED), ("start demo", Phase.RUNNING), ("pause demo", Phase.PAUSED),
        ("resume demo", Phase.RUNNING), ("pause demo", Phase.PAUSED), ("start demo", Phase.RUNNING),
        ("resize demo --disk 6G --memory 1G", Phase.RUNNING), ("restore demo kept", Phase.RUNNING),
        ("restart demo", Phase.RUNNING), ("snapshot schedule demo daily", Phase.RUNNING),
        ("wake demo on", Phase.RUNNING), ("egress demo integrations", Phase.RUNNING),
        ("tag demo a", Phase.RUNNING), ("tag -d demo a", Phase.RUNNING),
        ("comment demo x", Phase.RUNNING), ("pause demo", Phase.PAUSED), ("stop demo", Phase.STOPPED),
    ):
        answers = [await w.does(olive, line) for _ in range(2)]
        await w.loop.look()
        await w.loop.settled()
        assert w.driver.vms[vm].phase is seen, line
        assert line.startswith("resize") or answers[0] == answers[1], line
    (listed,) = (await w.does(olive, "ls -l demo"))["vms"]  # type: ignore[misc]
    assert (listed["disk"], listed["memory"], w.driver.vms[vm].disk_gib) == (6 << 30, 1 << 30, 6)
    assert len(w.driver.vms) == 1
    for line, code in (("snapshot rm demo kept", "snapshot.unknown"), ("trash empty demo", "trash.unknown")):
        if line.startswith("trash"):
            await w.does(olive, "rm demo")
            assert (await w.run(olive, "rm demo")).exit_code == 1, "said to be gone, not removed twice"
        await w.does(olive, line)
        assert (await w.fails(olive, line))[0] == code


async def test_numbers_of_removed_vms_are_used_again(w: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """A host has so many addresses and no more; when they are out, that is a sentence."""
    monkeypatch.setattr(store, "LAST_NUMBER", store.FIRST_NUMBER + 1)
    ada = await w.person("ada", Role.ADMIN)
    for name in ("one1a", "two1a"):
        await w.does(ada, f"new --name {name}")
    assert (await w.fails(ada, "new --name three1a"))[0] == "vm.host_full"
    assert [vm["vm_name"] for vm in (await w.does(ada, "ls"))["vms"]] == ["one1a", "two1a"]  # type: ignore[attr-defined]
    await w.does(ada, "rm --now one1a")
    await w.does(ada, "new --name three1a")
    assert sorted(told.number for told in w.driver.told.values()) == [store.FIRST_NUMBER, store.FIRST_NUMBER + 1]


async def test_words_about_a_vm(w: World, olive: Caller) -> None:
    await w.does(olive, "new --name demo")
    assert await w.does(olive, "comment demo 'my app'") == {"vm_name": "demo", "comment": "my app"}
    assert await w.does(olive, "tag demo prod web prod") == {"vm_name": "demo", "tags": ["prod", "web"]}
    assert await w.does(olive, "tag -d demo web") == {"vm_name": "demo", "tags": ["prod"]}
    assert await w.does(olive, "egress demo integrations") == {"vm_name": "demo", "egress_policy": "integrations"}
    assert await w.does(olive, "wake demo on") == {"vm_name": "demo", "wake": True}
    (shown,) = (await w.does(olive, "ls demo"))["vms"]  # type: ignore[misc]
    assert (shown["tags"], shown["comment"], shown["egress_policy"]) == (["prod"], "my app", "integrations")
    assert await w.does(olive, "comment demo ''") == {"vm_name": "demo", "comment": ""}
    for bad in ("comment demo " + "x" * 201, "tag demo Prod", "egress demo some", "wake demo maybe"):
        assert (await w.fails(olive, bad))[1] == 2


async def test_figures_are_kept_for_thirty_days(w: World, olive: Caller) -> None:
    await w.does(olive, "new --name demo")
    assert await w.does(olive, "stat demo") == {"name": "demo", "status": "running", "range": "24h", "points": None}
    for _ in range(3):
        assert await samples.take(w.app) == 1
        w.clock.advance(samples.INTERVAL)
    points = (await w.does(olive, "stat demo --range 7d"))["points"]
    assert isinstance(points, list) and len(points) == 2
    assert points[0]["mem_total_bytes"] == 512 << 20
    w.clock.advance(samples.KEEP_SECONDS)
    await samples.take(w.app)
    assert len((await w.does(olive, "stat demo --range 30d"))["points"]) == 1  # type: ignore[arg-type]


async def test_defaults_are_what_new_takes_when_nothing_is_said(w: World, olive: Caller) -> None:
    await w.does(olive, "defaults write dev.exe new.env 'A=1\nB=2'")
    await w.does(olive, "defaults write dev.exe new.memory 1G")
    await w.does(olive, "new --name demo --env B=3")
    (told,) = w.driver.told.values()
    assert (dict(told.env), told.memory_mib) == ({"A": "1", "B": "3"}, 1024)
    assert (await w.does(olive, "defaults delete dev.exe new.env"))["defaults"] == {"new.memory": "1G"}
    assert (await w.does(olive, "defaults read"))["defaults"] == {"new.memory": "1G"}
    assert (await w.fails(olive, "defaults write dev.exe new.colour red"))[0] == "defaults.unknown"


async def test_a_sleeping_vm_is_woken_only_when_it_is_marked(w: World, olive: Caller) -> None:
    await w.does(olive, "new --name demo")
    await w.does(olive, "stop demo")
    (vm,) = w.driver.vms
    async with asyncio.timeout(5):  # nobody is kept waiting for what will not come
        assert await waking.wake(w.app, vm) == (False, "it is stopped, and a visit does not start it")
    await w.does(olive, "wake demo on")
    assert await waking.wake(w.app, vm) == (True, "")
    assert await state(w, olive) == "running"


async def test_after_a_start_nobody_is_told_what_was_true_before_it(w: World, olive: Caller) -> None:
    await w.does(olive, "new --name demo")
    (vm,) = w.driver.vms
    w.driver.listeners.clear()  # the platform was down when the machine went
    w.driver.vms[vm] = replace(w.driver.vms[vm], phase=Phase.STOPPED, boot=0, address="")
    assert await state(w, olive) == "running"
    await w.loop.begin()
    assert await state(w, olive) != "running"


async def test_flags_that_are_not_offered_say_so(w: World, olive: Caller) -> None:
    for flag in ("--pool big", "--standalone", "--integration github"):
        assert (await w.fails(olive, f"new --name demo {flag}"))[0] == "new.flag_not_offered"
    await w.does(olive, "new --name demo --no-pool")


async def test_a_stranger_changes_nothing(w: World, olive: Caller) -> None:
    await w.does(olive, "new --name demo")
    mallory = await w.person("mallory")
    for line in (
        "start demo", "stop demo", "pause demo", "resume demo", "cp demo", "resize demo --disk 9G", "comment demo x",
        "tag demo x", "egress demo all", "wake demo on", "stat demo", "why demo", "snapshot create demo",
        "restore demo x",
        "snapshot ls demo", "snapshot rm demo x", "snapshot schedule demo daily",
    ):
        assert (await w.fails(mallory, line))[0] == "vm.unknown", line
    await w.does(olive, "rm demo")
    assert (await w.fails(mallory, "trash restore demo"))[0] == "trash.unknown"
    kept = await w.app.db.read(store.everything)
    assert [vm.phase for vm in kept] == [Phase.STOPPED]


async def test_a_warning_is_told_and_fails_nothing(w: World, olive: Caller) -> None:
    """A disk that fills up is a reason to speak, not a reason for `snapshot` and `resize` to say that they failed."""
    await w.does(olive, "new --name demo")
    vm = next(iter(w.driver.vms))
    w.driver.warn(vm, "its disk is 85 % full")
    await w.does(olive, "snapshot create demo before")
    await w.does(olive, "resize demo --disk 6G")
    (one,) = (await w.does(olive, "ls demo"))["vms"]  # type: ignore[misc]
    assert one["notice"] == "its disk is 85 % full"
    assert "85 % full" in str(await w.does(olive, "why demo"))
