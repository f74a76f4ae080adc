"""The command that makes a VM."""
from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace

from ussycode.access.actions import Action
from ussycode.base import names
from ussycode.base.errors import ErrorCode, Kind
from ussycode.cmdline.spec import ACCOUNT, command, flag, switch
from ussycode.ports import Ctx
from ussycode.runtime.driver import Egress, Isolation
from ussycode.runtime.images.registry_auth import Credentials, credentials
from ussycode.vms import defaults, firstboot, images, ops
from ussycode.vms.commands import (
    NO_POOLS,
    NO_STANDALONE,
    command_words,
    comment_text,
    egress_policy,
    env_pair,
    gibibytes,
    image_name,
    mebibytes,
    nothing_made,
    tag_names,
    unoffered,
    vcpus,
    wall,
)
from ussycode.vms.firstboot import MAX_PROMPT, MAX_SCRIPT, Gifts
from ussycode.vms.policy import DEFAULT_SIZE as DEFAULT
from ussycode.vms.policy import Size
from ussycode.vms.projects import Project, template
from ussycode.vms.views import NewView, VmPlace

STDIN = ("-", "/dev/stdin")
"""Values that mean: read it from standard input."""
BAD_DEFAULT = ErrorCode(
    "new.bad_default", Kind.USAGE, "your default {key} is not usable: {why}", hint="defaults write dev.exe {key} VALUE"
)
ONE_STDIN = ErrorCode("new.one_stdin", Kind.USAGE, "only one of --setup-script and --prompt can be standard input")
ONE_SCRIPT = ErrorCode("new.one_script", Kind.USAGE, "--template is a setup script; give only one of the two")
EMPTY_STDIN = ErrorCode("new.empty_stdin", Kind.USAGE, "{flag} is to be read from standard input, and that is empty",
                        hint="pipe a file in: new {flag} - < FILE")
TOO_LONG = ErrorCode("new.too_long", Kind.USAGE, "{flag} takes at most {limit} bytes of text without NUL",
                     hint="let it fetch the rest")


@dataclass(frozen=True)
class New:
    """Arguments of `new`."""

    name: str | None = flag(names.vm_name, help="name; invented when omitted")
    image: str | None = flag(image_name, help="image to boot, also one of a registry: alpine:3.20", complete="image")
    registry_auth: Credentials | None = flag(  # noqa: RUF009 - a declaration
        credentials, help="USER:PASSWORD for the image's registry",
    )
    command: tuple[str, ...] = flag(command_words, help="what to run instead of the image's own command", default=())
    env: tuple[tuple[str, str], ...] = flag(env_pair, many=True, help="KEY=VALUE for everything that runs in the VM")
    cpu: int | None = flag(vcpus, help="virtual CPUs; 1 when omitted")
    memory: int | None = flag(mebibytes, help="memory: 512M, 2G, 4GB; 512M when omitted")
    disk: int | None = flag(gibibytes, help="disk: 5G, 20GB; 5G when omitted")
    comment: str = flag(comment_text, help="a note, at most 200 bytes", default="")
    tag: tuple[str, ...] = flag(tag_names, help="a tag, or several with commas", many=True)
    egress: str = flag(
        egress_policy, help="all, or integrations: only what the operator lists", default="all",
        complete="all|integrations",
    )
    wake: bool = switch(help="a visit over SSH or HTTPS, or a mail, starts it when it is stopped or paused")
    isolation: str = flag(wall, help="vm; or container, quicker, where the operator allows it", default="vm",
                          complete="vm|container")
    setup_script: str = flag(str, help="runs once, as the login user; - reads standard input", default="")
    prompt: str = flag(str, help="told once to the agent in the image; - reads standard input", default="")
    template: Project | None = flag(  # noqa: RUF009 - a declaration
        template, help="begin as a project; projects lists them", complete="project",
    )
    pool: str | None = flag(str, help="not offered: VMs share the operator's hosts")
    no_pool: bool = switch(help="accepted; there are no pools")
    standalone: bool = switch(help="not offered: VMs share the operator's hosts")
    sandbox: bool = switch(help="not offered: VMs share the operator's hosts")
    integration: tuple[str, ...] = flag(str, help="not offered yet", many=True)
    no_email: bool = switch(help="send no mail about the new VM")


