"""Starting QEMU so that it belongs to nobody: own session, own uid, own limits, no way back to privilege."""
from __future__ import annotations

import ctypes
import os
import resource
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ussycode.runtime.privileged.jail import Jail

_PR_SET_NO_NEW_PRIVS = 38
_OOM_SCORE = "200"
"""A VM goes before the platform when memory runs out."""
_OPEN_FILES = 1024
_libc = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True)
class Life:
    """What the process may be: its uid (also gid), extra groups, threads, and cgroups to join by descriptor."""

    uid: int
    groups: tuple[int, ...]
    threads: int
    cgroups: tuple[int, ...]
    jail: Jail


def give_birth(argv: Sequence[str], fds: tuple[int, ...], console: int, life: Life) -> subprocess.Popen[bytes]:
    """Start `argv` under `life`. It survives the caller; while the caller lives it must be reaped.

    Raises OSError when the program is missing, subprocess.SubprocessError when a limit could not be set.
    """
    # The helper has one thread, so running Python between fork and exec is safe here.
    return subprocess.Popen(
        argv, cwd="/", env={"PATH": "/usr/bin:/bin", "LC_ALL": "C"}, stdin=subprocess.DEVNULL, stdout=console,
        stderr=console, pass_fds=fds, start_new_session=True, preexec_fn=lambda: _become(life),
    )


def _become(life: Life) -> None:
    for join in life.cgroups:
        os.write(join, b"0")
    Path("/proc/self/oom_score_adj").write_text(_OOM_SCORE)
    for limit, value in ((resource.RLIMIT_CORE, 0), (resource.RLIMIT_NOFILE, _OPEN_FILES),
                         (resource.RLIMIT_NPROC, life.threads)):
        resource.setrlimit(limit, (value, value))
    life.jail.enter()
    os.umask(0o077)
    os.setgroups(life.groups)
    os.setresgid(life.uid, life.uid, life.uid)
    os.setresuid(life.uid, life.uid, life.uid)
    if _libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "no_new_privs")
