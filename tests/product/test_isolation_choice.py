"""A VM has a kernel of its own unless its owner asks for a container and the operator allows them."""
from __future__ import annotations

from tests.world import world
from ussycode.runtime.driver import Isolation


async def test_a_container_is_asked_for_by_name_and_shown() -> None:
    async with world(containers="true") as w:
        owner = await w.person("olive")
        await w.does(owner, "new --name demo --isolation container")
        await w.does(owner, "new --name plain")
        listed = (await w.does(owner, "ls -l"))["vms"]
        assert {v["vm_name"]: v["isolation"] for v in listed} == {"demo": "container", "plain": "vm"}  # type: ignore[attr-defined]
        assert {one.isolation for one in w.driver.told.values()} == {Isolation.VM, Isolation.CONTAINER}
        outcome = await w.run(owner, "ls -l", json=False)
        assert outcome.view is not None


async def test_without_the_operators_word_there_are_none() -> None:
    async with world() as w:
        owner = await w.person("olive")
        assert (await w.fails(owner, "new --name demo --isolation container"))[0] == "container.not_enabled"
        assert (await w.fails(owner, "new --name demo --isolation jail"))[0] == "usage.bad_value"
        assert (await w.does(owner, "ls"))["vms"] == []
