"""How fast `/exec whoami` is: p50 and p99 alone and with 16 clients, server and clients on the same cores.

    python bench/exec_bench.py [SECONDS]

The server is the real web door (uvicorn, unix socket, SQLite file, verified token) in a process of its own; the
clients are one more process with keep-alive connections that read responses by hand, so that they cost little.
"""
from __future__ import annotations

import asyncio
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import uvloop

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from tests.product.signing import Signer  # noqa: E402
from ussycode import config as settings  # noqa: E402
from ussycode.agent.link import LocalLink  # noqa: E402
from ussycode.app import NamedImages, NoGuests  # noqa: E402
from ussycode.base import schema  # noqa: E402
from ussycode.base.clock import SystemClock  # noqa: E402
from ussycode.base.db import Database  # noqa: E402
from ussycode.base.telemetry import Telemetry  # noqa: E402
from ussycode.doors.web.app import serve_web  # noqa: E402
from ussycode.identity import ops as identity  # noqa: E402
from ussycode.ports import App, Uses, Waiters  # noqa: E402
from ussycode.tokens.verify import TokenVerifier  # noqa: E402

BAR = {1: 3.0, 16: 10.0}
"""Highest p50 in milliseconds, by number of clients."""


async def server(folder: Path) -> None:
    """The web door on `folder/web.sock` with Alice registered."""
    clock = SystemClock()
    db = Database(folder / "bench.db", clock)
    schema.migrate(db.engine)
    config = settings.load({"data_dir": str(folder), "runtime": "fake", "exec_rate": "1000000"}, {})
    images = NamedImages((config.default_image,))
    quiet = Telemetry("bench")
    app = App(config, db, clock, LocalLink(NoGuests()), images, Waiters(), quiet, lambda: None, Uses(clock), "")
    signer = Signer.make(folder)
    await identity.register(app, signer.public, "alice", "alice")
    tokens = TokenVerifier(app)
    db.listen(tokens.heard)
    (folder / "token").write_text(signer.token())
    listening = socket.socket(socket.AF_UNIX)
    listening.bind(str(folder / "web.sock"))
    listening.listen(128)
    listening.setblocking(False)
    (folder / "ready").touch()
    await serve_web(app, tokens, listening)


async def client(folder: Path, request: bytes, until: float, took: list[float]) -> None:
    """Ask again and again on one connection; milliseconds go to `took`."""
    reader, writer = await asyncio.open_unix_connection(str(folder / "web.sock"))
    while (began := time.perf_counter()) < until:
        writer.write(request)
        head = await reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200"), head
        length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
        await reader.readexactly(length)
        took.append((time.perf_counter() - began) * 1000)
    writer.close()


async def measure(folder: Path, pid: int, clients: int, seconds: float) -> dict[str, float]:
    """One round."""
    token = (folder / "token").read_text()
    line = b"whoami"
    head = f"POST /exec HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {token}\r\n"
    head += f"Content-Length: {len(line)}\r\n\r\n"
    request, took, cpu = head.encode() + line, [], ticks(pid)
    until = time.perf_counter() + seconds
    await asyncio.gather(*(client(folder, request, until, took) for _ in range(clients)))
    cuts = statistics.quantiles(took, n=100)
    return {
        "clients": clients, "p50_ms": round(cuts[49], 3), "p99_ms": round(cuts[98], 3),
        "per_second": round(len(took) / seconds), "server_cpu_us": round((ticks(pid) - cpu) / len(took) * 1e6),
    }


def ticks(pid: int) -> float:
    """CPU seconds of a process."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def main() -> None:
    """Start the server, measure, print a table and one JSON line; exit 1 when a bar is missed."""
    if sys.argv[1:2] == ["--server"]:
        uvloop.run(server(Path(sys.argv[2])))
        return
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 3.0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        process = subprocess.Popen([sys.executable, __file__, "--server", name])
        try:
            give_up = time.monotonic() + 20
            while not (folder / "ready").exists():
                assert process.poll() is None and time.monotonic() < give_up, "the server did not start"
                time.sleep(0.05)
            rounds = [uvloop.run(measure(folder, process.pid, n, seconds)) for _ in range(3) for n in BAR]
        finally:
            process.terminate()
            process.wait(10)
    report(rounds)


def report(rounds: list[dict[str, float]]) -> None:
    """Medians of the rounds."""
    made = []
    for clients, bar in BAR.items():
        mine = [r for r in rounds if r["clients"] == clients]
        made.append({key: statistics.median(r[key] for r in mine) for key in mine[0]} | {"bar_ms": bar})
    print(f"{'clients':>8} {'p50 ms':>8} {'p99 ms':>8} {'req/s':>8} {'CPU us':>8} {'bar ms':>8}")
    for row in made:
        print("".join(f"{row[k]:>9}" for k in ("clients", "p50_ms", "p99_ms", "per_second", "server_cpu_us", "bar_ms")))
    print(json.dumps(made))
    sys.exit(any(row["p50_ms"] >= row["bar_ms"] for row in made))


if __name__ == "__main__":
    main()
