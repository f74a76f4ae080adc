"""How fast the lobby is: `ls` with 1,000 VMs, one command on an open connection, a keystroke and `help` at the prompt.

    python bench/lobby_bench.py

Server (asyncssh, SQLite file) and client run in two processes on the same cores; the VMs are rows, not machines.
"""
from __future__ import annotations

import asyncio
import dataclasses
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import asyncssh
import uvloop

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from bench.report import Report  # noqa: E402
from ussycode import config as settings  # noqa: E402
from ussycode.access.facts import Role  # noqa: E402
from ussycode.agent.link import LocalLink  # noqa: E402
from ussycode.app import NamedImages, NoGuests  # noqa: E402
from ussycode.base import schema  # noqa: E402
from ussycode.base.clock import SystemClock  # noqa: E402
from ussycode.base.db import Database, Tx  # noqa: E402
from ussycode.base.telemetry import Telemetry  # noqa: E402
from ussycode.doors.ssh.door import SshDoor  # noqa: E402
from ussycode.identity import ops as identity  # noqa: E402
from ussycode.identity import store as people  # noqa: E402
from ussycode.identity.keys import read_public_key  # noqa: E402
from ussycode.ports import App, Uses, Waiters  # noqa: E402
from ussycode.runtime.driver import Phase  # noqa: E402
from ussycode.vms import ops, store  # noqa: E402
from ussycode.vms.ops import Spec  # noqa: E402

VMS = 1000
ROUNDS = 60
WARM = 10
"""Rounds that are not counted."""


async def server(folder: Path) -> None:
    """The SSH door with one owner of VMS machines."""
    clock = SystemClock()
    db = Database(folder / "bench.db", clock)
    schema.migrate(db.engine)
    config = settings.load({"data_dir": str(folder), "runtime": "fake"}, {})
    images = NamedImages((config.default_image,))
    quiet = Telemetry("bench")
    app = App(config, db, clock, LocalLink(NoGuests()), images, Waiters(), quiet, lambda: None, Uses(clock), "")
    user = await identity.register(app, read_public_key((folder / "key.pub").read_text()), "olive", "olive")
    await db.write(lambda tx: people.update_user(tx, user.id, role=Role.ADMIN.value))
    await db.write(lambda tx: _fill(tx, user.id, config.default_image))
    door = SshDoor(app, [asyncssh.generate_private_key("ssh-ed25519")])
    listening = socket.create_server(("127.0.0.1", 0))
    (folder / "port").write_text(str(listening.getsockname()[1]))
    await door.serve([listening])


def _fill(tx: Tx, owner: str, image: str) -> None:
    for n in range(VMS):
        vm = ops._new(tx, owner, f"vm-{n:04}x", Spec(None, image, tags=("prod", "web"), comment="one of many"))
        store.insert(tx, dataclasses.replace(vm, phase=Phase.RUNNING, seen_boot=1, address="172.16.0.2"))


async def _timed(what: Callable[[], Awaitable[object]]) -> float:
    began = time.perf_counter()
    await what()
    return (time.perf_counter() - began) * 1000


async def _rounds(what: Callable[[], Awaitable[object]]) -> list[float]:
    return [await _timed(what) for _ in range(WARM + ROUNDS)][WARM:]


async def measure(folder: Path, report: Report) -> None:
    """Every figure on one connection, and whole clients for comparison."""
    port = int((folder / "port").read_text())
    options = {"username": "olive", "client_keys": [str(folder / "key")], "known_hosts": None, "config": None,
               "agent_path": None}
    async with await asyncssh.connect("127.0.0.1", port, **options) as connection:
        for line in ("whoami", "ls", "ls -l", "ls --json", "help"):
            took = await _rounds(lambda line=line: connection.run(line, check=True))  # type: ignore[misc]
            report.add(f"`{line}` on an open connection, {VMS} VMs", "ms", took)
        async with connection.create_process(term_type="xterm", term_size=(80, 50)) as shell:
            await shell.stdout.readuntil("▶ ")
            report.add("a keystroke at the prompt, to its echo", "ms", await _rounds(lambda: _keystroke(shell)))
    argv = ["ssh", "-F", "none", "-p", str(port), "-i", str(folder / "key"), "-o", "StrictHostKeyChecking=no", "-o",
            f"UserKnownHostsFile={folder}/known", "-o", "LogLevel=ERROR", "olive@127.0.0.1", "whoami"]
    took = await _rounds(lambda: asyncio.to_thread(subprocess.run, argv, check=True, capture_output=True))
    report.add("`ssh host whoami`, a whole OpenSSH client", "ms", took)


async def _keystroke(shell: asyncssh.SSHClientProcess[str]) -> None:
    shell.stdin.write("x")
    await shell.stdout.readexactly(1)


def main() -> None:
    """Server in a process of its own, then the figures."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        key = asyncssh.generate_private_key("ssh-ed25519")
        key.write_private_key(folder / "key")
        (folder / "key").chmod(0o600)
        key.write_public_key(folder / "key.pub")
        child = subprocess.Popen([sys.executable, __file__, "serve", name])
        try:
            until = time.monotonic() + 60
            while not (folder / "port").exists() and time.monotonic() < until:
                time.sleep(0.05)
            report = Report("Lobby")
            uvloop.run(measure(folder, report))
            report.save(ROOT / "bench" / "results")
            print(report.text())
        finally:
            child.kill()
            child.wait()


if __name__ == "__main__":
    if len(sys.argv) == 3 and sys.argv[1] == "serve":
        uvloop.run(server(Path(sys.argv[2])))
    else:
        main()
