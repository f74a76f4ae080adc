"""What VM commands answer, for people and for machines; names follow the wire contract."""
from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from ussycode.base.clock import rfc3339
from ussycode.base.errors import printable
from ussycode.cmdline.render import Style, table
from ussycode.config import Config
from ussycode.runtime.driver import Sample
from ussycode.vms.documents import (
    ListDocument,
    NewDocument,
    RemoveDocument,
    RenameDocument,
    RestartDocument,
    VmDocument,
)
from ussycode.vms.model import Vm

REGION = "local"


@dataclass(frozen=True)
class VmPlace:
    """Where a VM is reached."""

    ssh_command: str
    ssh_dest: str
    ssh_port: int
    https_url: str

    @classmethod
    def of(cls, config: Config, name: str) -> VmPlace:
        """The place of the VM called `name`."""
        return cls(
            config.ssh_command(name), f"{name}@{config.domain}", config.ssh_port, config.host_url(config.vm_host(name))
        )


@dataclass(frozen=True)
class NewView:
    """A VM that was just made."""

    vm: Vm
    place: VmPlace
    proxy_port: int
    error: str = ""
    """It was made, but a later step failed."""

    def text(self, style: Style) -> str:
        """Name, shell and URL."""
        head = style.paint(self.vm.name, "green")
        web = f"{self.place.https_url} (port {self.proxy_port})"
        failed = f"\n{style.paint('but:', 'yellow')} {self.error}" if self.error else ""
        return f"{head} is up\n  shell  {self.place.ssh_command}\n  web    {web}{failed}"

    def document(self) -> NewDocument:
        """The document of `new`."""
        made: NewDocument = {
            "vm_name": self.vm.name, "tags": list(self.vm.tags), "ssh_command": self.place.ssh_command,
            "ssh_dest": self.place.ssh_dest,
            "ssh_host": self.place.ssh_dest.partition("@")[2], "ssh_user": self.vm.name,
            "ssh_port": self.place.ssh_port, "https_url": self.place.https_url, "proxy_port": self.proxy_port,
            "created_at": rfc3339(self.vm.created_at), "egress_policy": self.vm.egress,
        }
        if self.vm.comment:
            made["comment"] = self.vm.comment
        if self.error:
            made["error"] = self.error
        return made


