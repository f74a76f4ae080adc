"""Commands about sharing."""
from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NotRequired, TypedDict

from ussycode.access.actions import Action
from ussycode.cmdline.qr import drawn
from ussycode.cmdline.render import Style
from ussycode.cmdline.spec import command, switch, vm, word
from ussycode.ports import Ctx
from ussycode.sharing import ops
from ussycode.sharing.model import Ports
from ussycode.vms.commands import OneVm, target


def port_number(text: str) -> int:
    """A TCP port of the guest."""
    if not text.isdigit() or not 1 <= int(text) <= 65535:
        raise ValueError("a port is a number from 1 to 65535")
    return int(text)


class PortDocument(TypedDict):
    """One port that has a visibility of its own."""

    port: int
    share: str


class ShareDocument(TypedDict):
    """`share show`."""

    vm_name: str
    status: str
    port: int
    url: str
    users: list[dict[str, str]]
    links: list[dict[str, str]]
    teams: list[dict[str, str]]
    team_access: bool
    team_ssh: bool
    team_shelley: bool
    ports: list[PortDocument]
    domains: list[str]


class VisibilityDocument(TypedDict):
    """`share port`, `set-public` and `set-private`; what follows `share` is there after a change."""

    vm_name: str
    port: int
    share: str
    status: NotRequired[str]
    team_access: NotRequired[bool]
    team_ssh: NotRequired[bool]
    team_shelley: NotRequired[bool]


@dataclass(frozen=True)
class ShareView:
    """How a VM is shared. `status` is set after a change."""

    vm_name: str
    ports: Ports
    url: str
    whole: bool = False
    status: str = ""
    qr: bool = False

    def text(self, style: Style) -> str:
        """Two lines."""
        who = "anyone" if self.ports.visibility == "public" else "only you, after signing in,"
        said = f"{self.vm_name} is {self.ports.visibility}: {who} can open port {self.ports.primary}\n  {self.url}"
        return f"{said}\n{drawn(self.url)}" if self.qr else said

    def document(self) -> ShareDocument | VisibilityDocument:
        """The documents of `share show` and of the commands that change it."""
        if self.whole:
            return {
                "vm_name": self.vm_name, "status": self.ports.visibility, "port": self.ports.primary, "url": self.url,
                "users": [], "links": [], "teams": [], "team_access": False, "team_ssh": False, "team_shelley": False,
                "ports": [{"port": p, "share": "public"} for p in sorted(self.ports.public)], "domains": [],
            }
        made: VisibilityDocument = {
            "vm_name": self.vm_name, "port": self.ports.primary, "share": self.ports.visibility,
        }
        if self.status:
            made.update({"status": self.status, "team_access": False, "team_ssh": False, "team_shelley": False})
        return made


def _view(ctx: Ctx, name: str, ports: Ports, whole: bool = False, status: str = "") -> ShareView:
    config = ctx.app.config
    return ShareView(name, ports, config.host_url(config.vm_host(name)), whole, status)


@dataclass(frozen=True)
class Show:
    """Arguments of `share show`."""

    vm: str = word(target, help="the VM", complete="vm")
    qr: bool = switch(help="draw the URL as a QR code")


@command("share show", needs=Action.VM_READ, on=vm("vm"), reads_only=True, examples=("share show demo",))
async def show(ctx: Ctx, a: Show) -> ShareView:
    """Show who can reach a VM's web port."""
    return replace(_view(ctx, a.vm, await ops.show(ctx.app, ctx.permit), whole=True), qr=a.qr)


@dataclass(frozen=True)
class Port:
    """Arguments of `share port`."""

    vm: str = word(target, help="the VM", complete="vm")
    port: int | None = word(port_number, help="the port to show at the VM's URL; omit to read it", default=None)


@command("share port", needs=Action.VM_SHARE, on=vm("vm"), examples=("share port demo", "share port demo 3000"))
async def port(ctx: Ctx, a: Port) -> ShareView:
    """Read or set the port behind a VM's URL; its visibility stays."""
    if a.port is None:
        return _view(ctx, a.vm, await ops.show(ctx.app, ctx.permit))
    return _view(ctx, a.vm, await ops.set_port(ctx.app, ctx.permit, a.port), status="updated")


@command("share set-public", needs=Action.VM_SHARE, on=vm("vm"), examples=("share set-public demo",))
async def set_public(ctx: Ctx, a: OneVm) -> ShareView:
    """Let anyone open a VM's port without signing in."""
    return _view(ctx, a.vm, await ops.set_visibility(ctx.app, ctx.permit, True), status="updated")


@command("share set-private", needs=Action.VM_SHARE, on=vm("vm"), examples=("share set-private demo",))
async def set_private(ctx: Ctx, a: OneVm) -> ShareView:
    """Close a VM's port to everyone but you; bites on the next request."""
    return _view(ctx, a.vm, await ops.set_visibility(ctx.app, ctx.permit, False), status="updated")


ALL = (show, port, set_public, set_private)