def _with_defaults(a: New, kept: dict[str, str]) -> New:
    """What the account wants of every new VM, where this line says nothing else."""
    named = {name for name, _ in a.env}
    env = [env_pair(line) for line in kept.get("new.env", "").splitlines() if line.strip()]
    return replace(
        a, env=(*(pair for pair in env if pair[0] not in named), *a.env), image=a.image or kept.get("new.image"),
        cpu=a.cpu or _kept(kept, "new.cpu", vcpus), memory=a.memory or _kept(kept, "new.memory", mebibytes),
        disk=a.disk or _kept(kept, "new.disk", gibibytes),
    )


def _kept(kept: dict[str, str], key: str, read: Callable[[str], int]) -> int | None:
    if key not in kept:
        return None
    try:
        return read(kept[key])
    except ValueError as why:
        raise BAD_DEFAULT(key=key, why=why) from None


async def _gifts(ctx: Ctx, a: New, kept: dict[str, str]) -> Gifts:
    """What the VM gets once; a value that says so is read from standard input."""
    if a.setup_script in STDIN and a.prompt in STDIN:
        raise ONE_STDIN()
    if a.template is not None and a.setup_script:
        raise ONE_SCRIPT()
    own = a.template.script if a.template is not None else _ESCAPED.sub(_unescaped, a.setup_script)
    wanted = own or kept.get("new.setup-script", "")
    script = await _said(ctx, "--setup-script", wanted, MAX_SCRIPT)
    prompt = await _said(ctx, "--prompt", a.prompt, MAX_PROMPT)
    return Gifts(_program(script), prompt, defaults.files(kept))


async def _said(ctx: Ctx, name: str, value: str, limit: int) -> str:
    if value in STDIN:
        value = (await ctx.talk.read_stdin(limit + 1)).decode(errors="replace")
        if not value.strip():
            raise EMPTY_STDIN(flag=name)
    if len(value.encode()) > limit or "\0" in value:
        raise TOO_LONG(flag=name, limit=limit)
    return value


_ESCAPED = re.compile(r"\\([n\\])")
"""On one line of words a line break is written as backslash and n, so a backslash may be written as two."""


def _unescaped(found: re.Match[str]) -> str:
    return "\n" if found[1] == "n" else "\\"


def _program(script: str) -> str:
    if not script:
        return ""
    return script if script.startswith("#!") else f"#!/bin/sh\n{script}\n"


@command("new", needs=Action.VM_CREATE, on=ACCOUNT, examples=(
    "new", "new --name demo --env A=1 --env B='x y'", "new --cpu 2 --memory 2G --disk 20G --tag prod,web",
    "new --setup-script - < setup.sh", "new --template static",
))
async def new(ctx: Ctx, a: New) -> NewView:
    """Create a VM and wait until it answers.

    A setup script runs once, at the first boot, in the login user's home; `new` does not wait for its end. A prompt
    goes to the program /etc/ussycode/agent, of the image or put there by the script, after that. What `defaults`
    says applies to the rest.
    """
    unoffered((("--pool", a.pool, NO_POOLS), ("--standalone", a.standalone, NO_STANDALONE),
               ("--sandbox", a.sandbox, NO_STANDALONE),
               ("--integration", a.integration, "VMs have no credentials lent to them so far")))
    kept = await defaults.read(ctx.app, ctx.permit)
    a = _with_defaults(a, kept)
    gifts = await _gifts(ctx, a, kept)
    ctx.talk.undone_by(nothing_made)
    size = Size(a.cpu or DEFAULT.vcpus, a.memory or DEFAULT.memory_mib, a.disk or DEFAULT.disk_gib)
    await ctx.talk.progress("booting " + (a.name or "a new VM"))
    image = a.image or ctx.app.config.default_image
    if image not in ctx.app.images.names():
        await ops.require_room(ctx.app, ctx.permit, a.name, size)
        image = await images.choose(ctx.app, ctx.permit, image, a.registry_auth, ctx.talk.progress)
    if a.disk is None:
        size = replace(size, disk_gib=max(size.disk_gib, ops.least_disk(ctx.app, image)))
    tags = tuple(dict.fromkeys(t for some in a.tag for t in some))
    made = await ops.create(ctx.app, ctx.permit, ops.Spec(
        a.name, image, a.env, size, Isolation(a.isolation), a.command, a.comment, tags, Egress(a.egress), a.wake,
        gifts=gifts,
    ), ctx.talk)
    error = await firstboot.deliver(ctx.app, made)
    return NewView(made, VmPlace.of(ctx.app.config, made.name), ctx.app.images.default_port(made.image), error)


ALL = (new,)