@dataclass(frozen=True)
class ListView:
    """The caller's VMs."""

    rows: tuple[tuple[Vm, VmPlace, int], ...]
    long: bool
    group: str = ""
    usage: Mapping[str, tuple[float, Sample]] = field(default_factory=dict)
    """By VM id: when it was last looked at, and what it used."""
    pattern: str = "*"

    def text(self, style: Style) -> str:
        """A table; one line of advice when there is none."""
        if not self.rows:
            none = f"no VM of yours matches {printable(self.pattern)}; ls shows all"
            return none if self.pattern != "*" else "no VMs yet; type new"
        head = ["NAME", "STATUS", "IMAGE", "URL"]
        head += ["CPU", "MEMORY", "USED", "DISK", "PORT", "ISOLATION", "TAGS"] if self.long else []
        lines = [self._table(title, rows, head, style) for title, rows in self._groups()]
        lines += [f"{vm.name}: {vm.detail}" for vm, _, _ in self.rows if vm.detail and vm.phase == "failed"]
        lines += [f"{vm.name}: {printable(vm.remark)}" for vm, _, _ in self.rows if vm.remark]
        return "\n".join(lines)

    def _table(
        self, title: str, rows: Sequence[tuple[Vm, VmPlace, int]], head: Sequence[str], style: Style
    ) -> str:
        shown = table(head, [self._cells(*row) for row in rows], style)
        return f"{style.paint(title, 'bold')}\n{shown}" if title else shown

    def _groups(self) -> list[tuple[str, list[tuple[Vm, VmPlace, int]]]]:
        if not self.group:
            return [("", list(self.rows))]
        found: dict[str, list[tuple[Vm, VmPlace, int]]] = {}
        for row in self.rows:
            by_tag = row[0].tags or ("no tag",)
            for title in {"tag": by_tag, "region": (REGION,), "type": (row[0].isolation.value,)}[self.group]:
                found.setdefault(title, []).append(row)
        return sorted(found.items())

    def _cells(self, vm: Vm, place: VmPlace, port: int) -> list[str]:
        cells = [vm.name, vm.status, vm.image.partition("@")[0], place.https_url]
        return cells + self._size(vm, port) if self.long else cells

    def _size(self, vm: Vm, port: int) -> list[str]:
        latest = self.usage.get(vm.id)
        used = f"{max(0, latest[1].memory_used) >> 20} MiB" if latest is not None else "-"
        return [str(vm.vcpus), f"{vm.memory_mib} MiB", used, f"{vm.disk_gib} GiB", str(port), vm.isolation.value,
                ",".join(vm.tags) or "-"]

    def document(self) -> ListDocument:
        """The document of `ls`."""
        return {"vms": [self._item(*row) for row in self.rows]}

    def _item(self, vm: Vm, place: VmPlace, port: int) -> VmDocument:
        item: VmDocument = {
            "vm_name": vm.name, "ssh_dest": place.ssh_dest, "https_url": place.https_url, "status": vm.status,
            "region": REGION, "region_display": "this host", "created_at": rfc3339(vm.created_at),
            "egress_policy": vm.egress,
        }
        if vm.tags:
            item["tags"] = list(vm.tags)
        if vm.comment:
            item["comment"] = vm.comment
        if vm.remark:
            item["notice"] = vm.remark
        if vm.detail:
            item["detail"], item["console"] = vm.detail, vm.console
        if self.long:
            item.update({
                "cpu": vm.vcpus, "memory": vm.memory_mib << 20, "disk": vm.disk_gib << 30, "proxy_port": port,
                "image": vm.image.partition("#")[0], "node": REGION, "isolation": vm.isolation,
            })
            self._used(item, vm)
        return item

    def _used(self, item: VmDocument, vm: Vm) -> None:
        if (latest := self.usage.get(vm.id)) is not None:
            at, sample = latest
            item["usage"] = {"at": rfc3339(at), "mem_used": max(0, sample.memory_used),
                             "disk_used": max(0, sample.fs_total - sample.fs_free)}


@dataclass(frozen=True)
class WatchView(ListView):
    """The caller's VMs for somebody who wants to follow them; listed once where there is no terminal for it."""


@dataclass(frozen=True)
class RemoveView:
    """Results of `rm` by name."""

    deleted: tuple[str, ...]
    not_found: tuple[str, ...]
    errors: dict[str, str]
    for_good: bool = True

    @property
    def failed(self) -> list[str]:
        """Names that are still there or never were."""
        return [*self.not_found, *self.errors]

    def text(self, style: Style) -> str:
        """A line for each name."""
        back = "" if self.for_good else "; trash restore {} brings it back for 7 days"
        lines = [f"removed {name}{back.format(name)}" for name in self.deleted]
        lines += [f"no VM named {name}" for name in self.not_found]
        return "\n".join(lines + [f"{name}: {why}" for name, why in self.errors.items()])

    def document(self) -> RemoveDocument:
        """The document of `rm`."""
        made: RemoveDocument = {"deleted": list(self.deleted), "failed": self.failed}
        if self.not_found:
            made["not_found"] = list(self.not_found)
        if self.errors:
            made["errors"] = self.errors
        return made


@dataclass(frozen=True)
class RestartView:
    """A VM that was restarted."""

    vm_name: str

    def text(self, style: Style) -> str:
        """One line."""
        return f"{self.vm_name} restarted"

    def document(self) -> RestartDocument:
        """The document of `restart`."""
        return {"status": "restarted", "vm_name": self.vm_name}


@dataclass(frozen=True)
class RenameView:
    """A VM under its new name."""

    old_name: str
    new_name: str
    place: VmPlace

    def text(self, style: Style) -> str:
        """The new name with its places."""
        where = f"  shell  {self.place.ssh_command}\n  web    {self.place.https_url}"
        return f"{self.old_name} is now {self.new_name}\n{where}"

    def document(self) -> RenameDocument:
        """The document of `rename`."""
        return {
            "status": "renamed", "old_name": self.old_name, "new_name": self.new_name,
            "ssh_dest": self.place.ssh_dest, "https_url": self.place.https_url,
        }
