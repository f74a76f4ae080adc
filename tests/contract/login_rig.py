"""Runs the samples of the guide's page on the login as the apps that they are."""
from __future__ import annotations

import asyncio
import socket
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

GUIDE = Path(__file__).parents[2] / "docs" / "guide"
SAMPLES = GUIDE / "login"
APPS: dict[str, Sequence[str]] = {
    "wsgi": (sys.executable, "wsgi_login.py", "{port}"),
    "asgi": (sys.executable, "-m", "uvicorn", "asgi_login:app", "--port", "{port}", "--log-level", "critical"),
    "node": ("node", "login.mjs", "{port}"),
}


@asynccontextmanager
async def sample(name: str) -> AsyncIterator[int]:
    """One sample as a process; the port on which it listens."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    words = [word.format(port=port) for word in APPS[name]]
    process = await asyncio.create_subprocess_exec(*words, cwd=SAMPLES)
    try:
        await listens(port, process)
        yield port
    finally:
        process.kill()
        await process.wait()


async def listens(port: int, process: asyncio.subprocess.Process) -> None:
    """Wait until somebody listens on `port`; 60 seconds at most, and not for a process that has ended."""
    async with asyncio.timeout(60):
        while True:
            try:
                (await asyncio.open_connection("127.0.0.1", port))[1].close()
                return
            except OSError:
                assert process.returncode is None
                await asyncio.sleep(0.05)
