"""A share link in a real browser: signed in, one button, and the app that opens does not learn the link."""
from __future__ import annotations

import asyncio
from pathlib import Path

from tests.live.browser import Tab, chromium
from tests.name_server import NameServer
from tests.product.whole_world import whole_world


async def test_a_browser_takes_a_link_and_the_app_does_not_learn_it(
    guest_program: Path, tmp_path: Path, names: NameServer
) -> None:
    async with whole_world(guest_program, tmp_path, names) as w:
        olive, bob = await w.member("olive"), await w.member("bob")
        await w.does(olive, "new --name demo")
        await w.serve("demo", 8000)
        link = str((await w.does(olive, "share add-link demo"))["url"])
        sign_in = str((await w.does(bob, "browser"))["url"])
        shown = await asyncio.to_thread(taken, tmp_path / "root.pem", link, sign_in)
        assert '"demo:8000"' in shown and link.rpartition("/")[2] not in shown
        users = (await w.does(olive, "share show demo"))["users"]
        assert [u["handle"] for u in users] == ["bob"]  # type: ignore[union-attr]


def taken(root: Path, link: str, sign_in: str) -> str:
    """What the app saw of a browser that opened the link, signed in on the way, and pressed the button."""
    with chromium(root) as tab:
        tab.open(link)
        tab.until("document.title.includes('Sign in')")
        tab.open(sign_in)
        press(tab, "Sign in as bob")
        press(tab, "Open demo")
        return str(tab.until("document.body.innerText.includes('headers') && document.body.innerText"))


def press(tab: Tab, label: str) -> None:
    """Press the button with this label once it is there."""
    found = f"[...document.querySelectorAll('button')].find(b => b.innerText == {label!r})"
    tab.until(f"{found} != undefined")
    tab.run(f"{found}.click()")
