"""One installation on a host: everything on it that must not collide derives from its slot."""
from __future__ import annotations

import fcntl
import hashlib
import ipaddress
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import msgspec

from ussycode.base.errors import ErrorCode, Kind
from ussycode.base.unreadable import UNREADABLE

SLOTS = 64
"""How many instances one host can hold; each has its own pool, uid range, taps, table and ports."""
RUN_ROOT = Path("/run/ussycode")
UID_FIRST = 1_900_000_000
UIDS_PER_SLOT = 65_536
FIRST_NUMBER, LAST_NUMBER = 2, 16_000
"""VM numbers; 0 and 1 of the uid range belong to control and edge."""
FIRST_TEMPLATE, LAST_TEMPLATE = LAST_NUMBER + 1, LAST_NUMBER + 64
"""Numbers of machines that are booted to become templates; nothing routes to them."""
CONTAINER_UID_FIRST = 1 << 31
CONTAINER_UIDS_PER_SLOT = 1 << 25
LAST_CONTAINER = 510
"""Highest number of a VM that may be a container: each has 65536 uids of its own, above those of any other use."""
GATEWAY = "169.254.1.1"
"""Address of the host's end of every tap; also the guests' resolver."""
METADATA_ADDRESS = "169.254.169.254"
"""What guests ask for metadata; never an address of the host."""
GATEWAY6 = "fe80::1"
"""The same for IPv6; link-local, so it exists once per tap."""
HOST_MAC = "02:00:00:00:00:01"
_PORT_FIRST = 20_000
_PORTS_PER_SLOT = 8

NO_SLOT = ErrorCode(
    "instance.no_slot", Kind.FAILED, "this host already holds {slots} instances of ussycode",
    hint="remove claim files of instances that no longer exist from {run}",
)
SLOT_HELD = ErrorCode(
    "instance.slot_held", Kind.CONFLICT, "{data} belongs to slot {slot} of this host, which {other} holds now",
    hint="remove {other} or its claim, or start from a copy of the data without instance.json as a new instance",
)


@dataclass(frozen=True)
class Instance:
    """The names, numbers and addresses of one installation. Pure: derived from slot, pool and folders."""

    slot: int
    data: Path
    pool: ipaddress.IPv4Network
    run_root: Path = RUN_ROOT

    @staticmethod
    def is_template(number: int) -> bool:
        """Whether a number is that of a machine that becomes a template."""
        return FIRST_TEMPLATE <= number <= LAST_TEMPLATE

    @property
    def tap_prefix(self) -> str:
        """What every tap of this instance starts with."""
        return f"uy{self.slot}-"

    def tap(self, number: int) -> str:
        """Interface name of VM `number`; at most 10 of the kernel's 15 characters."""
        return f"{self.tap_prefix}{number}"

    @property
    def table(self) -> str:
        """Name of the nftables table of family inet."""
        return f"ussycode_{self.slot}"

    def idle_tap(self, number: int) -> str:
        """Interface name of the template-to-be `number`: never up, so that no rule has to know it."""
        return f"uyt{self.slot}-{_checked(number)}"

    def address(self, number: int) -> str:
        """IPv4 address of VM `number`."""
        return str(self.pool.network_address + _checked(number))

    @property
    def pool6(self) -> ipaddress.IPv6Network:
        """Addresses of the guests inside this host; the internet sees the host's own."""
        return ipaddress.IPv6Network(f"fd75:7379:636f:{self.slot:x}::/64")

    def address6(self, number: int) -> str:
        """IPv6 address of VM `number`, when the host gives its guests IPv6."""
        return str(self.pool6.network_address + _checked(number))

    def mac(self, number: int) -> str:
        """MAC of the guest's eth0: locally administered, unique within the host."""
        return f"02:75:{self.slot:02x}:00:{_checked(number) >> 8:02x}:{number & 255:02x}"

    @property
    def uid_base(self) -> int:
        """First of the instance's 65536 uids; nothing in /etc/passwd needs to know them."""
        return UID_FIRST + self.slot * UIDS_PER_SLOT

    @property
    def control_uid(self) -> int:
        """Uid and gid of the control process."""
        return self.uid_base

    @property
    def edge_uid(self) -> int:
        """Uid and gid of the edge processes."""
        return self.uid_base + 1

    @property
    def front_uid(self) -> int:
        """Uid and gid of the TLS terminator that the platform runs."""
        return self.uid_base + LAST_NUMBER + 1

    def uid(self, number: int) -> int:
        """Uid and gid under which VM `number` runs and which owns its disk."""
        return self.uid_base + _checked(number)

    def container_uids(self, number: int) -> int:
        """First of the 65536 uids and gids that belong to container `number` alone, 2..LAST_CONTAINER."""
        if _checked(number) > LAST_CONTAINER:
            raise ValueError(f"container number {number} is above {LAST_CONTAINER}")
        return CONTAINER_UID_FIRST + self.slot * CONTAINER_UIDS_PER_SLOT + number * UIDS_PER_SLOT

    @property
    def metadata_port(self) -> int:
        """TCP port on GATEWAY to which the guests' metadata requests are redirected."""
        return _PORT_FIRST + self.slot * _PORTS_PER_SLOT

    @property
    def dns_port(self) -> int:
        """UDP and TCP port on GATEWAY to which the guests' DNS queries are redirected."""
        return self.metadata_port + 1

    @property
    def run(self) -> Path:
        """Folder of this boot of the host: helper socket, QEMU sockets and process records."""
        return self.run_root / str(self.slot)

    @property
    def helper_socket(self) -> Path:
        """Unix socket of the privileged helper."""
        return self.run / "helper.sock"

    def vm_run(self, vm: str) -> Path:
        """Root-owned folder with the sockets and the process record of one VM."""
        return self.run / "vm" / vm

    def vm_data(self, vm: str) -> Path:
        """Folder with disk, console log and state of one VM."""
        return self.data / "vms" / vm

    @property
    def layers(self) -> Path:
        """Folder of the disks; only control may list it, so a VM finds no layer whose name it was not told."""
        return self.data / "layers"

    def container(self, vm: str) -> Path:
        """Root-owned folder with the disk of one container and its snapshots."""
        return self.data / "containers" / "vms" / vm

    def give_to_control(self, path: Path) -> None:
        """Make control own `path`; does something only where control itself runs as root, as in tests."""
        if os.geteuid() == 0:
            os.chown(path, self.control_uid, self.control_uid, follow_symlinks=False)


