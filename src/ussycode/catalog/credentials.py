"""Commands about what lets the caller in: SSH keys, tokens and browsers together."""
from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import urlencode

from ussycode.access.actions import Action
from ussycode.access.decide import decide
from ussycode.access.facts import Facts, VmFacts
from ussycode.base.clock import Clock
from ussycode.base.errors import Failure, printable
from ussycode.cmdline.span import life
from ussycode.cmdline.spec import ACCOUNT, command, flag, switch, word
from ussycode.identity import links, sessions
from ussycode.identity import ops as identity
from ussycode.identity.commands import KeysView, LinkView, key_tag
from ussycode.identity.email_commands import SessionsView
from ussycode.ports import Ctx
from ussycode.sharing import ops as sharing
from ussycode.tokens import ops as tokens
from ussycode.tokens.payload import MAX_COMMAND
from ussycode.tokens.verify import MAX_TOKEN, Place, TokenVerifier
from ussycode.tokens.views import AccessView, RevokedView, TokenView
from ussycode.vms import ops as vms
from ussycode.vms.commands import target

DEFAULT_LIFE = 30 * 86_400
"""Seconds that a token lives when nothing is said."""


def label(text: str) -> str:
    """A token's label."""
    if not 0 < len(text) <= 60 or printable(text) != text or text.startswith(("SHA256:", "token:")):
        raise ValueError("1 to 60 printable characters")
    return text


def command_paths(text: str) -> frozenset[str]:
    """Commands by their paths, comma-separated; `ssh demo` allows that one VM."""
    paths = frozenset(" ".join(path.strip(" '\"").split()) for path in text.split(","))
    if "" in paths or any(len(path) > MAX_COMMAND for path in paths):
        raise ValueError("write commands with commas between them, for example ls,share show")
    return paths


@dataclass(frozen=True)
class Nothing:
    """No arguments."""


@command("ssh-key list", needs=Action.ACCOUNT_READ, on=ACCOUNT, reads_only=True, aliases=("ssh-key ls",))
async def key_list(ctx: Ctx, a: Nothing) -> AccessView:
    """List your SSH keys and tokens, with when each was used last."""
    keys = KeysView(tuple(await identity.list_keys(ctx.app, ctx.permit)), ctx.caller.key)
    handles, revoked = await tokens.mine(ctx.app, ctx.permit)
    names = await sharing.names_of(ctx.app, [h.vm for h in handles if h.vm])
    return AccessView(keys, tuple(handles), names, revoked)


@dataclass(frozen=True)
class RemoveKey:
    """Arguments of `ssh-key remove`."""

    key: tuple[str, ...] = word(str, help="name, fingerprint or public key; a token's label works too", many=True)


@command("ssh-key remove", needs=Action.ACCOUNT_CHANGE, on=ACCOUNT, aliases=("ssh-key rm",),
         examples=("ssh-key remove laptop", "ssh-key remove token-1"))
async def key_remove(ctx: Ctx, a: RemoveKey) -> KeysView | RevokedView:
    """Forget an SSH key; its tokens and your browser sign-ins end with it. A token's label ends that token alone."""
    which = " ".join(a.key)
    try:
        gone = await identity.remove_key(ctx.app, ctx.permit, which)
    except Failure as failure:
        ended = await tokens.revoke(ctx.app, ctx.permit, which) if failure.error is identity.NO_SUCH_KEY else None
        if ended is None:
            raise
        return RevokedView(ended.label)
    return KeysView((gone,), ctx.caller.key, f"removed {gone.name} ({gone.fingerprint})")


@dataclass(frozen=True)
class Generate:
    """Arguments of `ssh-key generate-api-key`."""

    label: str | None = flag(label, help="what it is listed by; token-N when omitted")
    vm: str | None = flag(target, help="a token for this VM's HTTPS alone, not for commands", complete="vm")
    cmds: frozenset[str] | None = flag(command_paths, help="commands it may run, for example ls,share show")
    exp: int | None = flag(life, help="12h, 30d, 1y or never; 30d when omitted")
    tag: str = flag(key_tag, help="only for VMs with this tag", default="")


@command("ssh-key generate-api-key", needs=Action.TOKEN_CREATE, on=ACCOUNT,
         examples=("ssh-key generate-api-key --label ci --cmds ls,new,ssh --exp 90d",
                   "ssh-key generate-api-key --vm demo"))
