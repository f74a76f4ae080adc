"""What a real guest does with its setup script, prompt and files: once, as its user, with the VM's environment."""
from __future__ import annotations

import pytest

from tests.live.rig import Platform, until
from ussycode.runtime.images.store import Image

pytestmark = pytest.mark.timeout(300)
SCRIPT = b"""#!/bin/bash
set -e
echo "$(id -un) in $PWD says $COLOUR" >> ~/made
sudo mkdir -p /etc/ussycode
printf '#!/bin/sh\\ncat > ~/prompt\\n' | sudo tee /etc/ussycode/agent > /dev/null
sudo chmod 755 /etc/ussycode/agent
echo done here
"""


def said(place: Platform, name: str, command: str) -> str:
    return place.ssh(f"{name}@localhost", command).out


def test_with_systemd_the_script_is_a_unit_that_runs_once_and_then_the_agent_gets_its_prompt(
    lived: Platform, ussyuntu: Image
) -> None:
    asked = ("new --name scripted --image ussyuntu --env COLOUR='light blue' --prompt 'make a \"page\"' "
             "--setup-script /dev/stdin")
    done = lived.ssh("localhost", asked, stdin=SCRIPT, seconds=120)
    assert done.status == 0 and "but:" not in done.out, done
    until(lambda: said(lived, "scripted", "cat ~/prompt") == 'make a "page"', 90, "the agent")
    assert said(lived, "scripted", "cat ~/made") == "ussy in /home/ussy says light blue\n"
    until(lambda: said(lived, "scripted", "ls /exe.dev") == "", 30, "the end of both units")
    shown = said(lived, "scripted", "systemctl show exe-setup.service -p Result -p ExecMainStatus")
    assert "Result=success" in shown and "ExecMainStatus=0" in shown
    assert "done here" in said(lived, "scripted", "sudo journalctl -b -u exe-setup.service -o cat")
    assert lived.lobby("restart", "scripted", seconds=120).status == 0
    assert said(lived, "scripted", "cat ~/made").count("\n") == 1
    lived.lobby("rm", "--now", "scripted")


def test_without_systemd_the_script_runs_too_and_a_template_serves(lived: Platform) -> None:
    for line in ("defaults write dev.exe new.file:~/AGENTS.md 'be kind'",
                 "new --name site --template static", "share set-public site"):
        done = lived.lobby(line, seconds=120)
        assert done.status == 0 and "but:" not in done.out, done
    until(lambda: "<h1>site</h1>" in lived.curl(lived.url("site.localhost")).out, 60, "the page")
    until(lambda: said(lived, "site", "ls /exe.dev") == "setup.log\n", 30, "the end of the script")
    assert said(lived, "site", "cat ~/AGENTS.md") == "be kind"
    lived.lobby("defaults delete dev.exe new.file:~/AGENTS.md")
    refused = lived.lobby("new --name mute --prompt hello", seconds=120)
    assert refused.status == 0 and "but: the prompt could not be given to mute: the image has no agent" in refused.out
    lived.lobby("rm", "--now", "site", "mute")
