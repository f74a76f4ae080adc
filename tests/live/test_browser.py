"""A person with a browser: sent to sign in, signed in by the link, their page, the dashboard, signed out everywhere."""
from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.live.browser import chromium
from tests.live.rig import Platform, until

pytestmark = pytest.mark.timeout(180)


def test_sign_in_page_dashboard_and_sign_out_in_a_real_browser(lived: Platform, tmp_path: Path) -> None:
    assert lived.lobby("new", "--name", "shown", seconds=120).status == 0
    page = "mkdir -p site; echo '<h1>mine alone</h1>' > site/index.html; cd site; " \
           "setsid -f python3 -m http.server 8000 >/dev/null 2>&1"
    assert lived.ssh("shown@localhost", page).status == 0
    until(lambda: ":1F40 " in lived.ssh("shown@localhost", "cat /proc/net/tcp").out, 30, "a server on port 8000")
    url = lived.url("shown.localhost")
    with chromium(lived.home / "root.pem") as tab:
        tab.open(url)
        tab.until("location.hostname == 'localhost' && document.body.innerText.includes('browser')")
        assert "mine alone" not in tab.run("document.body.innerText")
        tab.picture(tmp_path / "login.png")
        tab.open(json.loads(lived.lobby("browser", "--json").out)["url"])
        tab.until("!!document.querySelector('form button, form input[type=submit]')")
        tab.picture(tmp_path / "confirm.png")
        tab.run("document.querySelector('form button, form input[type=submit]').click()")
        # Signed in, the browser goes on to where it wanted to go when it was sent away.
        tab.until("document.body.innerText.includes('mine alone') || document.body.innerText.includes('shown')")
        tab.open(url)
        tab.until("document.body.innerText.includes('mine alone')")
        tab.open(lived.url("localhost"))
        tab.until("document.body.innerText.includes('shown@localhost')")
        tab.picture(tmp_path / "dashboard.png")
        assert [c for c in tab.complaints if 'favicon' not in c and '404' not in c] == []
        tab.run("document.querySelector('form[action*=logout] button, form[action*=logout] input').click()")
        tab.until("!!document.querySelector('main h1') && !document.querySelector('form[action*=logout]')")
        # An address of its own: what a browser has in its cache it may show for a moment without asking.
        tab.open(f"{url}?signed-out")
        tab.until("location.hostname == 'localhost'")
        assert "mine alone" not in tab.run("document.body.innerText")
    assert lived.lobby("rm", "shown").status == 0
