"""Commands about the caller: who they are, their keys, their browser."""
from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from ussycode.access.actions import Action
from ussycode.base.clock import rfc3339
from ussycode.base.errors import ErrorCode, Kind, printable
from ussycode.cmdline.qr import drawn
from ussycode.cmdline.render import Style, table
from ussycode.cmdline.spec import ACCOUNT, command, flag, switch, word
from ussycode.identity import email_commands, links, ops, passkey_commands, sessions
from ussycode.identity.documents import KeyDocument, KeysDocument, LinkDocument, WhoDocument
from ussycode.identity.email_commands import SessionsView
from ussycode.identity.keys import MAX_LINE, PublicKey, read_public_key
from ussycode.identity.model import SshKey
from ussycode.ports import Ctx

BAD_KEY = ErrorCode(
    "key.bad", Kind.USAGE, "that is not a public key: {why}",
    hint="give the line of a .pub file, or pipe it: cat ~/.ssh/id_ed25519.pub | ssh … ssh-key add",
)
NO_ONE_VM = ErrorCode("key.no_one_vm", Kind.USAGE, "{flag} is not offered: a key reaches VMs by their tag",
                      hint="tag DEMO shop; ssh-key add --tag shop KEY")
NO_TAG = ErrorCode("key.no_tag", Kind.USAGE, "name the tag, or use -d", hint="ssh-key tag {key} prod")


def key_name(text: str) -> str:
    """A key's name: up to 60 printable characters."""
    name = text.strip()
    if not name or len(name) > 60 or printable(name) != name:
        raise ValueError("1 to 60 printable characters")
    return name


def key_tag(text: str) -> str:
    """A tag as VMs carry them."""
    if not re.fullmatch(r"[a-z][a-z0-9_-]{0,62}", text):
        raise ValueError("a tag is a-z, then a-z, 0-9, _ and -")
    return text


@dataclass(frozen=True)
class Nothing:
    """No arguments."""


@dataclass(frozen=True)
class KeysView:
    """Keys of the caller; `current` is the fingerprint this call came with."""

    keys: tuple[SshKey, ...]
    current: str
    said: str = ""

    def text(self, style: Style) -> str:
        """A sentence after a change, else a table."""
        if self.said:
            return self.said
        rows = [[k.name, k.fingerprint, rfc3339(k.created_at)[:10], "*" if k.fingerprint == self.current else ""]
                for k in self.keys]
        return table(["NAME", "FINGERPRINT", "ADDED", "THIS"], rows, style)

    def items(self) -> list[KeyDocument]:
        """Keys as plain values."""
        return [self._item(k) for k in self.keys]

    def _item(self, key: SshKey) -> KeyDocument:
        item: KeyDocument = {
            "name": key.name, "public_key": key.public_key, "fingerprint": key.fingerprint,
            "current": key.fingerprint == self.current,
        }
        if key.tag:
            item["tag"] = key.tag
        if key.last_used:
            item["last_used_at"] = rfc3339(key.last_used)
        return item

    def document(self) -> KeysDocument:
        """The document of `ssh-key`."""
        return {"ssh_keys": self.items()}


@dataclass(frozen=True)
class WhoView:
    """Who the caller is."""

    user: str
    handle: str
    role: Literal["guest", "newbie", "citizen", "operator", "admin"]
    email: str
    keys: KeysView

    def text(self, style: Style) -> str:
        """A few lines."""
        mail = f"\n  email  {self.email}" if self.email else ""
        return f"{style.paint(self.handle, 'green')} ({self.role}){mail}\n  keys   {len(self.keys.keys)}"

    def document(self) -> WhoDocument:
        """The document of `whoami`."""
        return {
            "email": self.email, "region": "local", "region_display": "this host", "ssh_keys": self.keys.items(),
            "handle": self.handle, "trust_level": self.role, "user_id": self.user,
        }


@command("whoami", needs=Action.ACCOUNT_READ, on=ACCOUNT, reads_only=True, examples=("whoami --json",))
async def whoami(ctx: Ctx, a: Nothing) -> WhoView:
    """Show your handle, trust level and keys."""
    who = ctx.caller
    keys = KeysView(tuple(await ops.list_keys(ctx.app, ctx.permit)), who.key)
    return WhoView(who.user, who.handle, who.role.value, who.email, keys)


