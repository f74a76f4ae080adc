"""A VM gets another name while it runs: inside, over SSH and HTTPS, and nothing that runs in it ends."""
from __future__ import annotations

import pytest

from tests.live.rig import Platform, until

pytestmark = pytest.mark.timeout(180)


def test_a_running_vm_has_its_new_name_everywhere_at_once(lived: Platform) -> None:
    assert lived.lobby("new --name before --env COLOUR=blue", seconds=120).status == 0
    box = "setsid -f sh -c 'cd /tmp; echo the page > index.html; exec python3 -m http.server 8000' >/dev/null 2>&1"
    assert lived.ssh("before@localhost", box).status == 0
    assert lived.lobby("share set-public before").status == 0
    until(lambda: lived.curl(lived.url("before.localhost")).out == "the page\n", 30, "the server")
    boot = lived.ssh("before@localhost", "cat /proc/sys/kernel/random/boot_id").out
    assert lived.lobby("rename before after").status == 0
    assert lived.curl(lived.url("after.localhost")).out == "the page\n"
    assert "the page" not in lived.curl(lived.url("before.localhost")).out
    until(lambda: lived.ssh("after@localhost", "hostname; cat /etc/hostname").out == "after\nafter\n", 30, "the name")
    assert lived.ssh("after@localhost", "cat /proc/sys/kernel/random/boot_id").out == boot
    assert lived.ssh("after@localhost", "getent hosts after").out.split()[0].startswith("127.")
    gone = lived.ssh("before@localhost", "true")
    assert gone.status != 0 and "before" in gone.err
    assert lived.lobby("rm --now after").status == 0
