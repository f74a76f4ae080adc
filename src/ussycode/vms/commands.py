"""Commands about VMs, one declaration each."""
from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from ussycode.access.actions import Action
from ussycode.base import names
from ussycode.base.errors import ErrorCode, Failure, Kind, printable
from ussycode.cmdline.spec import ACCOUNT, command, flag, rest, switch, vm, word
from ussycode.ports import Attach, Ctx
from ussycode.runtime.driver import Egress, Isolation
from ussycode.vms import ops, samples, waking
from ussycode.vms.lifecycle import MAX_COMMENT
from ussycode.vms.model import Vm
from ussycode.vms.views import ListView, RemoveView, RenameView, RestartView, VmPlace, WatchView

IMAGE = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9._/:@-]{0,254}")
FLAG_NOT_OFFERED = ErrorCode("new.flag_not_offered", Kind.FAILED, "{flag} is not offered: {why}", hint="leave it out")
MAX_COMMAND = 4096
"""Characters of `--command`."""
ENV_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,127}")


def env_pair(text: str) -> tuple[str, str]:
    """`KEY=VALUE`; the value may hold anything but NUL."""
    name, equals, value = text.partition("=")
    if not equals or not ENV_NAME.fullmatch(name):
        raise ValueError("write KEY=VALUE, with a KEY of letters, digits and _")
    if "\0" in value:
        raise ValueError("a value cannot hold a NUL byte")
    return name, value


def image_name(text: str) -> str:
    """The name of an image."""
    if not IMAGE.fullmatch(text):
        raise ValueError("an image name is letters, digits and . _ / : @ -")
    return text


def wall(text: str) -> str:
    """`vm` or `container`."""
    if text not in (Isolation.VM.value, Isolation.CONTAINER.value):
        raise ValueError("say vm or container")
    return text


def command_words(text: str) -> tuple[str, ...]:
    """A command line, taken apart as a shell would."""
    words = tuple(shlex.split(text))
    if not words or len(text) > MAX_COMMAND or "\0" in text:
        raise ValueError(f"a command is 1 to {MAX_COMMAND} characters")
    return words


def target(text: str) -> str:
    """The name of an existing VM, as typed."""
    # Capitals are in no name, so a name with them is one that is not found.
    if not re.fullmatch(r"[A-Za-z0-9-]{1,63}", text):
        raise ValueError("a VM name is a-z, 0-9 and -")
    return text


def pattern(text: str) -> str:
    """A VM name in which * and ? stand for anything."""
    if not re.fullmatch(r"[A-Za-z0-9*?._-]{1,63}", text):
        raise ValueError("a pattern is a VM name with * or ?")
    return text


def ssh_target(text: str) -> str:
    """`[user@]vm`."""
    user, at, name = text.rpartition("@")
    if at:
        login_name(user)
    target(name)
    return text


def login_name(text: str) -> str:
    """A user in a VM."""
    if not re.fullmatch(r"[a-z_][a-z0-9_-]{0,31}", text):
        raise ValueError("a user is a-z, 0-9, _ and -")
    return text


def vcpus(text: str) -> int:
    """A number of virtual CPUs."""
    if not text.isdigit() or not 1 <= int(text) <= 64:
        raise ValueError("write a number from 1 to 64")
    return int(text)


def _bytes(text: str, smallest: int, unit: str) -> int:
    found = re.fullmatch(r"([0-9]{1,6})\s*([kmgt]?)(?:i?b)?", text.strip().lower())
    if found is None:
        raise ValueError("write a size such as 512M or 4G")
    size = int(found[1]) << {"k": 10, "m": 20, "g": 30, "t": 40}[found[2] or unit]
    if size < smallest:
        raise ValueError(f"at least {smallest >> 20} MiB")
    return size


def mebibytes(text: str) -> int:
    """Memory in MiB; a bare number means GiB, as exe.dev has it."""
    return min(_bytes(text, 128 << 20, "g") >> 20, 1 << 20)


def gibibytes(text: str) -> int:
    """Disk in whole GiB, rounded up; a bare number means GiB."""
    return min(-(-_bytes(text, 1 << 30, "g") >> 30), 65_536)


def comment_text(text: str) -> str:
    """A note of at most 200 bytes on one line."""
    if len(text.encode()) > MAX_COMMENT or printable(text, MAX_COMMENT) != text:
        raise ValueError(f"at most {MAX_COMMENT} bytes of printable text")
    return text


def tag_name(text: str) -> str:
    """One tag."""
    if not re.fullmatch(r"[a-z][a-z0-9_-]{0,62}", text):
        raise ValueError("a tag is a-z, then a-z, 0-9, _ and -")
    return text


def tag_names(text: str) -> tuple[str, ...]:
    """Tags with commas between them."""
    return tuple(tag_name(t.strip()) for t in text.split(","))


def egress_policy(text: str) -> str:
    """`all` or `integrations`."""
    if text not in (Egress.ALL.value, Egress.INTEGRATIONS.value):
        raise ValueError("say all or integrations")
    return text


def unoffered(flags: Sequence[tuple[str, object, str]]) -> None:
    """Raise FLAG_NOT_OFFERED for the first of (flag, what was given, why not) that was given."""
    for name, given, why in flags:
        if given:
            raise FLAG_NOT_OFFERED(flag=name, why=why)


