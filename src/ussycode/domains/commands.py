"""Commands about domains."""
from __future__ import annotations

from dataclasses import dataclass

from ussycode.access.actions import Action
from ussycode.cmdline.spec import ACCOUNT, command, switch, vm, word
from ussycode.domains import names, ops
from ussycode.domains.names import Domain
from ussycode.domains.views import AddView, DomainsView, RemoveView
from ussycode.ports import Ctx
from ussycode.vms.commands import target


@dataclass(frozen=True)
class Add:
    """Arguments of `domain add`."""

    vm: str = word(target, help="the VM", complete="vm")
    domain: Domain = word(  # noqa: RUF009 - a declaration, made once for all
        names.parse, help="app.example.com, or '*.app.example.com' for every name below it",
    )
    wildcard: bool = switch(help="the domain and every name one label below it")


@command("domain add", needs=Action.VM_SHARE, on=vm("vm"),
         examples=("domain add demo app.example.com", "domain add demo '*.app.example.com'",
                   "domain add --wildcard demo app.example.com"))
async def add(ctx: Ctx, a: Add) -> AddView:
    """Serve a VM at a domain of yours, once DNS proves that it is.

    Lead the domain to the VM's own host with a CNAME record first, or to the platform with A and AAAA; or keep it
    elsewhere and prove it by a TXT record. What is missing is said. Names with `*` need a CNAME record for
    certificates, which is shown. Who may open the VM stays as it is: sharing counts on every address.
    """
    await ctx.talk.progress(f"asking DNS about {a.domain}")
    return AddView(a.vm, await ops.add(ctx.app, ctx.permit, a.domain, a.wildcard), ctx.app.config)


@dataclass(frozen=True)
class Remove:
    """Arguments of `domain rm`."""

    vm: str = word(target, help="the VM", complete="vm")
    domain: Domain = word(names.parse, help="the domain, as domain ls shows it")  # noqa: RUF009 - a declaration


@command("domain rm", needs=Action.VM_SHARE, on=vm("vm"), aliases=("domain remove",),
         examples=("domain rm demo app.example.com",))
async def rm(ctx: Ctx, a: Remove) -> RemoveView:
    """Stop serving a VM at a domain; bites on the next request."""
    gone = await ops.remove(ctx.app, ctx.permit, a.domain)
    return RemoveView(a.vm, gone.shown)


@dataclass(frozen=True)
class List:
    """Arguments of `domain ls`."""

    vm: str | None = word(target, help="the VM; all of yours when omitted", default=None, complete="vm")
    all: bool = switch(help="of all your VMs", short="a")


@command("domain ls", needs=Action.VM_LIST, on=ACCOUNT, reads_only=True, aliases=("domain list",),
         examples=("domain ls demo", "domain ls -a"))
async def ls(ctx: Ctx, a: List) -> DomainsView:
    """List domains, what proves them, and the DNS records that do."""
    found = ops.mine(ctx.app, ctx.permit) if a.vm is None or a.all else ops.of_vm(ctx.app, ctx.permit, a.vm)
    return DomainsView(tuple(await found), ctx.app.config)


ALL = (add, rm, ls)
