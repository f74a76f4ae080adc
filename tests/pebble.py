"""A real ACME server for tests: Debian's pebble, which asks a given name server about challenges."""
from __future__ import annotations

import json
import os
import socket
import ssl
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from ussycode.base.clock import SystemClock
from ussycode.base.pki import Authority, Issuer


@dataclass(frozen=True)
class Pebble:
    """`root` is what its own HTTPS is trusted by."""

    directory: str
    root: Path
    management: int

    def issuing_root(self) -> str:
        """The root, PEM, that its certificates lead to; new with each start."""
        trusting = ssl.create_default_context(cafile=str(self.root))
        with urllib.request.urlopen(f"https://localhost:{self.management}/roots/0", context=trusting) as got:
            return bytes(got.read()).decode()


@contextmanager
def pebble(folder: Path, name_server: str) -> Iterator[Pebble]:
    """One running server; `name_server` is HOST:PORT."""
    authority = Authority.make(SystemClock())
    leaf = Issuer(authority.intermediate("localhost"), SystemClock()).leaf("localhost")
    for name, content in (("acme-root.pem", authority.root_pem), ("chain.pem", leaf.chain), ("key.pem", leaf.key)):
        (folder / name).write_bytes(content)
    probes = [socket.create_server(("127.0.0.1", 0)) for _ in range(2)]
    port, management = (p.getsockname()[1] for p in probes)
    for probe in probes:
        probe.close()
    (folder / "pebble.json").write_text(json.dumps({"pebble": {
        "listenAddress": f"127.0.0.1:{port}", "managementListenAddress": f"127.0.0.1:{management}",
        "certificate": str(folder / "chain.pem"), "privateKey": str(folder / "key.pem"),
        "httpPort": 1, "tlsPort": 1, "ocspResponderURL": "",
    }}))
    environ = os.environ | {"PEBBLE_VA_NOSLEEP": "1"}
    with open(folder / "pebble.log", "wb") as log:
        argv = ["pebble", "-config", str(folder / "pebble.json"), "-dnsserver", name_server]
        process = subprocess.Popen(argv, env=environ, stdout=log, stderr=log)
    try:
        _until_it_listens(port, process, folder / "pebble.log")
        yield Pebble(f"https://localhost:{port}/dir", folder / "acme-root.pem", management)
    finally:
        process.kill()
        process.wait()


def _until_it_listens(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    end = time.monotonic() + 60
    while True:
        assert process.poll() is None and time.monotonic() < end, log.read_text()[-2000:]
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        except OSError:
            time.sleep(0.02)
