"""`ussycode up`: prepare, serve, say how to begin."""
from __future__ import annotations

import argparse
import asyncio
import subprocess
import sys
import time
from pathlib import Path

from ussycode.base.errors import ErrorCode, Kind
from ussycode.cli import prepare, state
from ussycode.cli.listeners import bind
from ussycode.cli.supervisor import Supervisor, last_line
from ussycode.config import Config

DETACHED_SECONDS = 3600.0
"""Longest wait of `up --detach`: the first start builds an image."""
SHOWN = 10
"""Ports that are named one by one."""
NOT_STARTED = ErrorCode("up.not_started", Kind.FAILED, "{why}", hint="the whole log: {log}")


def up(config: Config, asked: argparse.Namespace) -> int:
    """Run the platform in the foreground until Ctrl-C, or with --detach in the background."""
    prepare.require_root()
    state.end_orphans(config.data_dir)
    if asked.detach:
        return _detached(config)
    began = time.monotonic()
    # Outside the event loop, so that Ctrl-C ends a long build at once.
    prepared = prepare.prepare(config, _say)
    return asyncio.run(_foreground(config, prepared, began))


async def _foreground(config: Config, prepared: prepare.Prepared, began: float) -> int:
    listeners = bind(config, prepared.instance)
    if listeners.taken:
        some = ", ".join(map(str, listeners.taken[:SHOWN])) + (" and more" if listeners.taken[SHOWN:] else "")
        _say(f"  alternate ports that other programs have, and keep: {some}")
    supervisor = Supervisor(config, prepared, listeners)
    ready = asyncio.get_running_loop().create_future()
    task = asyncio.create_task(supervisor.run(ready))
    await asyncio.wait([task, ready], return_when=asyncio.FIRST_COMPLETED)
    if ready.done():
        _say(panel(config, prepared.accel, prepared.admin_keys, time.monotonic() - began))
    await task
    _say("stopped; the VMs go on running (ussycode down stops them too)")
    return 0


def _say(text: str) -> None:
    print(text, flush=True)


def panel(config: Config, accel: str, keys: list[str], seconds: float) -> str:
    """What to do next, for a person."""
    lobby = config.ssh_command()
    lines = [
        f"ussycode is ready ({seconds:.1f} s, {accel})",
        f"  lobby    {lobby}",
        f"  new VM   {lobby} new",
        f"  web      {config.host_url(config.domain)}",
        f"  data     {config.data_dir}",
    ]
    if config.on_loopback and config.tls_cert is None:
        lines.append("  trust    ussycode ca > ussycode-root.pem, and import it into your browser")
    if not keys:
        lines.append("  no SSH key of yours was found: make one with ssh-keygen -t ed25519, then start again;")
        lines.append("  its first login becomes the admin")
    return "\n".join(lines)


def _detached(config: Config) -> int:
    log = config.data_dir / "log" / "up.log"
    log.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    words = [w for w in sys.argv[1:] if w != "--detach"]
    with open(log, "wb") as out:
        child = subprocess.Popen(
            [sys.executable, "-P", "-m", "ussycode", *words], stdin=subprocess.DEVNULL, stdout=out, stderr=out,
            start_new_session=True,
        )
    deadline, shown = time.monotonic() + DETACHED_SECONDS, 0
    while time.monotonic() < deadline:
        shown = _show_new(log, shown)
        now = state.read(config.data_dir)
        if now is not None and now.phase == "ready" and now.supervisor.pid == child.pid:
            _show_rest(log, shown)
            return 0
        if child.poll() is not None:
            _show_rest(log, shown)
            return child.returncode or 1
        time.sleep(0.1)
    child.terminate()
    raise NOT_STARTED(why=last_line(log), log=log)


def _show_new(log: Path, shown: int) -> int:
    fresh = log.read_bytes()[shown:]
    sys.stdout.write(fresh.decode(errors="replace"))
    sys.stdout.flush()
    return shown + len(fresh)


def _show_rest(log: Path, shown: int) -> None:
    # The panel is written just after the state says ready.
    deadline = time.monotonic() + 2
    while time.monotonic() < deadline and b"data     " not in log.read_bytes():
        time.sleep(0.02)
    _show_new(log, shown)
