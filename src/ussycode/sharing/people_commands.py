"""Commands that share a VM with people and links."""
from __future__ import annotations

from dataclasses import dataclass

from ussycode.access.actions import Action
from ussycode.access.facts import PRIMARY, Level
from ussycode.cmdline.span import life
from ussycode.cmdline.spec import command, flag, switch, vm, word
from ussycode.ports import Ctx
from ussycode.sharing import links, people, places, words
from ussycode.sharing.model import effective
from ussycode.sharing.people import NO_TEAMS, Added
from ussycode.sharing.views import AddedView, LinkView, RemovedView
from ussycode.sharing.words import port_number
from ussycode.vms.commands import target


@dataclass(frozen=True)
class Add:
    """Arguments of `share add`."""

    vm: str = word(target, help="the VM", complete="vm")
    who: str = word(words.person, help="an e-mail address or a handle")
    root: bool = switch(help="a shell too, and with it every port")
    port: int | None = flag(port_number, help="this port instead of the one behind the VM's URL")
    expires: int | None = flag(life, help="how long: 12h, 30d, 1y or never; for ever when omitted")
    message: str = flag(words.message, help="a line of yours in the invitation", default="")
    qr: bool = switch(help="draw the URL as a QR code")


@command("share add", needs=Action.VM_SHARE, on=vm("vm"), examples=(
    "share add demo friend@example.org", "share add demo friend@example.org --root --expires 7d",
    "share add demo friend@example.org --port 3000 --message 'have a look'",
))
async def add(ctx: Ctx, a: Add) -> AddedView:
    """Share a VM's port with a person, after they sign in; with --root a shell too.

    An address that nobody here has proven yet is invited by mail, and the share is theirs once they sign in with it.
    Adding somebody again changes only what differs.
    """
    _require_person(a.vm, a.who)
    level = Level.SHELL if a.root else Level.WEB
    wish = people.Wish(a.who, level, a.port or PRIMARY, a.expires, a.message)
    added = await people.add(ctx.app, ctx.permit, wish)
    port = effective(added.share.port, added.vm.primary_port)
    url = places.url(ctx.app.config, added.vm.name, port, added.vm.primary_port)
    return AddedView(a.vm, url, added, a.root, _hint(ctx, added), a.qr)


def _hint(ctx: Ctx, added: Added) -> str:
    if not added.new:
        return ""
    if added.mailed and ctx.app.config.smtp_host:
        return f"an invitation is on its way to {added.who}"
    if added.mailed:
        return "this platform sends no mail yet: give them the address yourself; its operator reads the invitation " \
               "with `ussycode outbox`"
    return "they have no address to be told at: give them the URL"


@dataclass(frozen=True)
class Remove:
    """Arguments of `share remove`."""

    vm: str = word(target, help="the VM", complete="vm")
    who: str = word(words.person, help="the e-mail address or handle that share show lists")
    root: bool = switch(help="take back the shell only, and leave what it was shared for on the web")
    port: int | None = flag(port_number, help="take back this port only")


@command("share remove", needs=Action.VM_SHARE, on=vm("vm"), examples=(
    "share remove demo friend@example.org", "share remove demo friend@example.org --root",
))
async def remove(ctx: Ctx, a: Remove) -> RemovedView:
    """Take a VM back from a person, by whatever way they came to it; open pages and shells end at once."""
    _require_person(a.vm, a.who)
    who = await people.remove(ctx.app, ctx.permit, a.who, a.root, a.port)
    said = f"{who} has no shell in {a.vm} any more" if a.root else f"{a.vm} is not shared with {who} any more"
    return RemovedView(a.vm, who, said, a.root)


@dataclass(frozen=True)
class Access:
    """Arguments of `share access`."""

    allow: bool = word(words.grant, help="allow or disallow", complete="allow|disallow")
    vm: str = word(target, help="the VM", complete="vm")


@command("share access", needs=Action.VM_SHARE, on=vm("vm"), reads_only=True)
async def access(ctx: Ctx, a: Access) -> RemovedView:
    """Give your team a shell in a VM, or take it back; there are no teams so far."""
    raise NO_TEAMS(name=a.vm)


@dataclass(frozen=True)
class AddLink:
    """Arguments of `share add-link`."""

    vm: str = word(target, help="the VM", complete="vm")
    port: int | None = flag(port_number, help="this port instead of the one behind the VM's URL")
    label: str = flag(words.label, help="what share show tells it apart by", default="")
    expires: int = flag(life, help="how long it makes shares: 12h, 30d, 1y or never; for ever when omitted", default=0)
    max_uses: int = flag(words.uses, help="how many people may use it; any number when omitted", default=0)
    qr: bool = switch(help="draw the link as a QR code")


@command("share add-link", needs=Action.VM_SHARE, on=vm("vm"), aliases=("share add-share-link",),
         examples=("share add-link demo", "share add-link demo --expires 2d --max-uses 5 --label meetup --qr"))
async def add_link(ctx: Ctx, a: AddLink) -> LinkView:
    """Make a link that shares a VM's port with everyone who opens it and signs in.

    Each of them is listed by share show and stays until they are removed, also when the link's time is over.
    """
    wish = links.Wish(a.port or PRIMARY, a.label, a.expires, a.max_uses)
    token, link = await links.add(ctx.app, ctx.permit, wish)
    return LinkView(a.vm, token, places.link_url(ctx.app.config, a.vm, token), link, a.qr)


@dataclass(frozen=True)
class RemoveLink:
    """Arguments of `share remove-link`."""

    vm: str = word(target, help="the VM", complete="vm")
    link: str = word(words.link, help="the link's id or token")
    revoke: bool = switch(help="take the VM back from everyone who came through it, too")


@command("share remove-link", needs=Action.VM_SHARE, on=vm("vm"), aliases=("share remove-share-link",),
         examples=("share remove-link demo LINK", "share remove-link demo LINK --revoke"))
async def remove_link(ctx: Ctx, a: RemoveLink) -> RemovedView:
    """Stop a link; people who came through it stay, unless --revoke."""
    gone = await links.remove(ctx.app, ctx.permit, a.link, a.revoke)
    said = "Link removed"
    if a.revoke:
        said += f", and with it {gone} {'person' if gone == 1 else 'people'} who came through it"
    return RemovedView(a.vm, "", said)


def _require_person(name: str, who: str) -> None:
    if who == words.TEAM:
        raise NO_TEAMS(name=name)


ALL = (add, remove, access, add_link, remove_link)
