"""A process of its own for what strangers wrote: it begins with nothing of ours but the interpreter."""
from __future__ import annotations

import asyncio
import os
import re
import signal
import subprocess
import sys
from collections.abc import Collection
from pathlib import Path
from typing import IO

_INHERITED = re.compile(r"/proc/self/fd/([0-9]+)")
_BEGIN = (
    "import sys\nsys.path[:] = sys.argv.pop(1).split(chr(10))\n"
    "from ussycode.runtime.images.{module} import main\nmain(sys.argv[1])\n"
)


def start(
    module: str, work: Path, *, fds: Collection[int] = (), stdout: int | IO[bytes] = subprocess.DEVNULL
) -> subprocess.Popen[bytes]:
    """Begin `main(work)` of a module beside this one; its complaints go to work/log. `fds` stay open in it.

    Interpreter and packages are reached as this process reaches them, through open folders if need be. The module
    itself puts up the walls, once it has read what it needs.
    """
    paths = [entry for entry in sys.path if entry]
    own = {int(found[1]) for text in (*paths, sys.base_prefix) if (found := _INHERITED.match(text))}
    env = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LANG": "C.UTF-8", "PYTHONHOME": sys.base_prefix,
           "LD_LIBRARY_PATH": f"{sys.base_prefix}/lib"}
    begin = _BEGIN.format(module=module)
    with (work / "log").open("wb") as log:
        return subprocess.Popen(
            [f"ussycode-{module}", "-S", "-c", begin, "\n".join(paths), str(work)], executable="/proc/self/exe",
            env=env, pass_fds=sorted(own | set(fds)), stdin=subprocess.DEVNULL, stdout=stdout, stderr=log,
            cwd="/", start_new_session=True, bufsize=0,  # what was read is not kept where `readable` sees nothing of it
        )


def begun() -> None:
    """To be called first in that process: what led it to its interpreter leads nobody else."""
    del os.environ["LD_LIBRARY_PATH"], os.environ["PYTHONHOME"]


async def readable(fd: int) -> None:
    """Until there is something to read, or nothing will ever be.

    Not in a thread: of those there are few, and a process that stands still must not take one from everybody else.
    """
    loop, event = asyncio.get_running_loop(), asyncio.Event()
    loop.add_reader(fd, event.set)
    try:
        await event.wait()
    finally:
        loop.remove_reader(fd)


async def ended(process: subprocess.Popen[bytes]) -> None:
    """Until such a process has ended."""
    fd = os.pidfd_open(process.pid)
    try:
        await readable(fd)
    finally:
        os.close(fd)


def end(process: subprocess.Popen[bytes]) -> None:
    """End such a process with all that it started. Idempotent."""
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
