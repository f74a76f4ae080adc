"""Commands about a VM's life: start, stop, pause, resume, copies, sizes, words about it, figures."""
from __future__ import annotations

from dataclasses import dataclass
from typing import cast

from ussycode.access.actions import Action
from ussycode.base import names
from ussycode.cmdline.spec import command, flag, switch, vm, word
from ussycode.ports import Ctx
from ussycode.runtime.driver import Egress
from ussycode.vms import copies, lifecycle, samples
from ussycode.vms.commands import (
    NO_POOLS,
    NO_STANDALONE,
    OneVm,
    comment_text,
    egress_policy,
    gibibytes,
    mebibytes,
    nothing_made,
    tag_name,
    target,
    unoffered,
    vcpus,
)
from ussycode.vms.documents import Range
from ussycode.vms.lifecycle_views import CopyView, FieldView, ResizeView, StateView, StatView
from ussycode.vms.views import VmPlace


@command("start", needs=Action.VM_CHANGE, on=vm("vm"), examples=("start demo",))
async def start(ctx: Ctx, a: OneVm) -> StateView:
    """Boot a VM that is stopped; nothing happens to one that runs."""
    await ctx.talk.progress(f"starting {a.vm}")
    return StateView((await lifecycle.start(ctx.app, ctx.permit)).name, "running")


@command("stop", needs=Action.VM_CHANGE, on=vm("vm"), examples=("stop demo",))
async def stop(ctx: Ctx, a: OneVm) -> StateView:
    """Shut a VM down and keep it down; its disk stays and its memory counts no more."""
    await ctx.talk.progress(f"stopping {a.vm}")
    return StateView((await lifecycle.stop(ctx.app, ctx.permit)).name, "stopped")


@command("pause", needs=Action.VM_CHANGE, on=vm("vm"), examples=("pause demo",))
async def pause(ctx: Ctx, a: OneVm) -> StateView:
    """Write a VM's memory to disk and free it; resume brings its programs back where they were."""
    await ctx.talk.progress(f"pausing {a.vm}")
    return StateView((await lifecycle.pause(ctx.app, ctx.permit)).name, "paused")


@command("resume", needs=Action.VM_CHANGE, on=vm("vm"), examples=("resume demo",))
async def resume(ctx: Ctx, a: OneVm) -> StateView:
    """Go on where a VM was paused; it boots when its memory is lost, and says so."""
    await ctx.talk.progress(f"resuming {a.vm}")
    made = await lifecycle.resume(ctx.app, ctx.permit)
    return StateView(made.name, "running", made.cold)


@dataclass(frozen=True)
class Copy:
    """Arguments of `cp`."""

    source: str = word(target, help="the VM to copy", complete="vm")
    name: str | None = word(names.vm_name, help="name of the copy; invented when omitted", default=None)
    copy_tags: bool = switch(help="give the copy the same tags; --copy-tags=false does not", default=True)
    cpu: int | None = flag(vcpus, help="virtual CPUs of the copy")
    memory: int | None = flag(mebibytes, help="memory of the copy")
    disk: int | None = flag(gibibytes, help="disk of the copy; never smaller than the source's")
    egress: str | None = flag(
        egress_policy, help="all, or integrations; the source's when omitted", complete="all|integrations",
    )
    memory_too: bool = switch(help="copy the running programs as well, not the disk alone")
    pool: str | None = flag(str, help="not offered: VMs share the operator's hosts")
    standalone: bool = switch(help="not offered: VMs share the operator's hosts")
    sandbox: bool = switch(help="not offered: VMs share the operator's hosts")


@command("cp", needs=Action.VM_COPY, on=vm("source"), examples=("cp demo", "cp demo shop --memory 1G"))
async def cp(ctx: Ctx, a: Copy) -> CopyView:
    """Make a new VM from another's disk as it is now, running or not."""
    unoffered((("--pool", a.pool, NO_POOLS), ("--standalone", a.standalone, NO_STANDALONE),
               ("--sandbox", a.sandbox, NO_STANDALONE)))
    began = ctx.app.clock.now()
    ctx.talk.undone_by(nothing_made)
    await ctx.talk.progress(f"copying {a.source}")
    wanted = copies.Wanted(
        a.name, a.copy_tags, a.cpu, a.memory, a.disk, Egress(a.egress) if a.egress else None, a.memory_too,
    )
    made = await copies.copy(ctx.app, ctx.permit, wanted, ctx.talk)
    place = VmPlace.of(ctx.app.config, made.vm.name)
    return CopyView(made.vm, made.source.name, place, made.left, ctx.app.clock.now() - began)


