"""What passes through the edge in bulk or not at all: 1 GiB each way, and a thousand WebSockets that say nothing."""
from __future__ import annotations

import asyncio
import ssl
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from bench.report import Report

GIB = 1 << 30
SOCKETS = 1000


def memory(pid: int, what: str = "Pss") -> float:
    """KiB of a process by /proc/PID/smaps_rollup."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return float(next(line.split()[1] for line in lines if line.startswith(what + ":")))


def bulk(report: Report, url: str, cookie: str, pid: int, cpu: Callable[[], float]) -> None:
    """1 GiB down and up with curl; speed, CPU for each MiB, and how much the process grew."""
    host = f"demo.localhost:{url.rpartition(':')[2].rstrip('/')}"
    curl = ["curl", "-sk", "-o", "/dev/null", "-H", f"Host: {host}", "-H", f"Cookie: {cookie}", "--max-time", "120"]
    with tempfile.NamedTemporaryFile() as body:
        body.truncate(GIB)
        ways = {"down": [*curl, f"{url}big?n={GIB}"], "up": [*curl, "-H", "Expect:", "-T", body.name, url]}
        for way, command in ways.items():
            before, used, began = memory(pid), cpu(), time.monotonic()
            subprocess.run(command, check=True, timeout=150)
            seconds, spent, grown = time.monotonic() - began, cpu() - used, memory(pid) - before
            report.add(f"1 GiB {way}: speed", "MiB/s", [1024 / seconds])
            report.add(f"1 GiB {way}: CPU", "ms/MiB", [spent * 1000 / 1024])
            report.add(f"1 GiB {way}: growth of memory", "MiB", [grown / 1024])


def idle_websockets(report: Report, port: int, cookie: str, pid: int) -> None:
    """SOCKETS WebSockets opened one after another and left alone; KiB for each in the edge process."""
    before = memory(pid)
    grown = asyncio.run(_held(port, cookie, lambda: memory(pid) - before))
    report.add(f"{SOCKETS} idle WebSockets: memory for each", "KiB", [grown / SOCKETS])


async def _held(port: int, cookie: str, read: Callable[[], float]) -> float:
    trust = ssl.create_default_context()
    trust.check_hostname, trust.verify_mode = False, ssl.CERT_NONE
    ask = (
        f"GET / HTTP/1.1\r\nHost: demo.localhost:{port}\r\nCookie: {cookie}\r\nConnection: Upgrade\r\n"
        "Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
    ).encode()
    held = []
    for _ in range(SOCKETS):
        reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=trust, server_hostname="demo.localhost")
        writer.write(ask)
        head = await reader.readuntil(b"\r\n\r\n")
        if b" 101 " not in head:
            raise RuntimeError(head.decode(errors="replace"))
        held.append(writer)
    await asyncio.sleep(2)
    grown = read()
    for writer in held:
        writer.close()
    return grown
