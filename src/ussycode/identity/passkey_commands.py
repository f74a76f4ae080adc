"""Commands about passkeys. They are made in a browser, because only a browser can talk to an authenticator."""
from __future__ import annotations

from dataclasses import dataclass

from ussycode.access.actions import Action
from ussycode.base.clock import rfc3339
from ussycode.base.errors import printable
from ussycode.cmdline.render import Style, table
from ussycode.cmdline.spec import ACCOUNT, command, word
from ussycode.identity import passkey_ops
from ussycode.identity.documents import PasskeyDocument, PasskeysDocument
from ussycode.identity.passkeys import Passkey
from ussycode.ports import Ctx

MAX_NAME = 40
"""Characters of a passkey's name."""


def passkey_name(text: str) -> str:
    """A passkey's name."""
    name = text.strip()
    if not 0 < len(name) <= MAX_NAME or printable(name) != name:
        raise ValueError(f"1 to {MAX_NAME} printable characters")
    return name


@dataclass(frozen=True)
class Nothing:
    """No arguments."""


@dataclass(frozen=True)
class PasskeysView:
    """Passkeys of the caller; `ended` counts sign-ins that a removal ended."""

    passkeys: tuple[Passkey, ...]
    page: str
    said: str = ""
    ended: int | None = None

    def text(self, style: Style) -> str:
        """A sentence after a change, else a table."""
        if self.said:
            return self.said
        if not self.passkeys:
            return f"no passkeys yet; make one in a browser: {self.page}"
        rows = [[p.name, rfc3339(p.created_at)[:10], rfc3339(p.last_used)[:16] if p.last_used else "never",
                 "blocked: a copy was seen" if p.blocked else "synced" if p.synced else "one device"]
                for p in self.passkeys]
        return table(["NAME", "ADDED", "LAST USED", "KIND"], rows, style)

    def document(self) -> PasskeysDocument:
        """The document of `passkey`."""
        made: PasskeysDocument = {"passkeys": [_item(p) for p in self.passkeys]}
        if self.ended is not None:
            made["sessions_ended"] = self.ended
        return made


def _item(passkey: Passkey) -> PasskeyDocument:
    item: PasskeyDocument = {
        "name": passkey.name, "created_at": rfc3339(passkey.created_at), "synced": passkey.synced,
        "blocked": passkey.blocked,
    }
    if passkey.last_used:
        item["last_used_at"] = rfc3339(passkey.last_used)
    return item


def _page(ctx: Ctx) -> str:
    return ctx.app.config.host_url(ctx.app.config.domain) + "passkeys"


@command("passkey list", needs=Action.ACCOUNT_READ, on=ACCOUNT, reads_only=True, aliases=("passkey ls",))
async def passkey_list(ctx: Ctx, a: Nothing) -> PasskeysView:
    """List the passkeys that sign browsers in as you."""
    return PasskeysView(tuple(await passkey_ops.mine(ctx.app, ctx.permit)), _page(ctx))


@dataclass(frozen=True)
class RenamePasskey:
    """Arguments of `passkey rename`."""

    old_name: str = word(str, help="its name")
    new_name: str = word(passkey_name, help="its new name")


@command("passkey rename", needs=Action.ACCOUNT_CHANGE, on=ACCOUNT, examples=("passkey rename passkey-1 phone",))
async def passkey_rename(ctx: Ctx, a: RenamePasskey) -> PasskeysView:
    """Give a passkey another name."""
    made = await passkey_ops.rename(ctx.app, ctx.permit, a.old_name, a.new_name)
    return PasskeysView((made,), _page(ctx), f"{a.old_name} is now {made.name}")


@dataclass(frozen=True)
class RemovePasskey:
    """Arguments of `passkey remove`."""

    name: str = word(str, help="its name")


@command("passkey remove", needs=Action.ACCOUNT_CHANGE, on=ACCOUNT, aliases=("passkey rm",),
         examples=("passkey remove phone",))
async def passkey_remove(ctx: Ctx, a: RemovePasskey) -> PasskeysView:
    """Forget a passkey; browsers that it signed in are signed out."""
    gone, ended = await passkey_ops.remove(ctx.app, ctx.permit, a.name)
    browsers = {0: "", 1: "; one browser is signed out"}.get(ended, f"; {ended} browsers are signed out")
    return PasskeysView((gone,), _page(ctx), f"removed {gone.name}{browsers}", ended)


ALL = (passkey_list, passkey_rename, passkey_remove)
