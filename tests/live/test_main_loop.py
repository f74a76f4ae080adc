"""The whole loop on real VMs, as a newcomer does it: a shell, a URL, a share, a token, and crashes in between."""
from __future__ import annotations

import base64
import json
import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.live.rig import Platform, platform, until
from ussycode.cli.state import start_time

PAGE = "python3 -m http.server 8000 --directory /srv >/dev/null 2>&1"
pytestmark = pytest.mark.timeout(300)


@pytest.fixture(scope="module")
def olive(lived: Platform) -> str:
    """The admin after the first login on a terminal, which asks for the handle a script could not be asked for."""
    with lived.terminal("ssh", "-p", str(lived.ports["ssh"]), "localhost") as screen:
        screen.until("handle: ")
        screen.type("olive\r")
        screen.until("▶ ")
        screen.type("\x04")
        assert screen.status() == 0
    return "olive"


@pytest.fixture(scope="module")
def demo(lived: Platform, olive: str) -> str:
    """A VM with a page on port 8000, named demo."""
    made = lived.lobby("new", "--name", "demo", "--env", "COLOUR='light blue'", seconds=120)
    assert made.status == 0, made.err
    assert lived.ssh("demo@localhost", f"sudo mkdir -p /srv; echo hello from demo | sudo tee /srv/index.html; "
                     f"setsid -f {PAGE}").status == 0
    connects = "python3 -c 'import socket; socket.create_connection((\"127.0.0.1\", 8000))'"
    until(lambda: lived.ssh("demo@localhost", connects).status == 0, 30, "the page")
    return "demo"


def test_the_admin_key_works_at_once_in_scripts(lived: Platform) -> None:
    who = json.loads(lived.lobby("whoami", "--json").out)
    assert (who["handle"], who["trust_level"]) == ("owner", "admin")
    assert who["ssh_keys"][0]["current"]


def test_new_says_where_the_vm_is(lived: Platform, demo: str) -> None:
    (vm,) = [v for v in json.loads(lived.lobby("ls", "--json").out)["vms"] if v["vm_name"] == demo]
    assert (vm["status"], vm["ssh_dest"]) == ("running", "demo@localhost")
    assert vm["https_url"] == lived.url("demo.localhost")


@pytest.mark.parametrize("route", [
    ("demo@localhost",), ("vm+demo@localhost",), ("localhost", "ssh", "demo"),
])
def test_every_route_runs_commands_with_their_real_status(lived: Platform, demo: str, route: tuple[str, ...]) -> None:
    done = lived.ssh(*route, "echo out; echo err >&2; whoami; exit 7")
    assert (done.status, done.out, done.err) == (7, "out\nussy\n", "err\n")
    assert lived.ssh(*route, "cat; wc -c", stdin=b"piped").out.startswith("piped")


def test_the_operator_sees_templates_and_that_they_are_no_leftovers(lived: Platform, demo: str) -> None:
    until(lambda: "template of a kernel with 512 MiB" in lived.ussycode("status").out, 60, "the template")
    checks = {check["name"]: check for check in json.loads(lived.ussycode("doctor", "--json").out)}
    assert checks["left"]["ok"], checks["left"]["found"]
    # Whoever used the platform before may have made more of them, for other sizes.
    count = int(checks["template"]["found"].partition(" templates take ")[0])
    told = lived.program("curl", "-sS", f"http://127.0.0.1:{lived.ports['metrics']}/metrics").out
    assert count >= 1 and f"ussycode_templates {count}.0" in told and "ussycode_vms_not_copied " in told


def test_the_lobby_dials_nothing_but_the_sshd_of_a_vm(lived: Platform, demo: str) -> None:
    for target in ("127.0.0.1:22", f"localhost:{lived.ports['metrics']}", "nosuch:22", "demo:8000"):
        refused = lived.ssh("-W", target, "localhost")
        assert refused.status != 0 and not refused.out, target


