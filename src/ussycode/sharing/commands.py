"""Commands about the ports of a VM: which one is its URL, and who may open them without signing in."""
from __future__ import annotations

from dataclasses import dataclass

from ussycode.access.actions import Action
from ussycode.cmdline.spec import command, flag, switch, vm, word
from ussycode.domains import ops as domains
from ussycode.ports import Ctx
from ussycode.sharing import mailbox, ops, places
from ussycode.sharing.model import Ports
from ussycode.sharing.views import ShareView, VisibilityView
from ussycode.sharing.words import port_number
from ussycode.vms.commands import target


def _view(ctx: Ctx, name: str, ports: Ports, port: int | None = None, status: str = "") -> VisibilityView:
    shown = port or ports.primary
    url = places.url(ctx.app.config, name, shown, ports.primary)
    return VisibilityView(name, shown, shown in ports.public, url, status)


@dataclass(frozen=True)
class Show:
    """Arguments of `share show`."""

    vm: str = word(target, help="the VM", complete="vm")
    qr: bool = switch(help="draw the URL as a QR code")


@command("share show", needs=Action.VM_SHARE, on=vm("vm"), reads_only=True, examples=("share show demo",))
async def show(ctx: Ctx, a: Show) -> ShareView:
    """Show who can reach a VM: its public ports, the people it is shared with, and its links."""
    ports, shares, links = await ops.everything(ctx.app, ctx.permit)
    served = await domains.served_of(ctx.app, ctx.permit)
    listening = await ops.listening(ctx.app, ctx.permit)
    return ShareView(
        ctx.app.config, a.vm, ports, tuple(shares), tuple(links), tuple(served), a.qr, listening=listening,
        mailbox=await mailbox.read(ctx.app, ctx.permit),
    )


@dataclass(frozen=True)
class Port:
    """Arguments of `share port`."""

    vm: str = word(target, help="the VM", complete="vm")
    port: int | None = word(port_number, help="the port to show at the VM's URL; omit to read it", default=None)


@command("share port", needs=Action.VM_SHARE, on=vm("vm"), examples=("share port demo", "share port demo 3000"))
async def port(ctx: Ctx, a: Port) -> VisibilityView:
    """Read or set the port behind a VM's URL; its visibility stays."""
    if a.port is None:
        return _view(ctx, a.vm, await ops.show(ctx.app, ctx.permit))
    return _view(ctx, a.vm, await ops.set_port(ctx.app, ctx.permit, a.port), status="updated")


@dataclass(frozen=True)
class Visibility:
    """Arguments of `share set-public` and `set-private`."""

    vm: str = word(target, help="the VM", complete="vm")
    port: int | None = flag(port_number, help="another port than the one behind the VM's URL")


@command("share set-public", needs=Action.VM_SHARE, on=vm("vm"),
         examples=("share set-public demo", "share set-public demo --port 3000"))
async def set_public(ctx: Ctx, a: Visibility) -> VisibilityView:
    """Let anyone open a VM's port without signing in; each port has a visibility of its own."""
    return _view(ctx, a.vm, await ops.set_visibility(ctx.app, ctx.permit, True, a.port), a.port, "updated")


@command("share set-private", needs=Action.VM_SHARE, on=vm("vm"), examples=("share set-private demo",))
async def set_private(ctx: Ctx, a: Visibility) -> VisibilityView:
    """Close a VM's port to everyone but you and whom you share it with; bites on the next request."""
    return _view(ctx, a.vm, await ops.set_visibility(ctx.app, ctx.permit, False, a.port), a.port, "updated")


ALL = (show, port, set_public, set_private)
