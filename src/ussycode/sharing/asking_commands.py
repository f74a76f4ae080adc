"""Commands about who asks to be let in."""
from __future__ import annotations

from dataclasses import dataclass

from ussycode.access.actions import Action
from ussycode.access.facts import Level
from ussycode.base.clock import rfc3339
from ussycode.base.errors import printable
from ussycode.cmdline.render import Style, table
from ussycode.cmdline.span import life
from ussycode.cmdline.spec import ACCOUNT, command, flag, vm, word
from ussycode.ports import Ctx
from ussycode.sharing import asking, places, words
from ussycode.sharing.documents import RequestDocument, RequestsDocument
from ussycode.sharing.model import effective
from ussycode.sharing.requests import Waiting
from ussycode.sharing.views import AddedView
from ussycode.vms.commands import target


@dataclass(frozen=True)
class Nothing:
    """No arguments."""


@dataclass(frozen=True)
class RequestsView:
    """Requests that wait, or a sentence about one that was declined."""

    waiting: tuple[Waiting, ...]
    said: str = ""

    def text(self, style: Style) -> str:
        """A table, and how to answer."""
        if self.said:
            return self.said
        if not self.waiting:
            return "nobody asks for a VM of yours"
        rows = [[w.vm_name, str(w.request.port or "primary"), w.handle, w.email or "-",
                 rfc3339(w.request.created_at)[:16].replace("T", " "), printable(w.request.message, 60)]
                for w in self.waiting]
        first = self.waiting[0]
        return table(["VM", "PORT", "WHO", "ADDRESS", "ASKED", "MESSAGE"], rows, style) + \
            f"\nanswer with: share approve {first.vm_name} {first.handle}, or share decline …"

    def document(self) -> RequestsDocument:
        """The document of `share requests`."""
        return {"requests": [_item(w) for w in self.waiting]}


def _item(waiting: Waiting) -> RequestDocument:
    request = waiting.request
    item: RequestDocument = {
        "vm_name": waiting.vm_name, "handle": waiting.handle, "email": waiting.email, "message": request.message,
        "asked_at": rfc3339(request.created_at), "expires_at": rfc3339(request.expires),
    }
    if request.port:
        item["port"] = request.port
    return item


@command("share requests", needs=Action.VM_LIST, on=ACCOUNT, reads_only=True, examples=("share requests",))
async def requests(ctx: Ctx, a: Nothing) -> RequestsView:
    """List who asks to be let into VMs of yours."""
    limited = bool(ctx.caller.tag)  # such a key answers nobody
    return RequestsView(() if limited else tuple(await asking.waiting(ctx.app, ctx.permit.actor)))


@dataclass(frozen=True)
class Approve:
    """Arguments of `share approve`."""

    vm: str = word(target, help="the VM", complete="vm")
    who: str = word(words.person, help="the handle or e-mail address that share requests lists")
    expires: int | None = flag(life, help="how long: 12h, 30d, 1y or never; for ever when omitted")


@command("share approve", needs=Action.VM_SHARE, on=vm("vm"),
         examples=("share approve demo friend", "share approve demo friend --expires 7d"))
async def approve(ctx: Ctx, a: Approve) -> AddedView:
    """Let somebody in who asked for it: they may open the port that they asked for, and nothing else."""
    added = await asking.approve(ctx.app, ctx.permit, a.who, a.expires)
    port = effective(added.share.port, added.vm.primary_port)
    url = places.url(ctx.app.config, added.vm.name, port, added.vm.primary_port)
    hint = "they are told by mail" if added.mailed else "they have no address to be told at"
    return AddedView(a.vm, url, added, added.share.level is Level.SHELL, hint)


@dataclass(frozen=True)
class Decline:
    """Arguments of `share decline`."""

    vm: str = word(target, help="the VM", complete="vm")
    who: str = word(words.person, help="the handle or e-mail address that share requests lists")


@command("share decline", needs=Action.VM_SHARE, on=vm("vm"), examples=("share decline demo friend",))
async def decline(ctx: Ctx, a: Decline) -> RequestsView:
    """Say no to somebody who asked; they are not told, and for 30 days they ask in vain."""
    gone = await asking.decline(ctx.app, ctx.permit, a.who)
    return RequestsView((gone,), f"{gone.handle} is not let into {a.vm}, and not told so")


ALL = (requests, approve, decline)
