"""Files for the caller's own machine do what they promise when real programs read them."""
from __future__ import annotations

import os
from pathlib import Path

from tests.product.ssh_world import Person, SshWorld


async def kept(olive: Person) -> Path:
    """An ssh configuration as somebody would have it who followed the help."""
    (olive.home / "known_hosts").write_text((await olive.ssh("host", "known-hosts")).text)
    (olive.home / "ussycode.conf").write_text((await olive.ssh("host", "ssh-config")).text)
    config = olive.home / "kept"
    config.write_text(
        f"Include {olive.home}/ussycode.conf\nHost *\n  IdentityFile {olive.home}/key\n  IdentitiesOnly yes\n"
        f"  UserKnownHostsFile {olive.home}/known_hosts\n  StrictHostKeyChecking yes\n"
    )
    return config


async def test_ssh_config_and_known_hosts_make_each_vm_a_host_that_is_known(place: SshWorld) -> None:
    olive = await place.member("olive")
    await place.vm(olive, "demo")
    config = str(await kept(olive))
    done = await olive.run("ssh", "-F", config, "demo.localhost", "echo inside; exit 3")
    assert (done.status, done.text, done.said) == (3, "inside\n", "")
    assert (await olive.run("ssh", "-F", config, "localhost", "whoami")).text.startswith("olive")
    (olive.home / "note").write_text("carried")
    copied = await olive.run("scp", "-F", config, str(olive.home / "note"), f"demo.localhost:{olive.home}/arrived")
    assert copied.status == 0 and (olive.home / "arrived").read_text() == "carried", copied.said


async def test_the_line_for_known_hosts_refuses_another_platform(place: SshWorld) -> None:
    olive = await place.member("olive")
    config = str(await kept(olive))
    known = olive.home / "known_hosts"
    known.write_text(known.read_text()[:-12] + "AAAAAAAAAAA\n")
    assert (await olive.run("ssh", "-F", config, "localhost", "whoami")).status == 255


async def test_tab_in_bash_asks_the_platform(place: SshWorld) -> None:
    olive = await place.member("olive")
    await place.vm(olive, "demo")
    (olive.home / "completion").write_text((await olive.ssh("host", "completion", "bash")).text)
    (olive.home / "ssh").write_text(f'#!/bin/sh\nexec /usr/bin/ssh -F {olive.home}/config "$@"\n')
    (olive.home / "ssh").chmod(0o755)
    env = {"PATH": f"{olive.home}:{os.environ['PATH']}"}
    for typed, offered in (
        ("ussy share set", "set-private set-public"), ("ussy restart d", "demo"), ("ussy ls --gr", "--group"),
        ("ussy ls --group ", "region tag type"), ("ussy wake demo o", "off on"), ("ussy new --template s", "static"),
    ):
        at = f'COMP_LINE="{typed}"; COMP_POINT=${{#COMP_LINE}}'
        script = f'. {olive.home}/completion; {at}; _ussy; echo "${{COMPREPLY[*]}}"'
        done = await olive.run("bash", "-c", script, env=env)
        assert done.text == offered + "\n", (typed, done)
    said = await olive.run("bash", "-c", f". {olive.home}/completion; ussy whoami", env=env)
    assert said.text.startswith("olive")
