"""What runc is told about one container: a pure function of typed facts."""
from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ussycode.runtime.privileged import container_calls

GUEST = "/dev/ussy-init"
"""Where the guest program lies: on a fresh tmpfs, so that no link of the image is followed to put it there."""
PIDS = 4096
"""Processes and threads of one container."""
OPEN_FILES = 65_536
_OOM_SCORE = 200
"""A container goes before the platform when memory runs out."""
CAPABILITIES = tuple("CAP_" + name for name in (
    "CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "KILL", "SETGID", "SETUID", "SETPCAP", "SETFCAP", "NET_BIND_SERVICE",
    "NET_RAW", "SYS_CHROOT", "SYS_BOOT",
))
"""All of them count inside the container's user namespace only; SYS_BOOT lets `poweroff` and `reboot` end it."""
_MASKED = (
    "/proc/acpi", "/proc/asound", "/proc/kcore", "/proc/keys", "/proc/latency_stats", "/proc/timer_list",
    "/proc/timer_stats", "/proc/sched_debug", "/proc/scsi", "/proc/kallsyms", "/proc/kpagecount", "/proc/kpageflags",
    "/proc/interrupts", "/sys/firmware", "/sys/devices/virtual/powercap", "/sys/kernel",
)
_READ_ONLY = ("/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger")
_CPU_PERIOD = 100_000
"""Microseconds over which processor time is shared out."""


@dataclass(frozen=True)
class Container:
    """Everything about one container that shapes its bundle. `uids` is the first of its 65536 uids on the host."""

    hostname: str
    guest: Path
    init: str
    uids: int
    vcpus: int
    memory_mib: int
    cgroup: str
    unified: bool = False
    """Mount the second version's hierarchy beside those of the first, as systemd does on such hosts."""


UIDS = 65_536
"""Uids and gids of one container."""


def config(box: Container) -> dict[str, object]:
    """The content of config.json."""
    return {
        "ociVersion": "1.0.2",
        "hostname": box.hostname,
        "root": {"path": "rootfs"},
        "process": _process(box),
        "mounts": _mounts(box),
        "linux": _linux(box),
    }


def _process(box: Container) -> dict[str, object]:
    kept = list(CAPABILITIES)
    return {
        "user": {"uid": 0, "gid": 0}, "cwd": "/", "args": [GUEST, "--container", box.init],
        "env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "container=ussycode"],
        "capabilities": {kind: kept for kind in ("bounding", "effective", "permitted")},
        "oomScoreAdj": _OOM_SCORE,
        "noNewPrivileges": False,  # sudo works inside, where root is nobody on the host
    }


def _mounts(box: Container) -> list[dict[str, object]]:
    plain = ["nosuid", "noexec", "nodev"]
    half = f"size={box.memory_mib // 2}m"
    return [
        _mount("/proc", "proc", *plain),
        _mount("/dev", "tmpfs", "nosuid", "strictatime", "mode=755", "size=64k"),
        _mount("/dev/pts", "devpts", "nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"),
        _mount("/dev/shm", "tmpfs", *plain, "mode=1777", half),  # noqa: S108
        _mount("/sys", "sysfs", *plain, "ro"),
        # writable as a mount; of version 1 the container owns the one hierarchy that limits nothing
        _mount("/sys/fs/cgroup", "cgroup", *plain, "relatime", "rw"),
        *([_mount("/sys/fs/cgroup/unified", "cgroup2", *plain, "rw")] if box.unified else []),
        _mount("/run", "tmpfs", "nosuid", "nodev", "mode=755", half),
        _mount("/run/lock", "tmpfs", *plain, "mode=1777", "size=5m"),
        _mount("/tmp", "tmpfs", "nosuid", "nodev", "mode=1777", half),  # noqa: S108 - the container's own
        {"destination": GUEST, "type": "bind", "source": str(box.guest),
         "options": ["bind", "ro", "nosuid", "nodev", "private"]},
    ]


def _mount(place: str, kind: str, *options: str) -> dict[str, object]:
    return {"destination": place, "type": kind, "source": kind, "options": list(options)}


def _linux(box: Container) -> dict[str, object]:
    uids = [{"containerID": 0, "hostID": box.uids, "size": UIDS}]
    kinds = ("pid", "mount", "ipc", "uts", "cgroup", "network", "user")
    return {
        "namespaces": [{"type": kind} for kind in kinds], "uidMappings": uids, "gidMappings": uids,
        "cgroupsPath": box.cgroup, "resources": _resources(box), "seccomp": container_calls.profile(),
        "maskedPaths": list(_MASKED), "readonlyPaths": list(_READ_ONLY), "rootfsPropagation": "private",
    }


def _resources(box: Container) -> dict[str, object]:
    return {
        "devices": [{"allow": False, "access": "rwm"}],
        "memory": {"limit": box.memory_mib << 20},
        "cpu": {"shares": 1024 * box.vcpus, "quota": _CPU_PERIOD * box.vcpus, "period": _CPU_PERIOD},
        "pids": {"limit": PIDS},
    }
