"""A real ACME server (Debian's pebble), whose challenges over HTTP and TLS can be let through or not."""
from __future__ import annotations

import asyncio
import json
import os
import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from ussycode.base.clock import SystemClock
from ussycode.base.pki import Authority, Issuer


@dataclass
class Way:
    """A port of 127.0.0.1 that leads to another while `opened`; counts what came."""

    to: int
    opened: bool = True
    came: int = 0
    passed: int = 0
    listening: socket.socket = field(default_factory=lambda: socket.create_server(("127.0.0.1", 0)))

    @property
    def port(self) -> int:
        """Where it begins."""
        return int(self.listening.getsockname()[1])

    async def serve(self) -> None:
        """Carry connections until cancelled."""
        server = await asyncio.start_server(self._carry, sock=self.listening)
        async with server:
            await server.serve_forever()

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.came += 1
        if not self.opened:
            writer.transport.abort()
            return
        self.passed += 1
        far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self.to)
        await asyncio.gather(_copy(reader, far_writer), _copy(far_reader, writer))


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while data := await reader.read(65536):
            writer.write(data)
        writer.close()


@dataclass(frozen=True)
class AcmeServer:
    """A running server. `root` is what its own HTTPS is trusted by; `issued` what its certificates are."""

    directory: str
    root: Path
    management: int
    http: Way
    tls: Way

    def issued(self) -> Path:
        """The root that its certificates lead to, as a file beside `root`."""
        target = self.root.with_name("issued.pem")
        pem = subprocess.run(
            ["curl", "-sS", "--cacert", self.root, f"https://localhost:{self.management}/roots/0"],
            capture_output=True, check=True, timeout=20,
        ).stdout
        target.write_bytes(pem)
        return target


@contextmanager
def acme_server(folder: Path, http_port: int, https_port: int, name_server: str) -> Iterator[AcmeServer]:
    """An authority whose challenges go to these ports of where `name_server` (HOST:PORT) leads it."""
    authority = Authority.make(SystemClock())
    leaf = Issuer(authority.intermediate("localhost"), SystemClock()).leaf("localhost")
    for name, content in (("acme-root.pem", authority.root_pem), ("chain.pem", leaf.chain), ("key.pem", leaf.key)):
        (folder / name).write_bytes(content)
    port, management = _free(2)
    http, tls = Way(http_port), Way(https_port)
    (folder / "pebble.json").write_text(json.dumps({"pebble": {
        "listenAddress": f"127.0.0.1:{port}", "managementListenAddress": f"127.0.0.1:{management}",
        "certificate": str(folder / "chain.pem"), "privateKey": str(folder / "key.pem"), "httpPort": http.port,
        "tlsPort": tls.port, "ocspResponderURL": "",
    }}))
    environ = os.environ | {"PEBBLE_VA_NOSLEEP": "1", "PEBBLE_WFE_NONCEREJECT": "0"}
    with ExitStack() as stack:
        stack.enter_context(_ways(http, tls))
        log = stack.enter_context(open(folder / "acme.log", "wb"))
        words = ["pebble", "-config", str(folder / "pebble.json"), "-dnsserver", name_server]
        process = subprocess.Popen(words, env=environ, stdout=log, stderr=log)
        stack.callback(process.wait, 10)
        stack.callback(process.terminate)
        yield AcmeServer(f"https://localhost:{port}/dir", folder / "acme-root.pem", management, http, tls)


@contextmanager
def _ways(*ways: Way) -> Iterator[None]:
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    serving = [asyncio.run_coroutine_threadsafe(way.serve(), loop) for way in ways]
    try:
        yield
    finally:
        for one in serving:
            one.cancel()
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)


def _free(count: int) -> list[int]:
    opened = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [s.getsockname()[1] for s in opened]
    for one in opened:
        one.close()
    return ports
