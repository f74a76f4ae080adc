"""Somebody without a share asks in their browser; the owner lets them in with one command, and the page opens."""
from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.live.browser import chromium
from tests.live.rig import Platform

pytestmark = pytest.mark.timeout(240)


def test_asking_and_being_let_in(lived: Platform, tmp_path: Path) -> None:
    assert lived.lobby("new", "--name", "asked", seconds=120).status == 0
    with lived.terminal("ssh", "-p", str(lived.ports["ssh"]), "localhost", who="rita") as screen:
        screen.until("handle: ")
        screen.type("rita\r")
        screen.until("▶ ")
        screen.type("\x04")
        assert screen.status() == 0
    with chromium(lived.home / "root.pem") as tab:
        tab.open(json.loads(lived.lobby("browser", "--json", who="rita").out)["url"])
        tab.until("!!document.querySelector('form button.big')")
        tab.run("document.querySelector('form button.big').click()")
        tab.until("document.body.innerText.includes('Your machines')")
        shown = []
        for name in ("never-made", "asked"):
            tab.open(lived.url(f"{name}.localhost"))
            tab.until(f"location.hostname == '{name}.localhost' && !!document.querySelector('a')")
            shown.append(tab.run("document.documentElement.outerHTML"))
        assert shown[0] == shown[1] and "Ask for access" in shown[0]
        tab.run("document.querySelector('a').click()")
        tab.until("document.body.innerText.includes('They will see that you are rita')")
        tab.run("document.querySelector('form[action*=request] input').value = 'for the talk'")
        tab.picture(tmp_path / "request.png")
        tab.run("document.querySelector('form[action*=request] button').click()")
        tab.until("document.body.innerText.includes('its owner has been told')")
        [asks] = json.loads(lived.lobby("share", "requests", "--json").out)["requests"]
        assert (asks["vm_name"], asks["handle"], asks["message"]) == ("asked", "rita", "for the talk")
        assert lived.lobby("share", "approve", "asked", "rita").status == 0
        tab.open(lived.url("asked.localhost"))
        tab.until("document.body.innerText.includes('nothing listens on port 8000')")
        assert lived.lobby("share", "remove", "asked", "rita").status == 0
        tab.open(lived.url("asked.localhost"))
        tab.until("document.body.innerText.includes('Ask for access')")
    assert lived.lobby("rm", "asked").status == 0