async def generate(ctx: Ctx, a: Generate) -> TokenView:
    """Make a token for scripts; it is shown once and ends with the SSH key you made it with."""
    vm = await _opened(ctx, a.vm)
    wish = tokens.Wish(a.label, vm.vm if vm else "", a.cmds, _expires(ctx.app.clock, a.exp), a.tag)
    token, handle = await tokens.generate(ctx.app, ctx.permit, wish)
    return TokenView(token, handle, _place(ctx, vm).namespace)


@dataclass(frozen=True)
class Convert:
    """Arguments of `usy0-to-usy1`."""

    token: str | None = word(str, help="the signed token; read from standard input when omitted", default=None)
    vm: str | None = flag(target, help="the VM it was signed for", complete="vm")


@command("usy0-to-usy1", needs=Action.TOKEN_CREATE, on=ACCOUNT, aliases=("exe0-to-exe1",),
         examples=("usy0-to-usy1 usy0.…", "usy0-to-usy1 --vm demo usy0.…"))
async def convert(ctx: Ctx, a: Convert) -> TokenView:
    """Trade a signed token for a short one that means the same and ends with the same key."""
    vm = await _opened(ctx, a.vm)
    place = _place(ctx, vm)
    token, handle = await tokens.convert(ctx.app, ctx.permit, TokenVerifier(ctx.app), await _token(ctx, a.token), place)
    return TokenView(token, handle, place.namespace)


@command("ssh-key revoke-token", needs=Action.ACCOUNT_CHANGE, on=ACCOUNT,
         examples=("ssh-key revoke-token usy0.…", "ssh-key revoke-token usy1.…"))
async def revoke(ctx: Ctx, a: Convert) -> RevokedView:
    """Refuse one token from now on; the key that signed it stays."""
    token = await _token(ctx, a.token)
    ended = await tokens.revoke(ctx.app, ctx.permit, token)
    if ended is not None:
        return RevokedView(ended.label)
    place = _place(ctx, await _opened(ctx, a.vm))
    await tokens.revoke_signed(ctx.app, ctx.permit, TokenVerifier(ctx.app), token, place)
    return RevokedView(f"the signed token {token[:12]}…")


@dataclass(frozen=True)
class Browser:
    """Arguments of `browser`."""

    vm: str | None = word(target, help="the VM to open; the dashboard when omitted", complete="vm", default=None)
    qr: bool = switch(help="draw the link as a QR code")
    list: bool = switch(help="list the browsers that are signed in")
    revoke: str | None = flag(str, help="end one of them, by its name in the list")


@command("browser", needs=Action.SESSION_CREATE, on=ACCOUNT, examples=("browser", "browser demo", "browser --qr"))
async def browser(ctx: Ctx, a: Browser) -> LinkView | SessionsView:
    """Print a link that signs a browser in as you and opens a VM; or list the browsers that are, and end one."""
    if a.revoke is not None:
        gone = await sessions.revoke(ctx.app, ctx.permit, a.revoke)
        return SessionsView((), f"{gone.name} is signed out everywhere")
    if a.list:
        return SessionsView(tuple(await sessions.mine(ctx.app, ctx.permit)))
    config, vm = ctx.app.config, await _opened(ctx, a.vm, Action.VM_OPEN)
    where = f"?{urlencode({'host': config.vm_host(vm.name), 'path': '/'})}" if vm else ""
    code = await links.make_link(ctx.app, ctx.permit)
    return LinkView(f"{config.host_url(config.domain)}login/{code}{where}", a.qr)


async def _token(ctx: Ctx, given: str | None) -> str:
    if given is not None and given not in ("-", "/dev/stdin"):
        return given
    return (await ctx.talk.read_stdin(MAX_TOKEN + 1)).decode(errors="replace").strip()


async def _opened(ctx: Ctx, name: str | None, action: Action = Action.VM_TOKEN) -> VmFacts | None:
    """The VM that an option names. Raises NO_SUCH_VM for one that the caller may not even see."""
    if name is None:
        return None
    found = await sharing.facts_of(ctx.app, name)
    facts = Facts(ctx.caller, found, found.primary_port if found else None, now=ctx.app.clock.now())
    if found is None or not decide(action, facts).allowed:
        raise vms.NO_SUCH_VM(name=name)
    return found


def _place(ctx: Ctx, vm: VmFacts | None) -> Place:
    domain = ctx.app.config.domain
    return Place(f"v0@{domain}") if vm is None else Place(f"v0@{vm.name}.{domain}", vm.vm)


def _expires(clock: Clock, wanted: int | None) -> int | None:
    seconds = DEFAULT_LIFE if wanted is None else wanted
    return int(clock.now()) + seconds if seconds else None


ALL = (browser, key_list, key_remove, generate, convert, revoke)