def claim(data: Path, pool: str = "", run_root: Path = RUN_ROOT) -> Instance:
    """The instance of the data folder `data`, the same one on every call; takes a free slot the first time.

    `pool` overrides the derived address pool (a /16 or larger, in CIDR form). Needs write access to both
    folders. Raises NO_SLOT when all are taken, ValueError for a pool that is too small.
    """
    real = data.resolve()
    run_root.mkdir(mode=0o755, parents=True, exist_ok=True)
    with _locked(run_root / "lock"):
        slot = _choose(real, run_root)
        (run_root / f"slot-{slot}").write_text(str(real))
        _save(real, slot)
    return _instance(real, slot, pool, run_root)


def load(data: Path, pool: str = "", run_root: Path = RUN_ROOT) -> Instance | None:
    """The instance that `data` belongs to, without claiming one; None before the first claim."""
    slot = _saved(data.resolve())
    return None if slot is None else _instance(data.resolve(), slot, pool, run_root)


def make_folders(instance: Instance) -> None:
    """Create the folders of an instance with their owners. Root only; idempotent."""
    instance.data.mkdir(mode=0o711, parents=True, exist_ok=True)
    instance.data.chmod(0o711)
    _owned(instance.data / "vms", instance.control_uid, 0o711)
    _owned(instance.layers, instance.control_uid, 0o711)
    (instance.data / "images").mkdir(mode=0o755, exist_ok=True)
    _owned(instance.data / "images" / "oci", instance.control_uid, 0o711)
    instance.run_root.mkdir(mode=0o755, parents=True, exist_ok=True)
    for folder in (instance.run, instance.run / "vm"):
        _owned(folder, 0, 0o711)


def _owned(folder: Path, uid: int, mode: int) -> None:
    folder.mkdir(mode=mode, exist_ok=True)
    folder.chmod(mode)
    os.chown(folder, uid, uid, follow_symlinks=False)


def _checked(number: int) -> int:
    if not FIRST_NUMBER <= number <= LAST_TEMPLATE:
        raise ValueError(f"VM number {number} is outside {FIRST_NUMBER}..{LAST_TEMPLATE}")
    return number


def _instance(data: Path, slot: int, pool: str, run_root: Path) -> Instance:
    network = ipaddress.IPv4Network(pool or f"10.{192 + slot}.0.0/16")
    if network.num_addresses <= LAST_TEMPLATE:
        raise ValueError(f"the address pool {network} is too small: a /16 or larger is needed")
    return Instance(slot, data, network, run_root)


def _choose(data: Path, run_root: Path) -> int:
    saved = _saved(data)
    if saved is not None:
        # Uids of disks and keys derive from the slot: moving to another would lock the instance out of its own.
        if not _free_for(data, saved, run_root):
            raise SLOT_HELD(slot=saved, data=data, other=(run_root / f"slot-{saved}").read_text())
        return saved
    first = int.from_bytes(hashlib.sha256(os.fsencode(data)).digest()[:4], "big") % SLOTS
    for step in range(SLOTS):
        slot = (first + step) % SLOTS
        if _free_for(data, slot, run_root):
            return slot
    raise NO_SLOT(slots=SLOTS, run=run_root)


def _free_for(data: Path, slot: int, run_root: Path) -> bool:
    """A slot is free when unclaimed, ours, or claimed by a folder that is gone or moved to another slot."""
    try:
        owner = Path((run_root / f"slot-{slot}").read_text())
    except FileNotFoundError:
        return True
    return owner == data or _saved(owner) != slot


def _saved(data: Path) -> int | None:
    try:
        return msgspec.json.decode((data / "instance.json").read_bytes(), type=_Saved).slot
    except (FileNotFoundError, NotADirectoryError, *UNREADABLE):
        return None


def _save(data: Path, slot: int) -> None:
    draft = data / "instance.json.new"
    draft.write_bytes(msgspec.json.encode(_Saved(slot)))
    draft.chmod(0o644)
    draft.replace(data / "instance.json")


class _Saved(msgspec.Struct):
    slot: int


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