def test_environment_reaches_commands_and_login_shells(lived: Platform, demo: str) -> None:
    assert lived.ssh("demo@localhost", "echo $COLOUR").out == "light blue\n"
    assert lived.ssh("demo@localhost", "bash -lc 'echo $COLOUR'").out == "light blue\n"
    assert lived.ssh("demo@localhost", "sudo cat /proc/1/environ; true").status == 0


def test_a_shell_on_a_terminal(lived: Platform, demo: str) -> None:
    with lived.terminal("ssh", "-p", str(lived.ports["ssh"]), "demo@localhost") as screen:
        screen.until(r"[$#] ")
        screen.type("stty size; tty; echo $TERM\n")
        screen.until(r"30 100\s+/dev/pts/\d+\s+xterm")
        screen.type("sh -c 'echo run''ning; exec sleep 100'\n")
        screen.until("running")
        screen.type("\x03")
        screen.until(r"\^C(?s:.*)[$#] ")
        screen.type("echo back-$((40+2))\n")
        screen.until("back-42")
        screen.type("exit 5\n")
        assert screen.status() == 5


def test_files_travel_by_scp_sftp_and_rsync(lived: Platform, demo: str, tmp_path: Path) -> None:
    port = str(lived.ports["ssh"])
    content = os.urandom(3 << 20)
    (tmp_path / "there").write_bytes(content)
    assert lived.program("scp", "-P", port, str(tmp_path / "there"), "demo@localhost:there").status == 0
    assert lived.program("scp", "-P", port, "demo@localhost:there", str(tmp_path / "back")).status == 0
    assert (tmp_path / "back").read_bytes() == content
    batch = b"mkdir d\nrename there d/x\nls d\n"
    listed = lived.program("sftp", "-P", port, "-b", "-", "demo@localhost", stdin=batch)
    assert listed.status == 0 and "d/x" in listed.out, listed.err


def test_a_private_page_is_for_its_owner_alone(lived: Platform, demo: str, tmp_path: Path) -> None:
    url, jar = lived.url("demo.localhost"), str(tmp_path / "jar")
    asked = lived.curl("-D", "-", "-H", "Accept: text/html", url).out
    assert " 302 " in asked.splitlines()[0] and "/__ussycode/login" in asked
    assert " 401 " in lived.curl("-D", "-", url).out.splitlines()[0]
    link = json.loads(lived.lobby("browser", "--json").out)["url"]
    shown = lived.curl("-c", jar, "-b", jar, link).out
    assert "olive" in shown and lived.curl("-b", jar, "-L", "-H", "Accept: text/html", url).out != "hello from demo\n"
    origin = lived.url("localhost", "")
    post = ("-D", "-", "-o", "/dev/null", "-H", f"Origin: {origin}", "-X", "POST", link)
    posted = lived.curl("-c", jar, "-b", jar, *post)
    assert "__Host-ussycode" in posted.out, posted.out
    opened = lived.curl("-c", jar, "-b", jar, "-L", "-H", "Accept: text/html", url)
    assert opened.out == "hello from demo\n", opened.out
    assert lived.curl("-b", jar, url).out == "hello from demo\n"
    again = lived.curl(*post)
    assert "__Host-ussycode=" not in again.out


def test_unknown_host_and_private_vm_look_alike(lived: Platform, demo: str) -> None:
    answers = []
    for name in (demo, "nothere"):
        raw = lived.curl("-D", "-", "-H", "Accept: text/html", lived.url(f"{name}.localhost")).out
        kept = [line for line in raw.splitlines() if not line.lower().startswith(("x-request-id", "date"))]
        answers.append("\n".join(kept).replace(name, "NAME"))
    assert answers[0] == answers[1]


def test_share_set_public_and_back(lived: Platform, demo: str) -> None:
    url = lived.url("demo.localhost")
    assert 8000 in json.loads(lived.lobby("share show demo --json").out)["listening"]
    shown = lived.lobby("share show demo").out
    assert "in it listens: " in shown and "8000" in shown and "nothing listens" not in shown, shown
    for _ in range(2):
        assert lived.lobby("share", "set-public", demo).status == 0
        assert lived.curl(url).out == "hello from demo\n"
        assert lived.lobby("share", "set-private", demo).status == 0
        assert '"error"' in lived.curl(url).out