@dataclass(frozen=True)
class Resize:
    """Arguments of `resize`."""

    vm: str = word(target, help="the VM", complete="vm")
    cpu: int | None = flag(vcpus, help="virtual CPUs, from the next start on")
    memory: int | None = flag(mebibytes, help="memory, from the next start on: 1G")
    disk: int | None = flag(gibibytes, help="new size of the disk; it only grows, and at once: 10G")


@command("resize", needs=Action.VM_CHANGE, on=vm("vm"), examples=("resize demo --disk 10G", "resize demo --memory 1G"))
async def resize(ctx: Ctx, a: Resize) -> ResizeView:
    """Change a VM's sizes: the disk grows while it runs, CPUs and memory change with its next start."""
    done = await lifecycle.resize(ctx.app, ctx.permit, a.cpu, a.memory, a.disk)
    return ResizeView(done.vm.name, done.old, done.new)


@dataclass(frozen=True)
class Comment:
    """Arguments of `comment`."""

    vm: str = word(target, help="the VM", complete="vm")
    text: str = word(comment_text, help="the note; empty text removes it")


@command("comment", needs=Action.VM_CHANGE, on=vm("vm"), examples=("comment demo 'the shop, staging'",))
async def comment(ctx: Ctx, a: Comment) -> FieldView:
    """Keep a note of at most 200 bytes with a VM."""
    made = await lifecycle.set_comment(ctx.app, ctx.permit, a.text)
    return FieldView(made.name, "comment", made.comment)


@dataclass(frozen=True)
class Tag:
    """Arguments of `tag`."""

    vm: str = word(target, help="the VM", complete="vm")
    tags: tuple[str, ...] = word(tag_name, help="tags", many=True, complete="tag")
    delete: bool = switch(help="remove these tags instead of adding them", short="d")


@command("tag", needs=Action.VM_TAG, on=vm("vm"), examples=("tag demo prod web", "tag -d demo web"))
async def tag(ctx: Ctx, a: Tag) -> FieldView:
    """Add tags to a VM, or remove them."""
    made = await lifecycle.change_tags(ctx.app, ctx.permit, a.tags, a.delete)
    return FieldView(made.name, "tags", list(made.tags))


@dataclass(frozen=True)
class EgressArgs:
    """Arguments of `egress`."""

    vm: str = word(target, help="the VM", complete="vm")
    policy: str = word(egress_policy, help="all, or integrations", complete="all|integrations")


@command("egress", needs=Action.VM_CHANGE, on=vm("vm"), examples=("egress demo integrations",))
async def egress(ctx: Ctx, a: EgressArgs) -> FieldView:
    """Choose what a VM may reach: all of the internet, or only what the operator lists."""
    made = await lifecycle.set_egress(ctx.app, ctx.permit, Egress(a.policy))
    return FieldView(made.name, "egress_policy", made.egress.value)


def on_off(text: str) -> bool:
    """`on` or `off`."""
    if text not in ("on", "off"):
        raise ValueError("say on or off")
    return text == "on"


@dataclass(frozen=True)
class WakeArgs:
    """Arguments of `wake`."""

    vm: str = word(target, help="the VM", complete="vm")
    state: bool = word(on_off, help="on or off", complete="on|off")


@command("wake", needs=Action.VM_CHANGE, on=vm("vm"), examples=("wake demo on",))
async def wake(ctx: Ctx, a: WakeArgs) -> FieldView:
    """Choose whether a visit over SSH or HTTPS, or a mail, starts a VM that is stopped or paused."""
    made = await lifecycle.set_wake(ctx.app, ctx.permit, a.state)
    return FieldView(made.name, "wake", made.wake)


def time_range(text: str) -> str:
    """`24h`, `7d` or `30d`."""
    if text not in samples.RANGES:
        raise ValueError("say " + ", ".join(samples.RANGES))
    return text


@dataclass(frozen=True)
class Stat:
    """Arguments of `stat`."""

    vm: str = word(target, help="the VM", complete="vm")
    range: str = flag(time_range, help="24h, 7d or 30d", default="24h", complete="24h|7d|30d")


@command("stat", needs=Action.VM_READ, on=vm("vm"), reads_only=True, examples=("stat demo", "stat demo --range 7d"))
async def stat(ctx: Ctx, a: Stat) -> StatView:
    """Show what a VM used: CPU, memory, disk, network and IO."""
    found, points = await samples.of_range(ctx.app, ctx.permit, samples.RANGES[a.range])
    return StatView(found, cast(Range, a.range), tuple(points))


ALL = (start, stop, pause, resume, cp, resize, comment, tag, egress, wake, stat)
