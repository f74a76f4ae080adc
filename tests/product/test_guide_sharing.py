"""Every console block of the page on sharing is executed, in order; what the page shows is what happens."""
from __future__ import annotations

import os

from tests.live.test_guide import GUIDE, steps
from tests.product.ssh_world import SshWorld
from tests.product.test_guide_lobby import expected


async def test_the_page_is_what_happens(place: SshWorld) -> None:
    olive = await place.member("olive")
    (olive.home / "ssh").write_text(f'#!/bin/sh\nexec /usr/bin/ssh -F {olive.home}/config "$@"\n')
    (olive.home / "ssh").chmod(0o755)
    env = {"PATH": f"{olive.home}:{os.environ['PATH']}"}
    page = (GUIDE / "sharing.md").read_text().replace("2222", str(place.port))
    done = 0
    for command, shown in steps(page):
        ran = await olive.run("bash", "-c", f"{{ {command}\n}} 2>&1", env=env)
        assert expected(shown).fullmatch(ran.text.strip()), f"$ {command}\nshowed {ran.text!r}\nthe page: {shown!r}"
        done += 1
    assert done > 12
