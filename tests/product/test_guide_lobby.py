"""Every console block of the lobby's page is executed, in order; what the page shows is what happens."""
from __future__ import annotations

import os
import re

from tests.live.test_guide import GUIDE, steps
from tests.product.ssh_world import SshWorld


def expected(text: str) -> re.Pattern[str]:
    """What a page shows, `…` standing for anything."""
    return re.compile(re.escape(text.strip()).replace("…", ".*"), re.S)


async def test_the_page_is_what_happens(place: SshWorld) -> None:
    olive = await place.member("olive")
    (olive.home / "ssh").write_text(f'#!/bin/sh\nexec /usr/bin/ssh -F {olive.home}/config "$@"\n')
    (olive.home / "ssh").chmod(0o755)
    env = {"PATH": f"{olive.home}:{os.environ['PATH']}"}
    page = (GUIDE / "lobby.md").read_text().replace("2222", str(place.port))
    done = 0
    for command, shown in steps(page):
        ran = await olive.run("bash", "-c", f"{{ {command}\n}} 2>&1", env=env)
        assert expected(shown).fullmatch(ran.text.strip()), f"$ {command}\nshowed {ran.text!r}\nthe page: {shown!r}"
        done += 1
    assert done > 12
