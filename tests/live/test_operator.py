"""What an operator meets: bad settings, taken ports, no KVM, metrics, spans, and restarts that nobody notices."""
from __future__ import annotations

import http.server
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.live.rig import PROGRAM, Platform, platform, until
from ussycode.runtime.kernel import boot_files
from ussycode.runtime.kvm import probe

pytestmark = pytest.mark.timeout(180)


@contextmanager
def collector() -> Iterator[tuple[str, list[bytes]]]:
    """An OTLP/HTTP collector's address, and the bodies it was sent."""
    bodies: list[bytes] = []

    class Sink(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            bodies.append(self.rfile.read(int(self.headers["Content-Length"])))
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Sink)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", bodies
    finally:
        server.shutdown()


@pytest.fixture(scope="module")
def spans() -> Iterator[tuple[str, list[bytes]]]:
    with collector() as made:
        yield made


@pytest.fixture(scope="module")
def place(
    live_data: Path, spans: tuple[str, list[bytes]], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Platform]:
    """A platform that runs no VMs: everything else is real."""
    home = tmp_path_factory.mktemp("operator")
    data = live_data / f"operator-{os.getpid()}"
    with platform(data, home, live_data, "--runtime", "fake", "--otlp-endpoint", spans[0]) as made:
        yield made


def test_a_second_up_on_the_same_folder_says_who_runs(place: Platform) -> None:
    refused = place.ussycode("up", "--detach")
    assert refused.status == 1 and "already runs" in refused.err


