"""The command that lets a VM take mail."""
from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, NotRequired, TypedDict, cast

from ussycode.access.actions import Action
from ussycode.cmdline.render import Style
from ussycode.cmdline.spec import command, vm, word
from ussycode.config import Config
from ussycode.ports import Ctx
from ussycode.sharing import mailbox, places
from ussycode.vms.commands import target
from ussycode.vms.lifecycle_commands import on_off
from ussycode.vms.model import STOPPED, Mailbox


class MailboxDocument(TypedDict):
    """`share receive-email`. `status` after a change; `email_stopped` says why the platform turned it off."""

    vm_name: str
    email_enabled: bool
    email_address: str
    reply_policy: Literal["none"]
    status: NotRequired[Literal["success"]]
    email_stopped: NotRequired[str]


@dataclass(frozen=True)
class MailboxView:
    """Whether a VM takes mail, and at which address."""

    config: Config
    vm_name: str
    mailbox: Mailbox
    changed: bool

    def text(self, style: Style) -> str:
        """What happens to mail, and what to do about it."""
        on = f"share receive-email {self.vm_name} on"
        if self.mailbox is Mailbox.FULL:
            return f"{self.vm_name} takes no mail any more: {STOPPED}\n  read or move them, then: {on}"
        if self.mailbox is Mailbox.OFF:
            return f"{self.vm_name} takes no mail; turn it on with: {on}"
        host = self.config.vm_host(self.vm_name)
        port = "" if self.config.mail_port == 25 else f"\n  senders have to know the port: {self.config.mail_port}"
        return f"{self.vm_name} takes mail: what is sent to anything@{host} lies in its ~/Maildir/new{port}"

    def document(self) -> MailboxDocument:
        """The document of `share receive-email`."""
        made: dict[str, Any] = {
            "vm_name": self.vm_name, "email_enabled": self.mailbox is Mailbox.ON,
            "email_address": places.mail_address(self.config, self.vm_name), "reply_policy": "none",
        }
        made |= {"status": "success"} if self.changed else {}
        made |= {"email_stopped": STOPPED} if self.mailbox is Mailbox.FULL else {}
        return cast(MailboxDocument, made)


@dataclass(frozen=True)
class Receive:
    """Arguments of `share receive-email`."""

    vm: str = word(target, help="the VM", complete="vm")
    state: bool | None = word(on_off, help="on or off; omit to read it", default=None, complete="on|off")


@command("share receive-email", needs=Action.VM_SHARE, on=vm("vm"),
         examples=("share receive-email demo", "share receive-email demo on"))
async def receive_email(ctx: Ctx, a: Receive) -> MailboxView:
    """Let a VM take mail into ~/Maildir/new of its login user, for any address at its host name; off unless turned on.

    Anybody may send, in anybody's name: nothing is checked. When 1000 mails lie unread there, it is turned off.
    """
    if a.state is None:
        return MailboxView(ctx.app.config, a.vm, await mailbox.read(ctx.app, ctx.permit), changed=False)
    return MailboxView(ctx.app.config, a.vm, await mailbox.turn(ctx.app, ctx.permit, a.state), changed=True)


ALL = (receive_email,)
