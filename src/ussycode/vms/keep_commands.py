"""Commands about what is kept: snapshots and the trash."""
from __future__ import annotations

from dataclasses import dataclass

from ussycode.access.actions import Action
from ussycode.base import names
from ussycode.base.clock import rfc3339
from ussycode.cmdline.render import Style, table
from ussycode.cmdline.spec import ACCOUNT, command, flag, vm, word
from ussycode.ports import Ctx, Download
from ussycode.runtime.export import Form
from ussycode.vms import ops, snapshots, trash
from ussycode.vms.commands import OneVm, target
from ussycode.vms.documents import SnapshotsDocument, TrashDocument
from ussycode.vms.lifecycle_views import FieldView, StateView
from ussycode.vms.model import Vm
from ussycode.vms.snapshot_store import SnapshotRow


def snapshot_name(text: str) -> str:
    """The name of a snapshot."""
    if not snapshots.NAME.fullmatch(text):
        raise ValueError("1 to 63 of a-z, 0-9 and . _ -")
    return text


@dataclass(frozen=True)
class Create:
    """Arguments of `snapshot create`."""

    vm: str = word(target, help="the VM", complete="vm")
    name: str | None = word(snapshot_name, help="its name; the time when omitted", default=None)


@dataclass(frozen=True)
class Named:
    """Arguments of commands on one snapshot."""

    vm: str = word(target, help="the VM", complete="vm")
    name: str = word(snapshot_name, help="the snapshot")


@dataclass(frozen=True)
class SnapshotsView:
    """Snapshots of a VM; `said` after a change."""

    vm_name: str
    rows: tuple[SnapshotRow, ...]
    daily: bool = False
    said: str = ""

    def text(self, style: Style) -> str:
        """A sentence after a change, else a table."""
        if self.said or not self.rows:
            return self.said or f"{self.vm_name} has no snapshots; snapshot create {self.vm_name} takes one"
        rows = [[r.name, rfc3339(r.created_at), f"{r.size >> 20} MiB", "" if r.there else "being taken"]
                for r in self.rows]
        note = f"\none a day is taken, {snapshots.DAILY_KEPT} are kept" if self.daily else ""
        return table(["NAME", "TAKEN", "HOLDS ALONE", ""], rows, style) + note

    def document(self) -> SnapshotsDocument:
        """The document of `snapshot`."""
        return {"vm_name": self.vm_name, "daily": self.daily, "snapshots": [
            {"name": r.name, "id": r.id, "created_at": rfc3339(r.created_at), "size": r.size, "scheduled": r.scheduled,
             "ready": r.there} for r in self.rows
        ]}


@command("snapshot create", needs=Action.VM_CHANGE, on=vm("vm"), examples=("snapshot create demo before-upgrade",))
async def create(ctx: Ctx, a: Create) -> SnapshotsView:
    """Keep a VM's disk as it is now; a running VM halts for a moment."""
    await ctx.talk.progress(f"taking a snapshot of {a.vm}")
    row = await snapshots.create(ctx.app, ctx.permit, a.name)
    return SnapshotsView(a.vm, (row,), said=f"snapshot {row.name} of {a.vm} is taken")


@command("snapshot ls", needs=Action.VM_READ, on=vm("vm"), reads_only=True, aliases=("snapshot list",),
         examples=("snapshot ls demo",))
async def ls(ctx: Ctx, a: OneVm) -> SnapshotsView:
    """List a VM's snapshots, oldest first."""
    found, rows = await snapshots.listed(ctx.app, ctx.permit)
    return SnapshotsView(found.name, tuple(rows), found.snapshot_daily)


@command("snapshot rm", needs=Action.VM_CHANGE, on=vm("vm"), examples=("snapshot rm demo before-upgrade",))
async def rm(ctx: Ctx, a: Named) -> SnapshotsView:
    """Let a snapshot go."""
    row = await snapshots.remove(ctx.app, ctx.permit, a.name)
    return SnapshotsView(a.vm, (), said=f"snapshot {row.name} of {a.vm} is removed")


@command("snapshot restore", needs=Action.VM_CHANGE, on=vm("vm"), aliases=("restore",),
         examples=("snapshot restore demo before-upgrade", "restore demo before-upgrade"))
async def restore(ctx: Ctx, a: Named) -> StateView:
    """Make a VM's disk what it was; what changed since is lost, and a running VM boots from it."""
    await ctx.talk.progress(f"restoring {a.vm}")
    made = await snapshots.restore(ctx.app, ctx.permit, a.name)
    return StateView(made.name, made.status)


def daily_off(text: str) -> bool:
    """`daily` or `off`."""
    if text not in ("daily", "off"):
        raise ValueError("say daily or off")
    return text == "daily"