def test_a_taken_port_is_named_with_what_to_do(place: Platform, tmp_path: Path) -> None:
    words = ["--data-dir", str(tmp_path / "other"), "--runtime", "fake", "--ssh-port", str(place.ports["ssh"])]
    (tmp_path / "other").mkdir()
    done = subprocess.run([*PROGRAM, "up", *words], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert f"port {place.ports['ssh']} (SSH)" in done.stderr and "--ssh-port" in done.stderr
    assert "Traceback" not in done.stderr


def test_kvm_that_is_asked_for_and_unusable_is_refused_with_its_reason(live_data: Path, place: Platform) -> None:


    if not probe(boot_files(live_data / "cache"), live_data / "cache").usable:
        data = live_data / f"kvm-{os.getpid()}"
        data.mkdir()
        for shared in ("cache", "images"):
            (data / shared).symlink_to(live_data / shared)
        words = ["--data-dir", str(data), "--accel", "kvm", "--default-image", "debian-min"]
        done = subprocess.run([*PROGRAM, "up", *words], capture_output=True, text=True, timeout=90, check=False)
        assert done.returncode == 1 and "KVM is not usable" in done.stderr and "accel" in done.stderr
    else:
        assert "kvm" in place.ussycode("doctor").out


def test_given_certificates_are_served_though_only_root_can_read_them(
    live_data: Path, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    subprocess.run(["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=given", "-days", "2",
                    "-addext", "subjectAltName=DNS:localhost", "-keyout", key, "-out", cert],
                   check=True, capture_output=True, timeout=60)
    key.chmod(0o600)
    words = ("--runtime", "fake", "--tls-cert", str(cert), "--tls-key", str(key))
    with platform(live_data / f"tls-{os.getpid()}", tmp_path_factory.mktemp("tls"), live_data, *words) as made:
        (made.home / "root.pem").write_bytes(cert.read_bytes())
        assert '"ok"' in made.curl(made.url("localhost", "/healthz")).out


def test_bad_settings_are_reported_all_at_once() -> None:
    env = dict(os.environ, USSYCODE_SPEED="fast", USSYCODE_SSH_PORT="none")
    done = subprocess.run([*PROGRAM, "status"], capture_output=True, text=True, timeout=30, env=env, check=False)
    assert done.returncode == 2 and "USSYCODE_SPEED" in done.stderr and "ssh_port" in done.stderr


def test_without_root_up_says_how(tmp_path: Path) -> None:
    preload = "import os, sys, ussycode.cli.up; from ussycode.cli.main import run; "
    code = preload + "os.setgid(12345); os.setuid(12345); sys.exit(run(['up']))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 1 and "needs root" in done.stderr and "sudo" in done.stderr


def test_doctor_without_root_says_what_it_could_not_see(tmp_path: Path) -> None:
    """The same twice in one process: as root, so that all of the program is read, and as somebody."""
    code = f"""
import contextlib, io, os, sys
from ussycode.cli.main import run
words = ["doctor", "--json", "--data-dir", "{tmp_path}/x"]
with contextlib.redirect_stdout(io.StringIO()): run(words)
os.setgid(12345); os.setuid(12345)
sys.exit(run(words))"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1, done.stderr
    checks = {c["name"]: c for c in json.loads(done.stdout)}
    assert not checks["root"]["ok"] and "no walls around VMs" in checks["root"]["found"]
    assert {checks[name]["found"] for name in ("walls", "network")} == {"not looked at without root"}
    assert "could not be looked at: Permission denied" in checks["disk"]["found"], "a folder that is root's alone"


def test_doctor_and_status_speak_json(place: Platform) -> None:
    checks = {c["name"]: c for c in json.loads(place.ussycode("doctor", "--json").out)}
    assert {"root", "tools", "memory", "disk", "ports", "kvm", "kernel", "image", "network"} <= checks.keys()
    assert checks["ports"]["ok"] and checks["kvm"]["found"]
    found = json.loads(place.ussycode("status", "--json").out)
    assert found["state"] == "ready" and set(found["processes"]) == {"helper", "control", "edge0"}


def test_commands_and_steps_are_counted_and_traced(place: Platform, spans: tuple[str, list[bytes]]) -> None:
    assert place.lobby("new", "--name", "counted").status == 0
    assert place.lobby("nosuch").status == 127
    with urllib.request.urlopen(f"http://127.0.0.1:{place.ports['metrics']}/metrics", timeout=5) as answer:
        text = answer.read().decode()
    for line in ('ussycode_commands_total{code="ok",command="new",via="ssh"} 1.0',
                 'ussycode_commands_total{code="command.unknown",command="unknown",via="ssh"} 1.0',
                 'ussycode_decisions_total{action="vm.create",reason="signed_in",reply="allow"} 1.0',
                 'ussycode_lifecycle_seconds_count{result="ok",step="start"} 1.0',
                 'ussycode_lifecycle_seconds_count{result="ok",step="boot"} 1.0',
                 'ussycode_events_total{kind="vm.created"} 1.0',
                 'ussycode_edge_requests_total{edge="0",status="200",reason="platform"}'):
        assert line in text, line
    until(lambda: all(any(name in b for b in spans[1]) for name in (b"command new", b"vm start")), 20, "the spans")


def test_processes_run_as_nobody_else_and_only_two_as_root(place: Platform) -> None:
    uids = {}
    for role, pid in json.loads(place.ussycode("status", "--json").out)["processes"].items():
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
        status = dict(line.split(":\t") for line in lines if ":\t" in line)
        uids[role] = int(status["Uid"].split()[0])
        if role != "helper":
            assert int(status["CapEff"], 16) == 0 and status["Groups"].strip() == "", role
    assert uids["helper"] == 0 and 0 != uids["control"] != uids["edge0"] != 0


def test_an_idle_control_process_is_small(place: Platform) -> None:
    pid = json.loads(place.ussycode("status", "--json").out)["processes"]["control"]
    rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
    pss = next(int(line.split()[1]) for line in rollup.splitlines() if line.startswith("Pss:"))
    assert pss < 150 << 10, f"{pss >> 10} MiB"


@pytest.mark.timeout(240)
def test_a_restart_of_control_drops_no_request_to_a_running_app(lived: Platform) -> None:
    assert lived.lobby("new", "--name", "steady", seconds=120).status == 0
    assert lived.ssh("steady@localhost", "setsid -f python3 -m http.server 8000 >/dev/null 2>&1").status == 0
    assert lived.lobby("share", "set-public", "steady").status == 0
    url = lived.url("steady.localhost", "/.profile")
    until(lambda: "profile" in lived.curl(url).out, 30, "the app")
    statuses: list[str] = []
    stop = threading.Event()

    def visit() -> None:
        while not stop.is_set():
            statuses.append(lived.curl("-o", "/dev/null", "-w", "%{http_code}", url).out)

    visitors = [threading.Thread(target=visit) for _ in range(3)]
    for visitor in visitors:
        visitor.start()
    pid = json.loads(lived.ussycode("status", "--json").out)["processes"]["control"]
    os.kill(pid, signal.SIGKILL)
    until(lambda: lived.lobby("whoami").status == 0, 30, "the lobby")
    after = len(statuses)
    until(lambda: len(statuses) > after + 10, 30, "visits after the restart")
    stop.set()
    for visitor in visitors:
        visitor.join(30)
    assert len(statuses) > 20 and set(statuses) == {"200"}, statuses
    assert lived.lobby("rm", "steady").status == 0


def test_a_port_nobody_listens_on_and_a_stopped_vm_are_told_apart(lived: Platform) -> None:
    assert lived.lobby("new", "--name", "quiet", seconds=120).status == 0
    assert lived.lobby("share", "set-public", "quiet").status == 0
    url = lived.url("quiet.localhost")
    began = time.monotonic()
    answer = lived.curl("-w", "%{http_code}", url).out
    assert answer.endswith("502") and "8000" in answer and time.monotonic() - began < 10
    with socket.create_connection(("127.0.0.1", lived.ports["http"]), 5) as plain:
        plain.sendall(b"GET /x HTTP/1.1\r\nHost: quiet.localhost\r\n\r\n")
        assert b" 308 " in plain.recv(200)
    assert lived.lobby("rm", "quiet").status == 0
