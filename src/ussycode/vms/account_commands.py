"""Commands about the account's room and its defaults, and the one that explains a VM's state."""
from __future__ import annotations

from dataclasses import dataclass

from ussycode.access.actions import Action
from ussycode.base.clock import rfc3339
from ussycode.base.errors import ErrorCode, Kind, printable
from ussycode.cmdline.render import Style, table
from ussycode.cmdline.spec import ACCOUNT, command, vm, word
from ussycode.ports import Ctx
from ussycode.vms import defaults, ops, policy, why
from ussycode.vms.commands import OneVm
from ussycode.vms.documents import DefaultsDocument, QuotaDocument, WhyDocument

NOTHING_GIVEN = ErrorCode(
    "defaults.nothing_given", Kind.USAGE, "there is nothing to write: standard input is empty",
    hint="pipe it in, or forget the default: defaults delete dev.exe {key}",
)
KEYS = "|".join(defaults.KEYS)
"""What Tab offers for a key."""


@dataclass(frozen=True)
class Nothing:
    """No arguments."""


@dataclass(frozen=True)
class QuotaView:
    """What an account has and may have; a limit of None is none."""

    rows: tuple[tuple[str, int, int | None, str], ...]

    def text(self, style: Style) -> str:
        """A table."""
        shown = [[what, str(used), "no limit" if limit is None else str(limit), counts]
                 for what, used, limit, counts in self.rows]
        return table(["WHAT", "USED", "LIMIT", "COUNTS"], shown, style)

    def document(self) -> QuotaDocument:
        """The document of `quota`."""
        return {"quota": {what: {"used": used, "limit": limit, "counts": counts}
                          for what, used, limit, counts in self.rows}}


@command("quota", needs=Action.ACCOUNT_READ, on=ACCOUNT, reads_only=True, examples=("quota",))
async def quota(ctx: Ctx, a: Nothing) -> QuotaView:
    """Show what you use and what you may use."""
    usage = await ops.usage(ctx.app, ctx.permit)
    role = ctx.caller.role
    limits = policy.LIMITS[role]
    return QuotaView((
        ("vms", usage.vms, limits.vms, "VMs that are not in the trash"),
        ("vcpus", usage.largest, policy.MAX_VCPUS[role], "CPUs of your largest VM"),
        ("memory_mib", usage.memory_mib, limits.memory_mib, "memory of VMs that run"),
        ("disk_gib", usage.disk_gib, limits.disk_gib, "disks, not snapshots; the trash's too, which gives way"),
    ))


@dataclass(frozen=True)
class Read:
    """Arguments of `defaults read`."""

    space: str = word(str, complete="dev.exe|", help="always dev.exe", default=defaults.SPACE)
    key: str | None = word(str, help="one key; all when omitted", default=None, complete=KEYS)


@dataclass(frozen=True)
class Write:
    """Arguments of `defaults write`."""

    space: str = word(str, complete="dev.exe|", help="always dev.exe")
    key: str = word(
        str, help="new.setup-script, new.env, new.image, new.memory, new.cpu, new.disk or new.file:PATH", complete=KEYS
    )
    value: str | None = word(str, help="the value; read from standard input when omitted", default=None)


@dataclass(frozen=True)
class Delete:
    """Arguments of `defaults delete`."""

    space: str = word(str, complete="dev.exe|", help="always dev.exe")
    key: str = word(str, help="the key", complete=KEYS)


@dataclass(frozen=True)
class DefaultsView:
    """Defaults by key."""

    values: dict[str, str]

    def text(self, style: Style) -> str:
        """A line for each, long ones cut."""
        lines = [f"{key}: {printable(value.replace(chr(10), ' '), 70)}" for key, value in self.values.items()]
        return "\n".join(lines) or "no defaults"

    def document(self) -> DefaultsDocument:
        """The document of `defaults`."""
        return {"defaults": self.values}


@command("defaults read", needs=Action.ACCOUNT_READ, on=ACCOUNT, reads_only=True,
         examples=("defaults read", "defaults read dev.exe new.setup-script"))
async def defaults_read(ctx: Ctx, a: Read) -> DefaultsView:
    """Show what your new VMs get when you say nothing else."""
    found = await defaults.read(ctx.app, ctx.permit)
    return DefaultsView(found if a.key is None else {k: v for k, v in found.items() if k == a.key})


@command("defaults write", needs=Action.ACCOUNT_CHANGE, on=ACCOUNT,
         examples=("defaults write dev.exe new.env EDITOR=vim",
                   "defaults write dev.exe new.file:~/AGENTS.md < AGENTS.md"))
async def defaults_write(ctx: Ctx, a: Write) -> DefaultsView:
    """Choose what your new VMs get when you say nothing else. new.env takes a KEY=VALUE a line.

    new.file:PATH is a file that every new VM gets, below ~/ of its login user or at a place that user may write to.
    """
    value = a.value
    if value is None or value in ("-", "/dev/stdin"):
        value = (await ctx.talk.read_stdin(defaults.MAX_VALUE + 1)).decode(errors="replace")
        if not value:
            raise NOTHING_GIVEN(key=a.key)
    return DefaultsView(await defaults.write(ctx.app, ctx.permit, a.key, value))


@command("defaults delete", needs=Action.ACCOUNT_CHANGE, on=ACCOUNT, examples=("defaults delete dev.exe new.env",))
async def defaults_delete(ctx: Ctx, a: Delete) -> DefaultsView:
    """Forget a default."""
    return DefaultsView(await defaults.write(ctx.app, ctx.permit, a.key, None))


@dataclass(frozen=True)
class WhyView:
    """Why a VM is as it is."""

    found: why.Why

    def text(self, style: Style) -> str:
        """The state in words, what happened, the console's end, what to do."""
        found = self.found
        parts = [f"{style.paint(found.name, 'bold')} is {found.status}: {printable(found.sentence, 500)}"]
        if found.events:
            parts += ["", "what happened:", *(f"  {rfc3339(at)}  {printable(what)}" for at, what in found.events)]
        if found.console:
            parts += ["", "the console's last lines:", *(f"  {line}" for line in found.console.splitlines()[-20:])]
        return "\n".join([*parts, "", f"what to do: {found.advice}"])

    def document(self) -> WhyDocument:
        """The document of `why`."""
        found = self.found
        return {
            "vm_name": found.name, "status": found.status, "why": found.sentence, "console": found.console,
            "events": [{"at": rfc3339(at), "what": what} for at, what in found.events], "advice": found.advice,
        }


@command("why", needs=Action.VM_READ, on=vm("vm"), reads_only=True, aliases=("vm-logs",), examples=("why demo",))
async def why_command(ctx: Ctx, a: OneVm) -> WhyView:
    """Explain a VM's state: what happened last, what its console said, what to do."""
    return WhyView(await why.explain(ctx.app, ctx.permit))


ALL = (quota, defaults_read, defaults_write, defaults_delete, why_command)
