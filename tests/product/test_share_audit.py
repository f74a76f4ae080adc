"""Every change of who reaches a VM leaves exactly one row in the audit log, and what changes nothing leaves none."""
from __future__ import annotations

import pytest

from tests.product.test_sharing import BOB, NOTHING, WEB, kinds, may
from tests.world import world
from ussycode.access.facts import NOBODY
from ussycode.sharing import links

CHANGES = (
    ("share set-public demo", "share.public"), ("share set-public demo --port 3000", "share.public"),
    ("share set-private demo", "share.private"), ("share port demo 3000", "share.port"),
    (f"share add demo {BOB}", "share.added"), (f"share add demo {BOB} --root", "share.changed"),
    (f"share add demo {BOB} --expires 7d", "share.changed"), (f"share remove demo {BOB} --root", "share.lowered"),
    (f"share remove demo {BOB}", "share.removed"), ("share add-link demo", "share.link_added"),
    ("share receive-email demo on", "share.mailbox"), ("share receive-email demo off", "share.mailbox"),
)
READS = (
    "share show demo", "share port demo", "share who demo", f"share who demo {BOB}", "share log demo", "share mine",
    f"share add demo {BOB}", "share receive-email demo", "share receive-email demo off",
)


async def test_each_change_is_one_row() -> None:
    async with world() as w:
        olive = await w.person("olive")
        await w.does(olive, "new --name demo")
        for line, kind in CHANGES:
            before = await kinds(w)
            await w.does(olive, line)
            assert (await kinds(w))[len(before):] == [kind], line
        link = str((await w.does(olive, "share add-link demo"))["id"])
        before = await kinds(w)
        await w.does(olive, f"share remove-link demo {link} --revoke")
        assert (await kinds(w))[len(before):] == ["share.link_removed"]


async def test_what_changes_nothing_and_what_is_refused_leave_no_row() -> None:
    async with world() as w:
        olive, mallory = await w.person("olive"), await w.person("mallory")
        await w.does(olive, "new --name demo")
        await w.does(olive, f"share add demo {BOB}")
        before = await kinds(w)
        for line in READS:
            await w.does(olive, line)
        for line, _ in CHANGES:
            assert (await w.run(mallory, line)).failure is not None
        for line in ("share add demo team", "share remove demo nobody@example.org", "share remove-link demo link_none"):
            assert (await w.run(olive, line)).failure is not None
        assert await kinds(w) == before


@pytest.mark.parametrize("taken", [
    "share set-private demo", "share remove demo bob", "share remove-link demo LINK --revoke",
])
async def test_public_invitation_and_link_do_not_touch_each_other(taken: str) -> None:
    async with world() as w:
        olive, bob, carl = await w.person("olive"), await w.person("bob"), await w.person("carl")
        await w.does(olive, "new --name demo")
        link = await w.does(olive, "share add-link demo")
        await links.redeem(w.app, carl, str(link["token"]))
        await w.does(olive, "share add demo bob")
        await w.does(olive, "share set-public demo")
        await w.does(olive, taken.replace("LINK", str(link["id"])))
        if "set-private" not in taken:
            assert (await may(w, NOBODY))["8000"]
            await w.does(olive, "share set-private demo")
        assert await may(w, NOBODY) == NOTHING
        assert await may(w, bob) == (NOTHING if "bob" in taken else WEB)
        assert await may(w, carl) == (NOTHING if "LINK" in taken else WEB)


async def test_public_is_switched_as_often_as_one_likes() -> None:
    async with world() as w:
        olive = await w.person("olive")
        await w.does(olive, "new --name demo")
        for turn in range(10):
            await w.does(olive, "share set-public demo" if turn % 2 == 0 else "share set-private demo")
            assert (await may(w, NOBODY))["8000"] is (turn % 2 == 0)