def token(lived: Platform, who: str, payload: str) -> str:
    """A usy0 token made with ssh-keygen, as the guide tells."""
    folder = lived.person(who)
    (folder / "payload").write_text(payload)
    (folder / "payload.sig").unlink(missing_ok=True)
    subprocess.run(["ssh-keygen", "-q", "-Y", "sign", "-f", folder / "key", "-n", "v0@localhost", folder / "payload"],
                   check=True, stderr=subprocess.DEVNULL)
    blob = "".join(line for line in (folder / "payload.sig").read_text().splitlines() if "-----" not in line)
    parts = payload.encode(), base64.b64decode(blob)
    return "usy0." + ".".join(base64.urlsafe_b64encode(p).decode().rstrip("=") for p in parts)


def test_exec_runs_the_same_commands_by_token(lived: Platform, demo: str) -> None:
    bearer = token(lived, "admin", json.dumps({"exp": int(time.time()) + 600, "cmds": ["ls", "whoami", "ssh"]}))
    ask = ("-H", f"Authorization: Bearer {bearer}", lived.url("localhost", "/exec"))
    assert json.loads(lived.curl("-d", "ls", *ask).out) == json.loads(lived.lobby("ls", "--json").out)
    refused = lived.curl("-w", "%{http_code}", "-d", "new", *ask).out
    assert refused.endswith("403") and json.loads(refused[:-3])["error"]
    ran = lived.curl("-H", "Accept: application/x-ndjson", "-d", "ssh demo 'echo hi; exit 3'", *ask).out
    frames = [json.loads(line) for line in ran.splitlines() if line]
    assert base64.b64decode(frames[0]["stdout"]) == b"hi\n" and frames[-1] == {"exit_code": 3}
    assert lived.curl("-w", "%{http_code}", "-d", "'open", *ask).out.endswith("400")


def test_a_stranger_registers_on_a_terminal_and_sees_nothing_of_others(lived: Platform, demo: str) -> None:
    port = str(lived.ports["ssh"])
    refused = lived.lobby("ls", who="mallory")
    assert refused.status == 1 and "ssh -p" in refused.err
    with lived.terminal("ssh", "-p", port, "localhost", who="mallory") as screen:
        screen.until("handle: ")
        screen.type("Bad Handle!\r")
        screen.until("handle: ")
        screen.type("mallory\r")
        screen.until("▶ ")
        screen.type("ls\r")
        screen.until("no VMs yet")
        screen.type("exit\r")
        assert screen.status() == 0
    for attempt in (("demo@localhost", "id"), ("vm+demo@localhost", "id"), ("localhost", "ssh", "demo", "id"),
                    ("localhost", "rm", "demo"), ("localhost", "share", "set-public", "demo")):
        done = lived.ssh(*attempt, who="mallory")
        assert done.status != 0 and "no" in (done.err + done.out).lower() and "uid=" not in done.out, attempt
    assert lived.lobby("ssh", demo, "true").status == 0


@pytest.mark.parametrize(("line", "status"), [
    ("nosuchcommand", 127), ("new --nmae x", 2), ("new --name 'open", 2), ("rm nothere", 1), ("new --name admin", 2),
    ("new --name demo", 1), ("new --image nosuch", 1), ("help new", 0),
])
def test_wrong_input_is_one_sentence_with_its_status(lived: Platform, demo: str, line: str, status: int) -> None:
    done = lived.lobby(line)
    assert done.status == status, done.err
    assert "\x1b" not in done.out + done.err and "\r" not in done.out and "Traceback" not in done.err


def test_restart_keeps_the_disk_and_reboots(lived: Platform, demo: str) -> None:
    assert lived.ssh("demo@localhost", "echo kept > keep; cat /proc/sys/kernel/random/boot_id").status == 0
    before = lived.ssh("demo@localhost", "cat /proc/sys/kernel/random/boot_id").out
    assert lived.lobby("restart", demo, seconds=120).status == 0
    after = lived.ssh("demo@localhost", "cat /proc/sys/kernel/random/boot_id; cat keep; echo $COLOUR").out
    assert before not in after and after.endswith("kept\nlight blue\n")


