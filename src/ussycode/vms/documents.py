"""What commands about VMs answer as JSON; the names are the wire contract. Times are RFC 3339, sizes in bytes."""
from __future__ import annotations

from typing import Literal, NotRequired, TypedDict

from ussycode.runtime.driver import Egress, Isolation

Status = Literal["running", "starting", "stopped", "paused", "failed", "deleting", "trashed"]

Range = Literal["24h", "7d", "30d"]


class UsageDocument(TypedDict):
    """What a VM used when it was last looked at; `disk_used` is what its file system holds."""

    at: str
    mem_used: int
    disk_used: int


class VmDocument(TypedDict):
    """One VM of `ls`; what follows `egress_policy` is there with `-l`."""

    vm_name: str
    ssh_dest: str
    https_url: str
    status: Status
    region: str
    region_display: str
    created_at: str
    tags: NotRequired[list[str]]
    comment: NotRequired[str]
    notice: NotRequired[str]
    detail: NotRequired[str]
    console: NotRequired[str]
    egress_policy: Egress
    cpu: NotRequired[int]
    memory: NotRequired[int]
    disk: NotRequired[int]
    proxy_port: NotRequired[int]
    image: NotRequired[str]
    node: NotRequired[str]
    isolation: NotRequired[Isolation]
    usage: NotRequired[UsageDocument]


class ListDocument(TypedDict):
    """`ls`."""

    vms: list[VmDocument]


class NewDocument(TypedDict):
    """`new`; `error` says that a step after the making failed."""

    vm_name: str
    tags: list[str]
    ssh_command: str
    ssh_dest: str
    ssh_host: str
    ssh_user: str
    ssh_port: int
    https_url: str
    proxy_port: int
    created_at: str
    egress_policy: Egress
    comment: NotRequired[str]
    error: NotRequired[str]


class ImportDocument(NewDocument):
    """`import`; `image` is what the file is kept as."""

    image: str


class CopyDocument(TypedDict):
    """`cp`."""

    name: str
    state: Literal["starting"]
    source: str
    ssh: str
    ssh_host: str
    ssh_user: str
    https_url: str
    tags: list[str]
    comment: NotRequired[str]
    created_at: str
    egress_policy: Egress
    elapsed: float
    not_copied: list[str]


class RemoveDocument(TypedDict):
    """`rm`; `failed` includes `not_found`."""

    deleted: list[str]
    failed: list[str]
    not_found: NotRequired[list[str]]
    errors: NotRequired[dict[str, str]]


class RestartDocument(TypedDict):
    """`restart`."""

    status: Literal["restarted"]
    vm_name: str


class RenameDocument(TypedDict):
    """`rename`."""

    status: Literal["renamed"]
    old_name: str
    new_name: str
    ssh_dest: str
    https_url: str


class StateDocument(TypedDict):
    """A VM in its new state; `cold_booted` says whether a resume had to boot."""

    vm_name: str
    status: Status
    cold_booted: NotRequired[Literal["true", "false"]]


class FieldDocument(TypedDict):
    """A VM with the one thing that a command changed."""

    vm_name: str
    comment: NotRequired[str]
    tags: NotRequired[list[str]]
    egress_policy: NotRequired[Egress]
    wake: NotRequired[bool]
    snapshot_daily: NotRequired[bool]


class ResizeDocument(TypedDict):
    """`resize`; each pair only when it changed."""

    vm_name: str
    old_memory: NotRequired[int]
    new_memory: NotRequired[int]
    old_cpus: NotRequired[int]
    new_cpus: NotRequired[int]
    disk_old_bytes: NotRequired[int]
    disk_new_bytes: NotRequired[int]


class PointDocument(TypedDict):
    """What a VM used up to `timestamp`, since the point before."""

    timestamp: str
    vm_name: str
    cpu_nominal: int
    cpu_cores: float
    mem_used_bytes: int
    mem_total_bytes: int
    disk_size_gb: float
    disk_used_gb: float
    disk_logical_used_gb: float
    fs_used_gb: float
    fs_total_gb: float
    fs_free_gb: float
    fs_available_gb: float
    network_tx_mbps: float
    network_rx_mbps: float
    io_read_mbps: float
    io_write_mbps: float


class StatDocument(TypedDict):
    """`stat`; no points when nothing was measured."""

    name: str
    status: Status
    range: Range
    points: list[PointDocument] | None


class SnapshotDocument(TypedDict):
    """One snapshot; `size` is what it alone holds."""

    name: str
    id: str
    created_at: str
    size: int
    scheduled: bool
    ready: bool


class SnapshotsDocument(TypedDict):
    """`snapshot create`, `ls` and `rm`."""

    vm_name: str
    daily: bool
    snapshots: list[SnapshotDocument]


class TrashedDocument(TypedDict):
    """One VM in the trash."""

    vm_name: str
    id: str
    removed_at: str
    disk: int
    kept_until: str


class TrashDocument(TypedDict):
    """`trash ls` and `trash empty`."""

    trash: list[TrashedDocument]


class QuotaItem(TypedDict):
    """One quota; no limit is null."""

    used: int
    limit: int | None
    counts: str


class QuotaDocument(TypedDict):
    """`quota`, by what is counted."""

    quota: dict[str, QuotaItem]


class DefaultsDocument(TypedDict):
    """`defaults`, by key."""

    defaults: dict[str, str]


class EventDocument(TypedDict):
    """Something that happened to a VM."""

    at: str
    what: str


class WhyDocument(TypedDict):
    """`why`."""

    vm_name: str
    status: Status
    why: str
    console: str
    events: list[EventDocument]
    advice: str


class CheckDocument(TypedDict):
    """One thing that `doctor` looked at."""

    what: str
    ok: bool
    found: str
    todo: NotRequired[str]


class DoctorDocument(TypedDict):
    """`doctor`."""

    ok: bool
    checks: list[CheckDocument]


class ProjectDocument(TypedDict):
    """One project."""

    name: str
    summary: str
    port: int


class ProjectsDocument(TypedDict):
    """`projects`."""

    projects: list[ProjectDocument]


class ImageDocument(TypedDict):
    """One image; the last two for one that was pulled."""

    image: str
    kind: Literal["built", "public", "private"]
    pinned: NotRequired[str]
    pulled_at: NotRequired[str]


class ImagesDocument(TypedDict):
    """`image ls`."""

    images: list[ImageDocument]


class PulledDocument(TypedDict):
    """`image pull`."""

    pinned: str


class RemovedImagesDocument(TypedDict):
    """`image rm`."""

    removed: list[str]
