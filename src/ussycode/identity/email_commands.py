"""Commands about e-mail addresses, browser sessions and invitations."""
from __future__ import annotations

from dataclasses import dataclass

from ussycode.access.actions import Action
from ussycode.base.clock import rfc3339
from ussycode.base.errors import printable
from ussycode.cmdline.render import Style, table
from ussycode.cmdline.spec import ACCOUNT, command, word
from ussycode.identity import emails
from ussycode.identity.addresses import Address
from ussycode.identity.documents import AddressesDocument, InvitedDocument, SessionsDocument
from ussycode.identity.model import Session
from ussycode.ports import Ctx

OUTBOX = "\nthis platform sends no mail yet: its operator reads it with `ussycode outbox`"


@dataclass(frozen=True)
class Nothing:
    """No arguments."""


@dataclass(frozen=True)
class OneAddress:
    """Arguments of commands on one address."""

    address: str = word(str, help="an e-mail address")


@dataclass(frozen=True)
class Verify:
    """Arguments of `email verify`."""

    address: str = word(str, help="the address")
    code: str = word(str, help="the six digits that were mailed to it")


@dataclass(frozen=True)
class AddressesView:
    """The caller's addresses; `primary` is the one that apps are told."""

    addresses: tuple[Address, ...]
    primary: str
    said: str = ""

    def text(self, style: Style) -> str:
        """A sentence after a change, else a table."""
        if self.said:
            return self.said
        if not self.addresses:
            return "no addresses yet: email add name@example.org"
        rows = [[a.address, "yes" if a.verified_at else "no", "*" if a.address == self.primary else ""]
                for a in self.addresses]
        return table(["ADDRESS", "VERIFIED", "PRIMARY"], rows, style)

    def document(self) -> AddressesDocument:
        """The document of `email`."""
        return {"email": self.primary, "addresses": [
            {"address": a.address, "verified": bool(a.verified_at), "primary": a.address == self.primary}
            for a in self.addresses
        ]}


async def _view(ctx: Ctx, said: str = "") -> AddressesView:
    found, primary = await emails.mine(ctx.app, ctx.permit)
    return AddressesView(tuple(found), primary, said)


@command("email ls", needs=Action.ACCOUNT_READ, on=ACCOUNT, reads_only=True, aliases=("email list",))
async def ls(ctx: Ctx, a: Nothing) -> AddressesView:
    """List your e-mail addresses."""
    return await _view(ctx)


@command("email add", needs=Action.ACCOUNT_CHANGE, on=ACCOUNT, examples=("email add me@example.org",))
async def add(ctx: Ctx, a: OneAddress) -> AddressesView:
    """Add an address; a code is mailed to it."""
    pending = await emails.add(ctx.app, ctx.permit, a.address)
    where = "" if ctx.app.config.smtp_host else OUTBOX
    return await _view(ctx, f"a code is on its way; then: email verify {pending.address} CODE{where}")


@command("email verify", needs=Action.ACCOUNT_CHANGE, on=ACCOUNT, examples=("email verify me@example.org 123456",))
async def verify(ctx: Ctx, a: Verify) -> AddressesView:
    """Prove an address with the code that was mailed to it."""
    return await _view(ctx, f"{await emails.verify(ctx.app, ctx.permit, a.address, a.code)} is verified")


@command("email rm", needs=Action.ACCOUNT_CHANGE, on=ACCOUNT, aliases=("email remove",),
         examples=("email rm me@example.org",))
async def rm(ctx: Ctx, a: OneAddress) -> AddressesView:
    """Remove an address; what was shared with it is yours no more."""
    return await _view(ctx, f"{await emails.remove(ctx.app, ctx.permit, a.address)} is removed")


@command("email primary", needs=Action.ACCOUNT_CHANGE, on=ACCOUNT, examples=("email primary me@example.org",))
async def primary(ctx: Ctx, a: OneAddress) -> AddressesView:
    """Choose the verified address that apps are told."""
    return await _view(ctx, f"apps are told {await emails.choose(ctx.app, ctx.permit, a.address)}")


@dataclass(frozen=True)
class InvitedView:
    """An address that may make an account. `outbox` when its mail waits there."""

    address: str
    outbox: bool

    def text(self, style: Style) -> str:
        """One line, and where the mail is when nothing sends it."""
        return f"{self.address} is invited" + (OUTBOX if self.outbox else "")

    def document(self) -> InvitedDocument:
        """The document of `invite`."""
        return {"status": "invited", "email": self.address}


@command("invite", needs=Action.INVITE, on=ACCOUNT, examples=("invite friend@example.org",))
async def invite(ctx: Ctx, a: OneAddress) -> InvitedView:
    """Let somebody with this address make an account; for admins."""
    return InvitedView(await emails.invite(ctx.app, ctx.permit, a.address), not ctx.app.config.smtp_host)


@dataclass(frozen=True)
class SessionsView:
    """Browser sessions, or a sentence about those that ended."""

    sessions: tuple[Session, ...]
    said: str = ""

    def text(self, style: Style) -> str:
        """A sentence after a change, else a table."""
        if self.said or not self.sessions:
            return self.said or "no browser is signed in; browser makes a link"
        rows = [[s.name, rfc3339(s.created_at)[:16], rfc3339(s.last_used)[:16], rfc3339(s.expires)[:10],
                 printable(s.agent, 60)] for s in self.sessions]
        return table(["SESSION", "SIGNED IN", "LAST USED", "ENDS", "BROWSER"], rows, style)

    def document(self) -> SessionsDocument:
        """The document of `browser --list`."""
        return {"sessions": [
            {"id": s.name, "created_at": rfc3339(s.created_at), "last_used_at": rfc3339(s.last_used),
             "expires_at": rfc3339(s.expires), "agent": s.agent} for s in self.sessions
        ]}


ALL = (ls, add, verify, rm, primary, invite)