def processes(lived: Platform) -> dict[str, int]:
    """Pids of the platform's processes by role, from `status --json`."""
    found = json.loads(lived.ussycode("status", "--json").out)
    return dict(found["processes"], supervisor=found["pid"])


@pytest.mark.parametrize("victim", ["control", "edge0", "helper"])
def test_kill_9_of_any_process_loses_no_vm(lived: Platform, demo: str, victim: str) -> None:
    before = lived.ssh("demo@localhost", "cat /proc/sys/kernel/random/boot_id").out
    pid = processes(lived)[victim]
    os.kill(pid, signal.SIGKILL)
    until(lambda: processes(lived).get(victim) not in (None, pid), 30, f"a new {victim}")
    until(lambda: lived.ssh("demo@localhost", "true").status == 0, 30, "the lobby")
    assert lived.ssh("demo@localhost", "cat /proc/sys/kernel/random/boot_id").out == before
    until(lambda: '"error"' in lived.curl(lived.url("demo.localhost")).out, 20, "the edge")


def test_kill_9_of_the_supervisor_and_a_new_up_readopts_everything(lived: Platform, demo: str) -> None:
    before = lived.ssh("demo@localhost", "cat /proc/sys/kernel/random/boot_id").out
    os.kill(processes(lived)["supervisor"], signal.SIGKILL)
    assert lived.ssh("demo@localhost", "true").status == 0
    began = time.monotonic()
    assert lived.ussycode("up", "--detach", seconds=60).status == 0
    assert time.monotonic() - began < 30
    assert lived.ssh("demo@localhost", "cat /proc/sys/kernel/random/boot_id").out == before


def test_a_guest_that_dies_is_shown_as_it_is(lived: Platform) -> None:
    assert lived.lobby("new", "--name", "doomed", seconds=120).status == 0
    newest = lived.program("pgrep", "-n", "-f", f"qemu.*{lived.data}/layers/").out
    os.kill(int(newest), signal.SIGKILL)

    def shown() -> dict[str, str]:
        (vm,) = [v for v in json.loads(lived.lobby("ls", "--json").out)["vms"] if v["vm_name"] == "doomed"]
        return vm

    until(lambda: shown()["status"] in ("failed", "stopped"), 40, "the end of the guest")
    assert shown()["detail"]
    refused = lived.ssh("doomed@localhost", "true")
    assert refused.status != 0 and "not running" in refused.err and "restart doomed" in refused.err
    assert lived.lobby("rm", "doomed").status == 0


def test_a_second_instance_lives_beside_the_first_and_down_leaves_nothing(
    lived: Platform, demo: str, live_data: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    data, home = live_data / f"second-{os.getpid()}", tmp_path_factory.mktemp("second")
    with platform(data, home, live_data, "--default-image", "debian-min") as second:
        assert second.lobby("new", "--name", "demo", seconds=120).status == 0
        # What the guest has not written to its disk yet survives only a clean shutdown.
        assert second.ssh("demo@localhost", "echo unsynced > fresh").status == 0
        assert "stopped 1 VMs" in second.ussycode("down", seconds=90).out
        assert second.ussycode("up", "--detach", seconds=60).status == 0
        until(lambda: second.ssh("demo@localhost", "cat fresh").out == "unsynced\n", 60, "the VM's return")
        slot = json.loads((data / "instance.json").read_text())["slot"]
        pids = list(processes(second).values())
    assert not [p for p in pids if start_time(p)]
    assert not list(Path("/sys/class/net").glob(f"uy{slot}-*"))
    tables = subprocess.run(["nft", "list", "tables"], capture_output=True, text=True, check=True).stdout
    assert f"ussycode_{slot}\n" not in tables
    assert str(data) not in Path("/proc/mounts").read_text()
    qemus = subprocess.run(["pgrep", "-fa", f"{data}/vms"], capture_output=True, text=True, check=False).stdout
    assert qemus == ""
    assert lived.ssh("demo@localhost", "true").status == 0