async def nothing_made() -> str:
    """What Ctrl-C undoes of a command that has made nothing yet."""
    return "stopped; nothing was made"


NO_POOLS = "VMs share the operator's hosts and are not bought in pools"
NO_STANDALONE = "VMs share the operator's hosts"


def grouping(text: str) -> str:
    """What `ls` groups by."""
    if text not in ("tag", "region", "type"):
        raise ValueError("say tag, region or type")
    return text


@dataclass(frozen=True)
class Ls:
    """Arguments of `ls`."""

    group: str = flag(
        grouping, help="tag: put VMs with the same tag together; region and type too", default="",
        complete="tag|region|type",
    )

    pattern: str = word(pattern, help="only names that match; * and ? stand for anything", default="*", complete="vm")
    long: bool = switch(help="sizes, port and image too", short="l")
    watch: bool = switch(help="follow them on a screen of its own, with keys to act on them")


@command("ls", needs=Action.VM_LIST, on=ACCOUNT, reads_only=True, examples=("ls", "ls -l 'web-*'", "ls --watch"))
async def ls(ctx: Ctx, a: Ls) -> ListView:
    """List your VMs.

    With --watch a terminal (ssh -t) shows them as they are this second; without one they are listed once.
    """
    found = [v for v in await ops.mine(ctx.app, ctx.permit) if fnmatchcase(v.name, a.pattern)]
    chosen = await ops.chosen_ports(ctx.app) if a.long else {}
    used = await samples.latest(ctx.app, [v.id for v in found]) if a.long else {}
    rows = tuple(_row(ctx, v, chosen.get(v.id)) for v in found)
    return (WatchView if a.watch else ListView)(rows, a.long, a.group, used, a.pattern)


def _row(ctx: Ctx, v: Vm, port: int | None) -> tuple[Vm, VmPlace, int]:
    return v, VmPlace.of(ctx.app.config, v.name), port or ctx.app.images.default_port(v.image)


@dataclass(frozen=True)
class Rm:
    """Arguments of `rm`."""

    vm: tuple[str, ...] = word(target, help="the VMs to delete", many=True, complete="vm")
    now: bool = switch(help="delete for good instead of into the trash")


@command("rm", needs=Action.VM_DELETE, on=vm("vm"), examples=("rm demo", "rm demo web-a web-b"))
async def rm(ctx: Ctx, a: Rm) -> RemoveView:
    """Put VMs into the trash, without asking: they stop, their names are free, and trash restore brings them back.

    The trash keeps them for 7 days, or until your other VMs need the disk they take.
    """
    deleted: list[str] = []
    errors: dict[str, str] = {}
    for name in dict.fromkeys(a.vm):
        if name not in ctx.permits:
            continue
        await ctx.talk.progress(f"removing {name}")
        try:
            await (ops.remove if a.now else ops.discard)(ctx.app, ctx.permits[name])
            deleted.append(name)
        except Failure as failure:
            errors[name] = failure.sentence
    missing = tuple(n for n in dict.fromkeys(a.vm) if n not in ctx.permits)
    return RemoveView(tuple(deleted), missing, errors, a.now)


@dataclass(frozen=True)
class OneVm:
    """Arguments of commands on one VM."""

    vm: str = word(target, help="the VM", complete="vm")


@command("restart", needs=Action.VM_CHANGE, on=vm("vm"), examples=("restart demo",))
async def restart(ctx: Ctx, a: OneVm) -> RestartView:
    """Shut a VM down and boot it again; its disk stays."""
    await ctx.talk.progress(f"restarting {a.vm}")
    done = await ops.restart(ctx.app, ctx.permit)
    return RestartView(done.name)


@dataclass(frozen=True)
class Rename:
    """Arguments of `rename`."""

    vm: str = word(target, help="the VM", complete="vm")
    new_name: str = word(names.vm_name, help="its new name")


@command("rename", needs=Action.VM_CHANGE, on=vm("vm"), examples=("rename demo shop",))
async def rename(ctx: Ctx, a: Rename) -> RenameView:
    """Give a VM another name; its host name moves at once."""
    done, old = await ops.rename(ctx.app, ctx.permit, a.new_name)
    return RenameView(old, done.name, VmPlace.of(ctx.app.config, done.name))


@dataclass(frozen=True)
class Ssh:
    """Arguments of `ssh`."""

    vm: str = word(ssh_target, help="VM or USER@VM", complete="vm")
    command: tuple[str, ...] = rest(help="what to run; a shell when omitted")
    login: str | None = flag(login_name, help="user in the VM", short="l")


@command("ssh", needs=Action.VM_SHELL, on=vm("vm"), examples=("ssh demo", "ssh demo uname -a", "ssh root@demo id"))
async def ssh(ctx: Ctx, a: Ssh) -> Attach:
    """Open a shell in a VM, or run one command there."""
    found = await waking.reachable(ctx.app, ctx.permit)
    user = a.vm.rpartition("@")[0] or a.login or ctx.app.images.login_user(found.image)
    command = " ".join(a.command) if a.command else None
    return Attach(found.id, found.name, user, command, ctx.permit.decision.until)


ALL = (ls, rm, restart, rename, ssh)
