"""A real name server for tests: Debian's BIND on loopback, whose zone `test` is changed while it runs."""
from __future__ import annotations

import fcntl
import os
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import dns.exception
import dns.query
import dns.update

HERE = "127.0.0.1"
PLATFORM = "ussy.test"
"""Domain of a platform in tests; its zone `acme.ussy.test` is asked of its own server."""
OURS = "192.0.2.10"
_CONFIG = """
options {{
  directory "{folder}"; pid-file none; session-keyfile none; listen-on port {port} {{ 127.0.0.1; }};
  listen-on-v6 {{ none; }}; recursion yes; allow-query {{ any; }}; dnssec-validation no; max-cache-ttl 0;
  max-ncache-ttl 0; empty-zones-enable no; minimal-responses yes; tcp-listen-queue 64;
}};
controls {{ }};
zone "test" {{ type primary; file "test.zone"; allow-update {{ 127.0.0.1; }}; notify no; }};
zone "example" {{ type primary; file "example.zone"; notify no; }};
zone "acme.vms.example" {{ type forward; forward only; forwarders {{ 127.0.0.1 port {front_zone_port}; }}; }};
zone "acme.{platform}" {{ type forward; forward only; forwarders {{ 127.0.0.1 port {zone_port}; }}; }};
zone "acme.localhost" {{ type forward; forward only; forwarders {{ 127.0.0.1 port {local_zone_port}; }}; }};
"""
_ZONE = """$TTL 1
@ SOA ns hostmaster 1 60 60 60 1
@ NS ns
ns A 127.0.0.1
{platform}. A {ours}
*.{platform}. A {ours}
acme.{platform}. NS ns.{platform}.
"""


@dataclass
class NameServer:
    """Answers for `test`, and asks `zone_port` about the zone of PLATFORM, `local_zone_port` about `acme.localhost`.

    `vms.example` is this machine, and `front_zone_port` is asked about its zone.
    """

    port: int
    zone_port: int
    local_zone_port: int
    front_zone_port: int

    @property
    def setting(self) -> str:
        """As `dns_resolver` is written."""
        return f"{HERE}#{self.port}"

    def says(self, name: str, kind: str, *values: str) -> None:
        """Make `values` all there is at `name`; none at all leaves nothing there."""
        update = dns.update.UpdateMessage("test")
        relative = name.removesuffix(".test")
        update.delete(relative)
        for value in values:
            update.add(relative, 1, kind, value if kind != "CNAME" else f"{value}.")
        answer = dns.query.tcp(update, HERE, port=self.port, timeout=10)
        assert answer.rcode() == 0, answer

    def forgets(self, name: str) -> None:
        """There is nothing at `name`."""
        self.says(name, "A")


_EXAMPLE = """$TTL 1
@ SOA ns hostmaster 1 60 60 60 1
@ NS ns
ns A 127.0.0.1
vms A 127.0.0.1
*.vms A 127.0.0.1
acme.vms NS ns
"""


@contextmanager
def name_server(folder: Path) -> Iterator[NameServer]:
    """One running BIND."""
    ports = [_free_port() for _ in range(4)]
    made = NameServer(*ports)
    (folder / "test.zone").write_text(_ZONE.format(platform=PLATFORM, ours=OURS))
    (folder / "example.zone").write_text(_EXAMPLE)
    (folder / "named.conf").write_text(_CONFIG.format(folder=folder, platform=PLATFORM, **vars(made)))
    with open(folder / "named.log", "wb") as log:
        process = subprocess.Popen([_program(), "-g", "-n", "1", "-c", folder / "named.conf"], stdout=log, stderr=log)
    try:
        _until_it_answers(made, process, folder / "named.log")
        yield made
    finally:
        process.kill()
        process.wait()


def _until_it_answers(server: NameServer, process: subprocess.Popen[bytes], log: Path) -> None:
    question, end = dns.message.make_query(PLATFORM, "A"), time.monotonic() + 60
    while True:
        assert process.poll() is None and time.monotonic() < end, log.read_text()[-2000:]
        try:
            assert dns.query.udp(question, HERE, port=server.port, timeout=0.5).answer
            return
        except (dns.exception.Timeout, OSError):
            continue


def _program() -> Path:
    """BIND's program without its service: its libraries are a package of their own, the rest is only unpacked."""
    asked = subprocess.run(["dpkg-query", "-W", "-f=${Version}", "bind9-libs"], capture_output=True, text=True)
    assert asked.returncode == 0, "bind9-libs is missing: make setup-test"
    kept = Path(os.environ.get("LIVE_TEST_DATA", f"/var/tmp/ussycode-live-{os.getuid()}"))
    kept.mkdir(parents=True, exist_ok=True)
    folder = kept / f"bind-{asked.stdout.replace(':', '_')}"
    with open(kept / "bind.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / "tree").exists():
            folder.mkdir(exist_ok=True)
            fetch = ["apt-get", "-q", "download", f"bind9={asked.stdout}"]
            for argv in (fetch, ["sh", "-c", "dpkg-deb -x *.deb draft"]):
                subprocess.run(argv, cwd=folder, check=True, capture_output=True, timeout=120)
            (folder / "draft").rename(folder / "tree")
    return folder / "tree/usr/sbin/named"


def _free_port() -> int:
    """A port that is free for datagrams and for streams."""
    while True:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp, socket.socket() as tcp:
            udp.bind((HERE, 0))
            try:
                tcp.bind((HERE, udp.getsockname()[1]))
            except OSError:
                continue
            return int(udp.getsockname()[1])