@dataclass(frozen=True)
class AddKey:
    """Arguments of `ssh-key add`."""

    public_key: tuple[str, ...] = word(
        str, help="the line of a .pub file; read from standard input when omitted", many=True, default=()
    )
    tag: str = flag(key_tag, help="it reaches VMs with this tag only, and changes nothing of yours", default="")
    vm: str = flag(str, help="not offered: give the VM a tag, and the key that tag", default="")
    ssh_user: str = flag(str, help="not offered, as it goes with --vm", default="")


@command("ssh-key add", needs=Action.ACCOUNT_CHANGE, on=ACCOUNT, examples=("ssh-key add ssh-ed25519 AAAA... laptop",))
async def key_add(ctx: Ctx, a: AddKey) -> KeysView:
    """Register another SSH key; its comment becomes its name."""
    if a.vm or a.ssh_user:
        raise NO_ONE_VM(flag="--vm" if a.vm else "--ssh-user")
    text = " ".join(a.public_key)
    if text in ("", "-", "/dev/stdin"):
        text = (await ctx.talk.read_stdin(MAX_LINE)).decode(errors="replace")
    key = _read(text)
    made = await ops.add_key(ctx.app, ctx.permit, key, key.comment or key.fingerprint[7:19], a.tag)
    return KeysView((made,), ctx.caller.key, f"added {made.name} ({made.fingerprint})")


def _read(text: str) -> PublicKey:
    try:
        return read_public_key(text)
    except ValueError as why:
        raise BAD_KEY(why=why) from None


@dataclass(frozen=True)
class RenameKey:
    """Arguments of `ssh-key rename`."""

    old_name: str = word(str, help="name or fingerprint")
    new_name: str = word(key_name, help="its new name")


@command("ssh-key rename", needs=Action.ACCOUNT_CHANGE, on=ACCOUNT, examples=("ssh-key rename laptop desk",))
async def key_rename(ctx: Ctx, a: RenameKey) -> KeysView:
    """Give an SSH key another name."""
    made = await ops.rename_key(ctx.app, ctx.permit, a.old_name, a.new_name)
    keys = {k.id: k for k in await ops.list_keys(ctx.app, ctx.permit)}
    return KeysView((keys.get(made.id, made),), ctx.caller.key, f"{a.old_name} is now {a.new_name}")


@dataclass(frozen=True)
class TagKey:
    """Arguments of `ssh-key tag`."""

    key: str = word(str, help="name or fingerprint")
    tag: str = word(key_tag, help="the tag; with -d none", default="")
    delete: bool = switch(help="let the key reach everything of yours again", short="d")


@command("ssh-key tag", needs=Action.ACCOUNT_CHANGE, on=ACCOUNT,
         examples=("ssh-key tag laptop prod", "ssh-key tag -d laptop"))
async def key_tag_command(ctx: Ctx, a: TagKey) -> KeysView:
    """Let an SSH key reach only VMs with one tag; with -d, everything of yours again."""
    if not a.tag and not a.delete:
        raise NO_TAG(key=a.key)
    made = await ops.tag_key(ctx.app, ctx.permit, a.key, "" if a.delete else a.tag)
    reach = f"VMs tagged {made.tag}" if made.tag else "everything of yours"
    return KeysView((made,), ctx.caller.key, f"{made.name} reaches {reach}")


@dataclass(frozen=True)
class LinkView:
    """A sign-in link."""

    url: str
    qr: bool

    def text(self, style: Style) -> str:
        """The link, and the code when asked for."""
        said = f"{self.url}\n(signs in the browser that opens it; once, within {links.LINK_SECONDS // 60} minutes)"
        return f"{drawn(self.url)}\n{said}" if self.qr else said

    def document(self) -> LinkDocument:
        """The document of `browser`."""
        return {"url": self.url, "expires_in": links.LINK_SECONDS}


@dataclass(frozen=True)
class Logout:
    """Arguments of `logout`."""

    all: bool = switch(help="end every browser session of yours; without it, leave the lobby")


@command("logout", needs=Action.SESSION_CREATE, on=ACCOUNT, examples=("logout", "logout --all"))
async def logout(ctx: Ctx, a: Logout) -> SessionsView:
    """Leave the lobby; with --all, sign every browser out first."""
    count = await sessions.sign_out_all(ctx.app, ctx.permit) if a.all else 0
    return SessionsView((), f"{count} browser sessions ended" if a.all else "goodbye")


ALL = (whoami, key_add, key_rename, key_tag_command, logout, *passkey_commands.ALL, *email_commands.ALL)
