"""The TLS terminator in front of the edges: ours to run (Caddy), or the operator's with a configuration from here."""
from __future__ import annotations

import argparse
import asyncio
import os
import socket
from dataclasses import replace
from pathlib import Path

from ussycode.base.clock import SystemClock
from ussycode.base.errors import ErrorCode, Kind
from ussycode.base.pki import open_authority
from ussycode.cli import caddy, haproxy
from ussycode.cli.listeners import Listeners, front_socket
from ussycode.config import Config
from ussycode.runtime import instance as instances
from ussycode.runtime.instance import Instance

ADMIN_SOCKET = "unix//var/lib/caddy/admin.sock"
"""Where a Caddy of the operator's takes `caddy reload`: in the home of Debian's user, which only it may enter."""
NO_INSTANCE = ErrorCode(
    "front.no_instance", Kind.NOT_FOUND, "there is no platform in {data}, so its front has nowhere to go",
    hint="start it once: ussycode up --front own",
)


def front(config: Config, asked: argparse.Namespace) -> int:
    """Print a configuration for the terminator that was asked for. It stays as it is until settings change."""
    instance = instances.load(config.data_dir)
    if instance is None:
        raise NO_INSTANCE(data=config.data_dir)
    edge = front_socket(instance)
    if asked.which == "haproxy":
        print(haproxy.configuration(config, edge, asked.certificates), end="")
    else:
        listen, made = caddy.Sockets.opened(config.listen), _named(config)
        print(caddy.caddyfile(config, edge, listen, made, admin=ADMIN_SOCKET), end="")
    return 0


async def start(
    config: Config, instance: Instance, ours: Listeners, log: Path, secret: str,
) -> asyncio.subprocess.Process:
    """Run our Caddy, with the listening sockets and what root alone may read handed over open.

    With `secret` it is handed the certificates that control keeps.
    """
    home = config.data_dir / "front"
    home.mkdir(mode=0o700, exist_ok=True)
    os.chown(home, instance.front_uid, instance.front_uid)
    https, quic, http = [[s.fileno() for s in group] for group in (ours.https[0], ours.quic, ours.http)]
    opened: list[int] = []
    try:
        sockets = caddy.Sockets.inherited(https, quic, http)
        keeper = f"http://127.0.0.1:{config.metrics_port}{caddy.ASK_PATH}/{secret}"
        made = replace(_certificates(config, opened), keeper=keeper)
        text = caddy.caddyfile(config, front_socket(instance), sockets, made, str(home))
        return await caddy.start(text, home, instance.front_uid, log, [*https, *quic, *http, *opened])
    finally:
        for fd in opened:
            os.close(fd)


def _certificates(config: Config, opened: list[int]) -> caddy.Certificates:
    """What Caddy serves; content that only root may read goes into memory, and its descriptor into `opened`."""

    def shown(content: bytes) -> str:
        fd = os.memfd_create("ussycode-tls")
        os.write(fd, content)
        opened.append(fd)
        return f"/proc/self/fd/{fd}"

    named = _named(config)
    root = shown(Path(named.acme_root).read_bytes()) if named.acme_root else ""
    if named.files is not None:
        chain, key = (shown(Path(file).read_bytes()) for file in named.files)
        return caddy.Certificates(files=(chain, key), acme_root=root)
    if not signs_locally(config):
        return caddy.Certificates(acme_root=root)
    authority = open_authority(config.data_dir / "ca", SystemClock())
    made = authority.intermediate(config.domain)
    return caddy.Certificates(local=(shown(authority.root_pem), shown(made.certificate), shown(made.key)))


def signs_locally(config: Config) -> bool:
    """Whether certificates come from our own authority: no front, or one that has nobody else to ask."""
    return config.front == "none" or (config.front == "caddy" and config.on_loopback and not config.acme_directory)


def _named(config: Config) -> caddy.Certificates:
    """What the settings name, by its own path."""
    files = (str(config.tls_cert), str(config.tls_key)) if config.tls_cert and config.tls_key else None
    return caddy.Certificates(files, acme_root=str(config.acme_root or ""))


def answers(config: Config, instance: Instance) -> bool:
    """Whether edge and control answer what comes from the front."""
    request = (
        f"GET /healthz HTTP/1.1\r\nHost: {config.domain}\r\nX-Forwarded-For: 127.0.0.1\r\nX-Forwarded-Proto: https\r\n"
        f"X-Forwarded-Port: {config.https_port}\r\nConnection: close\r\n\r\n"
    )
    try:
        with socket.socket(socket.AF_UNIX) as plain:
            plain.settimeout(2)
            plain.connect(str(front_socket(instance)))
            plain.sendall(request.encode())
            return plain.recv(64).startswith(b"HTTP/1.1 200")
    except OSError:
        return False
