"""The page of limits, read off the constants that enforce them."""
from __future__ import annotations

from collections.abc import Iterable

from ussycode.doors.smtp import limits as mails
from ussycode.doors.smtp.limits import Patience
from ussycode.inbox import ops as inbox
from ussycode.runtime.images import layers, manifest, pull, store, uploads
from ussycode.runtime.net.policy import USUAL
from ussycode.runtime.net.rules import PINGS_PER_SECOND, QUERIES_PER_SECOND
from ussycode.runtime.privileged.cgroups import IO_BYTES, IO_OPERATIONS, SPARE_CPUS
from ussycode.runtime.privileged.helper import OVERHEAD_MIB, THREADS
from ussycode.vms import lifecycle, ops, policy, snapshots, trash
from ussycode.vms.model import MAX_UNREAD


def page(note: str) -> str:
    """The whole page."""
    return "\n".join(["# Limits", "", note, *_accounts(), *_vms(), *_walls(), *_images(), *_mail()])


def _table(head: str, rows: Iterable[tuple[str, object]]) -> list[str]:
    return [f"| {head} | |", "|---|---|", *(f"| {what} | {most} |" for what, most in rows), ""]


def _accounts() -> list[str]:
    rows = [
        f"| {role} | {_all(limits.vms)} | {_all(policy.MAX_VCPUS[role])} | {_all(limits.memory_mib)} | "
        f"{_all(limits.disk_gib)} |" for role, limits in policy.LIMITS.items()
    ]
    return [
        "## Accounts", "",
        "`quota` shows what you use of it. Memory counts while a VM runs, however it was started. Disk is the sum of "
        "the sizes that were asked for, the trash's too, which gives way to new VMs; snapshots are bounded by their "
        "number.",
        "", "| role | VMs | CPUs of the largest | memory, MiB | disk, GiB |", "|---|---|---|---|---|", *rows, "",
    ]


def _all(most: int | None) -> str:
    return "any" if most is None else str(most)


def _vms() -> list[str]:
    return ["## A VM", "", *_table("of one VM", (
        ("variables", f"{ops.MAX_ENV}, {ops.MAX_ENV_BYTES >> 10} KiB together"),
        ("comment, bytes", lifecycle.MAX_COMMENT), ("tags", lifecycle.MAX_TAGS),
        ("snapshots", f"{snapshots.MAX_SNAPSHOTS}, of them {snapshots.DAILY_KEPT} daily ones"),
        ("days in the trash", trash.KEEP_SECONDS // 86_400),
    ))]


def _walls() -> list[str]:
    return ["## What a VM may take of the host", "", *_table("of one VM", (
        ("memory of its process", f"its own and {OVERHEAD_MIB} MiB; of a copy of a template twice its own"),
        ("CPUs of its process", f"its own and {SPARE_CPUS}; a share by their number when the host is busy"),
        ("threads of its process", f"{THREADS} and one for each CPU"),
        ("disk, each way", f"{IO_BYTES >> 20} MiB and {IO_OPERATIONS} operations a second"),
        ("network, each way", f"{USUAL.mbit} Mbit/s (`net_mbit`)"),
        ("frames that it sends", f"{USUAL.packets} a second (`net_packets`)"),
        ("new connections", f"{USUAL.connections} a second (`net_connections`)"),
        ("connections at once", f"{USUAL.tracked} (`net_tracked`)"),
        ("DNS packets, pings to the host", f"{QUERIES_PER_SECOND} and {PINGS_PER_SECOND} a second"),
    ))]


def _images() -> list[str]:
    return ["## Images and imports", "", *_table("of one image", (
        ("layers", manifest.MAX_LAYERS), ("packed", f"{manifest.MAX_LAYER_BYTES >> 30} GiB"),
        ("unpacked", f"{layers.MAX_UNPACKED >> 30} GiB, {layers.MAX_ENTRIES} files"),
        ("time to unpack", f"{pull.UNPACK_SECONDS:.0f} s and {pull.UNPACK_SECONDS_PER_MIB:.0f} s for each packed MiB"),
        ("downloads at once", f"{pull.MAX_PULLS}, of one account {pull.MAX_PULLS_OF_ONE}"),
        ("uploads at once", f"{uploads.MAX_UPLOADS}, of one account {uploads.MAX_UPLOADS_OF_ONE}"),
        ("all on the host", f"{store.MAX_CACHED >> 30} GiB; the longest unwanted goes first, what VMs stand on stays"),
    ))]


def _mail() -> list[str]:
    patience = Patience()
    return ["## Mail to VMs", "", *_table("of the SMTP door", (
        ("one mail", f"{mails.MAX_BYTES >> 20} MiB, {mails.MAX_RECIPIENTS} recipients, lines of {mails.MAX_LINE} B"),
        ("mails to one VM", f"{inbox.MAILS_PER_HOUR} an hour, {MAX_UNREAD} unread ones"),
        ("mails and refused recipients of one address", f"{mails.MAILS_PER_HOUR} an hour, a tenth of them at once"),
        ("connections of one address", f"{mails.MAX_PER_ADDRESS}, of all together {mails.MAX_CONNECTIONS}"),
        ("mails on their way in, all together", f"{mails.MAX_HELD >> 20} MiB"),
        ("time", f"{patience.command:.0f} s for a command, {patience.mail:.0f} s for a mail, "
                 f"{patience.connection:.0f} s for a connection"),
        ("commands of one kind in a connection", mails.MAX_COMMANDS),
    ))]
