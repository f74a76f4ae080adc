"""Where an SSH user name leads. Pure; whether the VM exists and is the caller's is the command's business."""
from __future__ import annotations

import re
from dataclasses import dataclass

from ussycode.base import names

EXPLICIT = "vm+"
"""`vm+demo` is the VM or nothing; it never falls back to the lobby."""
_USER = re.compile(r"[a-z_][a-z0-9_-]{0,31}")
_TARGET = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")


@dataclass(frozen=True)
class Lobby:
    """Commands of the platform."""


@dataclass(frozen=True)
class ToVm:
    """The VM called `name`, as `user` (empty: its login user)."""

    name: str
    user: str = ""

    @property
    def target(self) -> str:
        """`demo` or `root@demo`, as the ssh command takes it."""
        return f"{self.user}@{self.name}" if self.user else self.name


@dataclass(frozen=True)
class Refuse:
    """A name that cannot be any VM's, said to be one."""

    name: str


Route = Lobby | ToVm | Refuse


def route(username: str, handle: str = "", login_name: str = "") -> Route:
    """Lobby for login names and one's own names; a VM for whatever is shaped like one; else the lobby."""
    if username.startswith(EXPLICIT):
        return _explicit(username.removeprefix(EXPLICIT))
    if username in names.LOGIN_NAMES or username in (handle, login_name):
        return Lobby()
    user, at, name = username.rpartition("@")
    if not names.VM_NAME.fullmatch(name) or (at and not _USER.fullmatch(user)):
        return Lobby()
    return ToVm(name, user)


def _explicit(target: str) -> Route:
    user, at, name = target.rpartition("@")
    if not _TARGET.fullmatch(name) or (at and not _USER.fullmatch(user)):
        return Refuse(target)
    return ToVm(name, user)


def login_name(username: str) -> str:
    """What is remembered of the user name somebody registered with: theirs, unless it asked for a VM."""
    return "" if username.startswith(EXPLICIT) or "@" in username else username[:64]


def jump_target(host: str, domain: str) -> str | None:
    """The VM that `ssh -J` means by `host`: `demo` or `demo.DOMAIN`; None for anything else."""
    name = host.lower().removesuffix("." + domain)
    return name if names.VM_NAME.fullmatch(name) else None


def inside(host: str, vm: str, domain: str) -> str:
    """`host` as the VM is asked to dial it; empty means the VM itself."""
    own = {"localhost", "127.0.0.1", "::1", "", vm, f"{vm}.{domain}"}
    return "" if host.lower() in own else host
