"""Starts the platform's own processes, each under its own uid."""
from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

BOOTSTRAP = (
    "import os, sys\n"
    "fds = [int(f) for f in sys.argv.pop(1).split(',')]\n"
    "[os.set_inheritable(f, False) for f in fds]\n"
    "sys.path[:0] = [f'/proc/self/fd/{f}' for f in fds[2:]]\n"
    "sys.argv[0] = 'ussycode'\n"
    "[os.environ.pop(n, 0) for n in ('PYTHONHOME', 'LD_LIBRARY_PATH')]\n"
    "from ussycode.__main__ import main\n"
    "main()\n"
)


@dataclass(frozen=True)
class Role:
    """One kind of process: its hidden verb, its uid (also gid), and where its log lines go."""

    verb: str
    uid: int
    log: Path


async def start(role: Role, settings: int, fds: Sequence[int]) -> asyncio.subprocess.Process:
    """Start `ussycode _ROLE FD` with `settings` and `fds` inherited.

    Interpreter and packages are reached through open folders, not through paths: a checkout in a home folder
    that only its owner may enter works for the unprivileged roles too.
    """
    program = os.open(os.path.realpath(sys.executable), os.O_RDONLY)
    home = os.open(sys.base_prefix, os.O_RDONLY)
    packages = [os.open(entry, os.O_RDONLY) for entry in _packages()]
    opened = [program, home, *packages]
    log = os.open(role.log, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o640)
    listed = ",".join(map(str, opened))
    try:
        return await asyncio.create_subprocess_exec(
            f"ussycode-{role.verb}", "-S", "-c", BOOTSTRAP, listed, "_" + role.verb, str(settings),
            executable=f"/proc/self/fd/{program}", pass_fds=[*opened, settings, *fds],
            env={
                "PYTHONHOME": f"/proc/self/fd/{home}", "LD_LIBRARY_PATH": f"/proc/self/fd/{home}/lib",
                "PATH": os.environ.get("PATH", os.defpath), "LANG": "C.UTF-8",
                # The uid has no entry in /etc/passwd; libraries that ask for its name and home find them here.
                "USER": "ussycode", "LOGNAME": "ussycode", "HOME": "/nonexistent",
            },
            stdin=asyncio.subprocess.DEVNULL, stdout=log, stderr=log, cwd="/", user=role.uid, group=role.uid,
            extra_groups=[], start_new_session=True, umask=0o022,
        )
    finally:
        for fd in (*opened, log):
            os.close(fd)


def _packages() -> list[str]:
    standard = (os.path.realpath(sys.base_prefix), sys.base_prefix)
    folders = [p for p in sys.path if p and Path(p).is_dir()]
    inside = [p for p in folders if "site-packages" in p or not p.startswith(standard)]
    return [p for p in dict.fromkeys(inside) if "dist-packages" not in p]
