"""The default image behind the real platform: systemd, its own sshd for ProxyJump, variables in services."""
from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.live.rig import Done, Platform, free_ports, platform, until
from tests.live.test_guide import GUIDE
from ussycode.runtime.images.store import Image

pytestmark = pytest.mark.timeout(300)


@pytest.fixture(scope="module")
def place(live_data: Path, ussyuntu: Image, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    """A platform with everything at its default but folder and ports, and one VM named box."""
    home = tmp_path_factory.mktemp("ussyuntu")
    with platform(live_data / f"ussyuntu-{os.getpid()}", home, live_data) as made:
        env = ("--env", "COLOUR='light blue'", "--env", "QUOTED='a\"b$c%d'")
        done = made.lobby("new", "--name", "box", *env, seconds=120)
        assert done.status == 0, done.err
        until_booted(made)
        yield made


def until_booted(place: Platform) -> None:
    """Wait until systemd has done everything; the agent answers seconds earlier."""
    until(lambda: place.ssh("box@localhost", "systemctl is-system-running").out == "running\n", 90, "the boot")


def guest_keys(place: Platform) -> int:
    """How many keys the guest's own sshd trusts from the platform."""
    return len(place.ssh("box@localhost", "cat /run/ussycode/authorized_keys").out.splitlines())


def test_it_is_an_ordinary_linux_with_tools_and_sudo(place: Platform) -> None:
    tools = "python3 -V; git --version; curl -V; tmux -V"
    done = place.ssh("box@localhost", f"id -un; sudo -n id -un; {tools}; systemctl --failed")
    assert done.status == 0 and done.out.startswith("ussy\nroot\nPython 3."), done.out + done.err
    assert "0 loaded units listed" in done.out


def test_a_fresh_machine_holds_to_its_contract(place: Platform) -> None:
    """Checked from inside, clause by clause, by the person who would rely on it."""
    program = (Path(__file__).parent / "contract_check.py").read_bytes()
    done = place.ssh("box@localhost", "python3 -", stdin=program, seconds=120)
    assert done.out == "the contract holds\n", done.out + done.err
    made = "cd $(mktemp -d) && go mod init x 2>/dev/null && printf 'package main\nfunc main() { println(42) }' > x.go"
    assert "42" in place.ssh("box@localhost", f"{made} && go run . 2>&1", seconds=200).out
    made = "node -p 6*7; uv venv -q ~/v && ~/v/bin/python -c 'print(6*7)'; npm -v >/dev/null && echo npm"
    assert place.ssh("box@localhost", made, seconds=120).out == "42\n42\nnpm\n"


def test_git_clones_and_pushes_over_https_with_a_token(place: Platform, tmp_path: Path) -> None:
    """The token is git's password; the app behind reads who it was and what the token says, but never the token."""
    server = (Path(__file__).parent / "git_server.py").read_bytes()
    made = "cat > git_server.py; git init -q --bare srv/repo.git; git -C srv/repo.git config http.receivepack true; " \
           "setsid -f python3 git_server.py >/dev/null 2>&1"
    assert place.ssh("box@localhost", made, stdin=server).status == 0
    until(lambda: ":1F40 " in place.ssh("box@localhost", "cat /proc/net/tcp").out, 30, "a server on port 8000")
    context = '{"role":"ci", "n":[1, 2.50],"a":"\\u00e4"}'
    said = f'{{"ctx":{context},"exp":{int(time.time()) + 600}}}'
    key = place.person("admin") / "key"
    helper = (sys.executable, str(GUIDE / "ussycode_token.py"), str(key), "box.localhost", said)
    token = place.program(*helper).out.strip()
    url = place.url("box.localhost", "/cgi-bin/git/repo.git").replace("https://", f"https://x:{token}@")
    work, names = str(tmp_path / "work"), ("-c", "user.name=a", "-c", "user.email=a@example.org")

    def git(*words: str) -> Done:
        return place.program("env", f"GIT_SSL_CAINFO={place.home / 'root.pem'}", "GIT_TERMINAL_PROMPT=0", "git", *words)

    for words in (("clone", "-q", url, work), ("-C", work, *names, "commit", "-q", "--allow-empty", "-m", "one"),
                  ("-C", work, "push", "-q", "origin", "HEAD:main")):
        done = git(*words)
        assert done.status == 0, (words, done.err)
    assert place.ssh("box@localhost", "git -C srv/repo.git log --format=%s main").out == "one\n"
    seen = [dict((k.lower(), v) for k, v in json.loads(line)) for line in
            place.ssh("box@localhost", "cat seen").out.splitlines()]
    assert len(seen) >= 3 and not [s for s in seen if "authorization" in s or token in json.dumps(s)]
    assert {s["x-ussycode-token-ctx"] for s in seen} == {s["x-exedev-token-ctx"] for s in seen} == {context}
    who = json.loads(place.lobby("whoami", "--json").out)["user_id"]
    assert {s["x-ussycode-userid"] for s in seen} == {who}
    bare = git("ls-remote", place.url("box.localhost", "/cgi-bin/git/repo.git"))
    assert bare.status != 0 and "terminal prompts disabled" in bare.err, "git was told that it may send a password"
    wrong = git("ls-remote", url.replace(token, token[:-6] + "AAAAAA"))
    assert wrong.status != 0


def test_the_root_is_as_large_as_was_asked(place: Platform) -> None:
    size = int(place.ssh("box@localhost", "df --output=size -BM / | tail -1 | tr -dc 0-9").out)
    assert size > 4800
    assert place.lobby("resize", "box", "--disk", "6G", seconds=60).status == 0
    assert int(place.ssh("box@localhost", "df --output=size -BM / | tail -1 | tr -dc 0-9").out) > 5800


def test_variables_reach_commands_login_shells_and_services(place: Platform) -> None:
    shown = "printenv COLOUR QUOTED"
    for how in (shown, f"bash -lc '{shown}'", f"sudo systemd-run --quiet --wait --pipe {shown}",
                f"systemd-run --user --quiet --wait --pipe {shown}"):
        assert place.ssh("box@localhost", how).out == "light blue\na\"b$c%d\n", how


def test_proxyjump_reaches_the_guests_own_sshd_with_the_owners_key(place: Platform) -> None:
    jump = f"localhost:{place.ports['ssh']}"
    done = place.program("ssh", "-J", jump, "ussy@box", "echo $SSH_CONNECTION; printenv COLOUR; exit 4", seconds=60)
    assert done.status == 4 and done.out.splitlines()[1] == "light blue", done.err
    keys = place.ssh("box@localhost", "cat /run/ussycode/authorized_keys").out.split()
    assert keys[1] == (place.home / "admin.pub").read_text().split()[1] and len(keys) == 2
    assert place.program("ssh", "-J", jump, "root@box", "true", seconds=60).status == 255


def test_the_printed_configuration_reaches_the_vm_by_name_either_way(place: Platform) -> None:
    (place.home / "ussycode.conf").write_text(place.lobby("ssh-config").out)
    mine = (place.person("admin") / "config").read_text()
    (place.home / "kept").write_text(f"Include {place.home}/ussycode.conf\n{mine}")
    config = ("-F", str(place.home / "kept"))
    note = place.home / "note"
    for host in ("box.localhost", "direct.box.localhost"):  # the second jumps through the platform to the VM's own sshd
        # As editors do it: a script on standard input of a shell without a terminal, and a SOCKS port beside it.
        socks = f"127.0.0.1:{free_ports()['http']}"
        done = place.program("/usr/bin/ssh", *config, "-T", "-D", socks, host, "bash", seconds=60,
                             stdin=b"echo $(id -un) in $(hostname); exit 5\n")
        assert (done.status, done.out) == (5, "ussy in box\n"), (host, done.err)
        note.write_text(host)
        for words in ((str(note), f"{host}:carried"), (f"{host}:carried", str(note) + "-back")):
            copied = place.program("/usr/bin/scp", *config, *words, seconds=60)
            assert copied.status == 0, (host, copied.err)
        assert (place.home / "note-back").read_text() == host


def test_a_key_added_later_works_in_the_guest_and_a_removed_one_does_not(place: Platform) -> None:
    second = place.person("laptop") / "key.pub"
    assert place.ssh("localhost", "ssh-key", "add", stdin=second.read_bytes()).status == 0
    assert "laptop" in place.ssh("ussy@localhost", "ssh-key", "list", who="laptop").out
    until(lambda: guest_keys(place) == 2, 20, "the key in the guest")
    assert place.lobby("ssh-key", "remove", "laptop").status == 0
    refused = place.ssh("ussy@localhost", "whoami", who="laptop")
    assert refused.status == 1 and "regist" in refused.err
    until(lambda: guest_keys(place) == 1, 20, "the removal in the guest")


def test_who_is_given_a_shell_jumps_to_the_guests_own_sshd_until_it_is_taken_back(place: Platform) -> None:
    with place.terminal("ssh", "-p", str(place.ports["ssh"]), "localhost", who="guest") as screen:
        screen.until("handle: ")
        screen.type("visitor\r")
        screen.until("▶ ")
        screen.type("exit\r")
        assert screen.status() == 0
    jump = ("ssh", "-J", f"localhost:{place.ports['ssh']}", "ussy@box", "id -un")
    assert place.program(*jump, seconds=60, who="guest").status == 255
    assert place.lobby("share", "add", "box", "visitor", "--root").status == 0
    until(lambda: guest_keys(place) == 2, 20, "the visitor's key in the guest")
    done = place.program(*jump, seconds=60, who="guest")
    assert (done.status, done.out) == (0, "ussy\n"), done.err
    assert place.ssh("box@localhost", "echo in", who="guest").out == "in\n"
    at_terminal = ("ssh", "-p", str(place.ports["ssh"]), "box@localhost")
    with place.terminal(*at_terminal, who="guest") as screen:
        screen.until(r"this machine is yours(?s:.*)AGENTS.md(?s:.*)[$#] ")
        screen.type("touch .hushlogin; exit\r")
        assert screen.status() == 0
    with place.terminal(*at_terminal, who="guest") as screen:
        assert "yours" not in screen.until(r"[$#] ")
    assert place.ssh("box@localhost", "rm .hushlogin").status == 0
    assert place.lobby("share", "remove", "box", "visitor").status == 0
    until(lambda: guest_keys(place) == 1, 20, "the removal in the guest")
    assert place.program(*jump, seconds=60, who="guest").status == 255


def test_user_services_work_and_a_reboot_from_inside_comes_back(place: Platform) -> None:
    assert place.ssh("box@localhost", "systemctl --user is-system-running").out == "running\n"
    place.ssh("box@localhost", "logger -t mark remember-me")
    before = place.ssh("box@localhost", "cat /proc/sys/kernel/random/boot_id").out
    place.ssh("box@localhost", "touch kept; sudo systemctl reboot")

    def back() -> bool:
        done = place.ssh("box@localhost", "cat /proc/sys/kernel/random/boot_id && ls kept")
        return done.status == 0 and before not in done.out

    until(back, 90, "the reboot")
    until_booted(place)
    assert "remember-me" in place.ssh("box@localhost", "sudo journalctl -b -1 -t mark --no-pager").out


def test_a_guest_that_shuts_down_is_stopped_and_restart_brings_it_back(place: Platform) -> None:
    place.ssh("box@localhost", "sudo poweroff")
    until(lambda: "stopped" in place.lobby("ls").out, 60, "the shutdown")
    assert "not running" in place.ssh("box@localhost", "true").err
    assert place.lobby("restart", "box", seconds=120).status == 0
    assert place.ssh("box@localhost", "ls kept").status == 0
