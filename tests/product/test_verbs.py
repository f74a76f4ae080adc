"""Small verbs an owner types: what a VM can begin as, what is wrong, keys limited by tag."""
from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.product.test_first_boot import Guest, give
from tests.world import World, world
from ussycode.access.facts import Caller, Role
from ussycode.vms.projects import PROJECTS


@pytest.fixture
async def w() -> AsyncIterator[World]:
    async with world() as made:
        yield made


@pytest.fixture
async def olive(w: World) -> Caller:
    return await w.person("olive", Role.CITIZEN)


async def test_a_vm_begins_as_any_of_the_projects(w: World, olive: Caller) -> None:
    guest = give(w, Guest())
    listed = (await w.does(olive, "projects"))["projects"]
    for project in listed:  # type: ignore[attr-defined]
        await w.does(olive, f"new --template {project['name']}")
        assert bytes(guest.taken[-1].got).decode() == PROJECTS[project["name"]].script
    assert (await w.fails(olive, "new --template nothing"))[0] == "usage.bad_value"
    assert (await w.fails(olive, "new --template static --setup-script true"))[0] == "new.one_script"


async def test_doctor_names_what_stands_in_the_way(w: World, olive: Caller) -> None:
    await w.does(olive, "new --name demo")
    (vm,) = w.driver.vms
    w.driver.crash(vm, "the guest's kernel panicked", "Kernel panic")
    await w.loop.look()
    found = await w.does(olive, "doctor")
    checks = {c["what"]: c for c in found["checks"]}  # type: ignore[attr-defined]
    assert found["ok"] is False
    assert checks["demo"] == {"what": "demo", "ok": False, "found": "the guest's kernel panicked", "todo": "why demo"}
    assert checks["memory"]["ok"] and checks["images"]["ok"] and not checks["e-mail"]["ok"]


async def test_a_key_is_limited_to_a_tag_and_freed_again_but_never_the_last_free_one(w: World, olive: Caller) -> None:
    assert (await w.fails(olive, "ssh-key tag olive prod"))[0] == "key.alone"
    key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGJzDOXvS0ZkB2bq8v1yYkN0Vn5t9h6n8v6mJt0m3sQF"
    await w.does(olive, f"ssh-key add {key} ci")
    tagged = await w.does(olive, "ssh-key tag ci prod")
    assert [(k["name"], k["tag"]) for k in tagged["ssh_keys"]] == [("ci", "prod")]  # type: ignore[attr-defined]
    assert "tag" not in (await w.does(olive, "ssh-key tag -d ci"))["ssh_keys"][0]  # type: ignore[index]
    assert (await w.fails(olive, "ssh-key tag ci"))[0] == "key.no_tag"
    assert (await w.fails(olive, "ssh-key tag nothere prod"))[0] == "key.unknown"


async def test_vm_logs_is_another_word_for_why(w: World, olive: Caller) -> None:
    await w.does(olive, "new --name demo")
    assert await w.does(olive, "vm-logs demo") == await w.does(olive, "why demo")
