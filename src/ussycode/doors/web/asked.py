"""What the edge says about a request: which of our hosts, who asks, under which id."""
from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from starlette.requests import Request

from ussycode.base import ids
from ussycode.base.names import VM_NAME
from ussycode.config import Config
from ussycode.domains import ops as domains
from ussycode.ports import App

_PORTED = re.compile(r"([3-9][0-9]{3})--(.*)")
_REQUEST_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")
MAX_PATH = 2000
"""Characters of a path that a sign-in carries along."""


@dataclass(frozen=True)
class Asked:
    """One request's place. `host` is one of ours without port; `request_id` is the edge's, or a fresh one."""

    host: str
    address: str
    """`host` with the alternate port that the visitor is at, if it is one: where to send them back to."""
    on_vm: bool
    """The host is shaped like a VM's; whether the VM exists plays no part."""
    request_id: str


async def asked(app: App, scope: Any) -> Asked | None:
    """The place of a request; None for a host that is none of ours."""
    found: dict[bytes, bytes] = {}
    for name, value in scope["headers"]:
        if name in (b"host", b"x-forwarded-host", b"x-request-id"):
            found.setdefault(name, value)
    host = found.get(b"x-forwarded-host") or found.get(b"host", b"")
    address = host.decode("latin-1").lower()
    name = address.partition(":")[0]
    if bare(app.config, address) == address:
        address = name
    given = found.get(b"x-request-id", b"").decode("latin-1")
    request_id = given if _REQUEST_ID.fullmatch(given) else ids.request_id()
    if name == app.config.domain:
        return Asked(name, name, False, request_id)
    return Asked(name, address, True, request_id) if await serves_vm(app, name) else None


def bare(config: Config, host: str) -> str:
    """`host` without the alternate port that it may name; sessions belong to hosts, on all their ports."""
    name, _, port = host.rpartition(":")
    return name if len(port) == 4 and port.isdigit() and config.listens_at(int(port)) else host


async def serves_vm(app: App, host: str) -> bool:
    """A host that VMs are signed in on: shaped like one of ours, or a domain that DNS has proven.

    It may name an alternate port.
    """
    host = bare(app.config, host)
    return is_vm_host(app.config, host) or await domains.serves(app, host)


def is_vm_host(config: Config, host: str) -> bool:
    """`NAME.domain` or `PORT--NAME.domain`, well formed; whether the VM exists plays no part."""
    label, dot, rest = host.partition(".")
    ported = _PORTED.fullmatch(label)
    name = ported[2] if ported else label
    return bool(dot) and rest == config.domain and VM_NAME.fullmatch(name) is not None and "--" not in name


def name_and_port(config: Config, host: str) -> tuple[str, int]:
    """VM name and port that a host of ours means, 0 for the primary port; no name for a domain of an owner's."""
    if not is_vm_host(config, host):
        return "", 0
    label = host.partition(".")[0]
    ported = _PORTED.fullmatch(label)
    return (ported[2], int(ported[1])) if ported else (label, 0)


def local_path(path: str) -> str:
    """`path` when it stays on its host, else `/`: one leading slash, no backslash, no control characters."""
    if not path.startswith("/") or path.startswith("//") or "\\" in path or len(path) > MAX_PATH:
        return "/"
    return path if path.isascii() and path.isprintable() and " " not in path else "/"


def same_origin(config: Config, request: Request, host: str) -> bool:
    """A form of our own host sent this. What is no browser sends neither header, and carries no one's cookies."""
    site = request.headers.get("sec-fetch-site")
    origin = request.headers.get("origin")
    if site is not None and site not in ("same-origin", "none"):
        return False
    return origin is None or origin == config.host_url(host)[:-1]


def wants_page(request: Request) -> bool:
    """A browser asks; programs get JSON."""
    return "text/html" in request.headers.get("accept", "")
