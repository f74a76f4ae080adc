"""Files for the caller's own machine do what they promise when real programs read them."""
from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from tests.product.ssh_world import Person, SshWorld, Tty
from ussycode.access.facts import Caller
from ussycode.identity import ops as identity


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
    env = olive.shell_env()
    for typed, offered in (
        ("ussy share set", "set-private set-public"), ("ussy restart d", "demo"), ("ussy ls --gr", "--group"),
        ("ussy ls --group ", "region tag type"), ("ussy wake demo o", "off on"), ("ussy new --template s", "static"),
        ("ussy ls --group=t", "tag type"),
    ):
        at = f'COMP_LINE="{typed}"; COMP_POINT=${{#COMP_LINE}}'
        script = f'. {olive.home}/completion; {at}; _ussy; echo "${{COMPREPLY[*]}}"'
        done = await olive.run("bash", "-c", script, env=env)
        assert done.text == offered + "\n", (typed, done)
    said = await olive.run("bash", "-c", f". {olive.home}/completion; ussy whoami", env=env)
    assert said.text.startswith("olive")


SHELLS = {
    "bash": ("bash", "--norc", "--noprofile", "-i"), "zsh": ("zsh", "-f", "-i"),
    "fish": ("fish", "--no-config", "--private", "-i"),
}


READY = "ready> "
PROMPTS = {"bash": f"PS1='{READY}'", "zsh": f"unsetopt prompt_sp; PS1='{READY}'",
           "fish": f"function fish_prompt; echo -n '{READY}'; end"}


@asynccontextmanager
async def shell(olive: Person, kind: str) -> AsyncIterator[Tty]:
    """A real shell at a terminal whose owner did what the help says."""
    (olive.home / "completion").write_text((await olive.ssh("host", "completion", kind)).text)
    async with olive.sitting_at(*SHELLS[kind], env=olive.shell_env(), size=(40, 100)) as tty:
        tty.type(f". {olive.home}/completion; {PROMPTS[kind]}; echo load''ed\r")
        await tty.until("loaded[\\s\\S]*" + READY)
        yield tty


async def typed(tty: Tty, line: str, becomes: str) -> None:
    """Type `line` and wait for what it becomes; then take the line back."""
    tty.type(line)
    await tty.until(rf"{becomes}(?![\w-])")
    tty.type("\x15")


@pytest.mark.parametrize("kind", SHELLS)
async def test_tab_in_a_real_shell_completes_commands_flags_and_vms_of_the_moment(place: SshWorld, kind: str) -> None:
    olive = await place.member("olive")
    await place.vm(olive, "demo")
    async with shell(olive, kind) as tty:
        await typed(tty, "ussy who\t", "whoami")
        await typed(tty, "ussy share set-pu\t", "set-public")
        await typed(tty, "ussy restart de\t", "demo")
        await typed(tty, "ussy ls --wat\t", "--watch")
        await typed(tty, "ussy ls --group=re\t", "region")
        await place.vm(olive, "shop")
        await typed(tty, "ussy start sh\t", "shop")
        await typed(tty, "ussy snapshot \t\t", "schedule")


@pytest.mark.parametrize("kind", SHELLS)
async def test_words_reach_the_platform_as_the_shell_had_them(place: SshWorld, kind: str) -> None:
    olive = await place.member("olive")
    await place.vm(olive, "demo")
    async with shell(olive, kind) as tty:
        tty.type("ussy comment demo 'it'\\''s \"one\" $HOME *'\r")
        await tty.until("demo comment: [\\s\\S]*" + READY)
        tty.type("ussy whoami\r")
        await tty.until(r"olive.*\(newbie\)[\s\S]*" + READY)
        tty.type("ussy\r")
        await tty.until("▶ ")
        tty.type("exit\r")
        await tty.until("goodbye")
    listed = (await place.base.run((await caller(place, olive)), "ls")).view
    assert listed is not None
    assert listed.document()["vms"][0]["comment"] == "it's \"one\" $HOME *"  # type: ignore[index]


async def caller(place: SshWorld, olive: Person) -> Caller:
    found = await identity.recognise(place.app, olive.key.fingerprint)
    assert found is not None
    return found[0]