@dataclass(frozen=True)
class Schedule:
    """Arguments of `snapshot schedule`."""

    vm: str = word(target, help="the VM", complete="vm")
    when: bool = word(daily_off, help="daily or off", complete="daily|off")


@command("snapshot schedule", needs=Action.VM_CHANGE, on=vm("vm"), examples=("snapshot schedule demo daily",))
async def schedule(ctx: Ctx, a: Schedule) -> FieldView:
    """Take a snapshot every day and keep the last 7, or stop doing so."""
    made = await snapshots.schedule(ctx.app, ctx.permit, a.when)
    return FieldView(made.name, "snapshot_daily", made.snapshot_daily)


@dataclass(frozen=True)
class Nothing:
    """No arguments."""


@dataclass(frozen=True)
class TrashView:
    """VMs in the trash; `said` after a change."""

    rows: tuple[Vm, ...]
    said: str = ""

    def text(self, style: Style) -> str:
        """A sentence after a change, else a table."""
        if self.said or not self.rows:
            return self.said or "the trash is empty"
        rows = [[v.trash_name, rfc3339(v.trashed_at), rfc3339(v.trashed_at + trash.KEEP_SECONDS)[:10],
                 f"{v.disk_gib} GiB"] for v in self.rows]
        return table(["NAME", "REMOVED", "KEPT UNTIL", "DISK"], rows, style)

    def document(self) -> TrashDocument:
        """The document of `trash`."""
        return {"trash": [
            {"vm_name": v.trash_name, "id": v.id, "removed_at": rfc3339(v.trashed_at), "disk": v.disk_gib << 30,
             "kept_until": rfc3339(v.trashed_at + trash.KEEP_SECONDS)} for v in self.rows
        ]}


@command("trash ls", needs=Action.VM_LIST, on=ACCOUNT, reads_only=True, aliases=("trash list",))
async def trash_ls(ctx: Ctx, a: Nothing) -> TrashView:
    """List removed VMs that can still be brought back."""
    return TrashView(tuple(await trash.mine(ctx.app, ctx.permit)))


@dataclass(frozen=True)
class Restore:
    """Arguments of `trash restore`."""

    vm: str = word(str, help="the VM's old name, or its id")
    name: str | None = flag(names.vm_name, help="another name, when the old one is taken")


@command("trash restore", needs=Action.VM_CREATE, on=ACCOUNT, examples=("trash restore demo",))
async def trash_restore(ctx: Ctx, a: Restore) -> StateView:
    """Bring a removed VM back whole, stopped; start it afterwards."""
    made = await trash.restore(ctx.app, ctx.permit, a.vm, a.name)
    return StateView(made.name, "stopped")


@dataclass(frozen=True)
class Empty:
    """Arguments of `trash empty`."""

    vm: str | None = word(str, help="one VM of it; all when omitted", default=None)


@command("trash empty", needs=Action.VM_DELETE_TRASH, on=ACCOUNT, examples=("trash empty", "trash empty demo"))
async def trash_empty(ctx: Ctx, a: Empty) -> TrashView:
    """Delete what is in the trash for good."""
    gone = await trash.empty(ctx.app, ctx.permit, a.vm)
    return TrashView((), f"deleted {', '.join(v.trash_name for v in gone) or 'nothing'}")


def export_form(text: str) -> str:
    """What an exported disk is sent as."""
    if text not in list(Form):
        raise ValueError(f"say {', '.join(Form)}")
    return text


@dataclass(frozen=True)
class ExportArgs:
    """Arguments of `export`."""

    vm: str = word(target, help="the VM", complete="vm")
    format: str = flag(export_form, help="qcow2; or oci or tar, its files alone", default="qcow2",
                       complete="qcow2|oci|tar")


@command("export", needs=Action.VM_COPY, on=vm("vm"),
         examples=("export demo > demo.qcow2", "export demo --format oci > demo.oci.tar"))
async def export(ctx: Ctx, a: ExportArgs) -> Download:
    """Download a VM's disk as it is now, as a qcow2 file that any QEMU opens; a running VM halts for a moment.

    Redirect it: ssh HOST export demo > demo.qcow2. Over /exec it is the body of the answer. As oci it is an image
    that container tools load, with the VM's command, environment and port; as tar it is the files. import takes all
    three.
    """
    found = await ctx.app.db.read(lambda tx: ops.of(tx, ctx.permit))
    await ctx.talk.progress(f"reading {found.name}")
    form = Form(a.format)
    return Download(found.name + form.ending, await ctx.app.link.export(found.id, form))


ALL = (export, create, ls, rm, restore, schedule, trash_ls, trash_restore, trash_empty)
