"""Addresses of what is shared."""
from __future__ import annotations

from ussycode.base.errors import ErrorCode, Kind
from ussycode.base.names import ALTERNATE_PORTS
from ussycode.config import Config

NO_PLACE = ErrorCode(
    "share.no_address", Kind.USAGE, "port {port} of {name} has no address",
    hint="only its primary port and ports {first} to {last} have; make it the primary one: share port {name} {port}",
)
SHARE = "/__ussycode/share/"
"""Where share links are opened, on the host of any VM: never by the VM's own app."""


def url(config: Config, name: str, port: int, primary: int) -> str:
    """Where `port` of the VM called `name` is opened."""
    host = config.vm_host(name)
    return config.host_url(host if port == primary else f"{port}--{host}")


def link_url(config: Config, name: str, token: str) -> str:
    """Where a share link of the VM called `name` is opened. The token alone counts: a renamed VM keeps its links."""
    return f"{config.host_url(config.vm_host(name))[:-1]}{SHARE}{token}"


def mail_address(config: Config, name: str) -> str:
    """One of the addresses of the VM called `name`: whatever stands in front of the `@` will do."""
    return f"anything@{config.vm_host(name)}"


def require(name: str, port: int, primary: int) -> None:
    """Raise NO_PLACE for a port that nobody could open."""
    if port != primary and port not in ALTERNATE_PORTS:
        raise NO_PLACE(name=name, port=port, first=ALTERNATE_PORTS[0], last=ALTERNATE_PORTS[-1])
