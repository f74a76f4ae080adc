"""The platform's own processes, started by the supervisor with settings on an inherited descriptor."""
from __future__ import annotations

import argparse
import ipaddress
import os
from pathlib import Path

import msgspec

from ussycode.config import Config
from ussycode.runtime.net.policy import Policy

MAX_SETTINGS = 1 << 20
"""Largest settings document in bytes."""


class NetSettings(msgspec.Struct, frozen=True):
    """The operator's limits on guests' networks, as the helper is told them."""

    mbit: int
    packets: int
    connections: int
    tracked: int
    integrations: tuple[str, ...]
    ipv6: bool

    @classmethod
    def of(cls, config: Config) -> NetSettings:
        """What the settings say."""
        return cls(
            config.net_mbit, config.net_packets, config.net_connections, config.net_tracked, config.net_integrations,
            config.net_ipv6,
        )

    def policy(self) -> Policy:
        """The same for the rules."""
        integrations = tuple(ipaddress.ip_network(text) for text in self.integrations)
        return Policy(self.mbit, self.packets, self.connections, self.tracked, integrations, self.ipv6)


class HelperSettings(msgspec.Struct, frozen=True):
    """What the privileged helper is told."""

    data_dir: str
    kernel: str
    initrd: str
    version: str
    digest: str
    guest: str
    tsc_khz: int
    containers: bool
    net: NetSettings


def pack(settings: msgspec.Struct) -> int:
    """A descriptor from which the role reads `settings`; in memory only, because it may hold a key."""
    fd = os.memfd_create("ussycode-settings")
    os.write(fd, msgspec.json.encode(settings))
    os.lseek(fd, 0, os.SEEK_SET)
    return fd


def helper(_config: Config, asked: argparse.Namespace) -> int:
    """Be the privileged helper."""
    from ussycode.base.telemetry import log_to_stderr
    from ussycode.runtime.instance import load
    from ussycode.runtime.kernel import BootFiles
    from ussycode.runtime.privileged import server

    given = msgspec.json.decode(os.read(asked.fd, MAX_SETTINGS), type=HelperSettings)
    log_to_stderr(True)
    instance = load(Path(given.data_dir))
    assert instance is not None
    boot = BootFiles(Path(given.kernel), Path(given.initrd), given.version, given.digest, Path(given.guest))
    server.serve(instance, boot, given.tsc_khz, containers=given.containers, policy=given.net.policy())
    return 0


def control(_config: Config, asked: argparse.Namespace) -> int:
    """Be the control process."""
    from ussycode.app import control as serve
    from ussycode.wire.control import ControlSettings

    return serve(msgspec.json.decode(os.read(asked.fd, MAX_SETTINGS), type=ControlSettings))


def edge(_config: Config, asked: argparse.Namespace) -> int:
    """Be one edge process. Imports nothing of control: an edge stays small."""
    from ussycode.doors.edge import process, settings

    return process.main(settings.read(asked.fd))
