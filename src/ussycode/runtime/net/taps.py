"""Point-to-point taps: the open descriptor, held by QEMU, is the life of the interface."""
from __future__ import annotations

import ctypes
import fcntl
import os
import re
import struct
import subprocess
from contextlib import suppress
from pathlib import Path

from ussycode.runtime.instance import GATEWAY, GATEWAY6, HOST_MAC, Instance

_TUNSETIFF = 0x400454CA
_IFF_TAP, _IFF_NO_PI, _IFF_VNET_HDR = 0x0002, 0x1000, 0x4000
_TUNSETOFFLOAD, _TUNSETVNETHDRSZ = 0x400454D0, 0x400454D8
_HEADER_BYTES = 12
"""Bytes that QEMU puts in front of each frame once the guest's virtio driver is up."""
_SYS_PIDFD_GETFD = 438
_TIMEOUT = 10.0
"""Seconds that `ip` and `nft` may take; they answer in milliseconds."""


def open_tap(instance: Instance, number: int, *, ipv6: bool = False) -> int:
    """A descriptor of the fresh tap of VM `number`, addressed, routed and up. Root only.

    The interface, its address and its route vanish when the last descriptor is closed.
    Raises OSError when the tap is in use, subprocess.CalledProcessError when `ip` refuses.
    """
    fd = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        attach(fd, instance, number, ipv6=ipv6)
    except BaseException:
        os.close(fd)
        raise
    return fd


def open_idle_tap(instance: Instance, number: int) -> int:
    """A descriptor of a tap that is never up: what is sent into it is lost. Root only.

    It offers what every other tap offers, so that a guest's driver agrees with it on the same things.
    """
    fd = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        _make(fd, instance.idle_tap(number))
    except BaseException:
        os.close(fd)
        raise
    return fd


def attach(fd: int, instance: Instance, number: int, *, ipv6: bool) -> None:
    """Make the tap of VM `number` behind an open descriptor of /dev/net/tun that has none (any more)."""
    name = instance.tap(number)
    _make(fd, name)
    configure(name, instance.address(number), instance.address6(number) if ipv6 else "")


def _make(fd: int, name: str) -> None:
    fcntl.ioctl(fd, _TUNSETIFF, struct.pack("16sH22x", name.encode(), _IFF_TAP | _IFF_NO_PI | _IFF_VNET_HDR))


def counted(instance: Instance, number: int) -> tuple[int, int]:
    """Bytes that the guest received and sent through its tap; -1 when there is none."""
    figures = Path("/sys/class/net") / instance.tap(number) / "statistics"
    try:
        return int((figures / "tx_bytes").read_text()), int((figures / "rx_bytes").read_text())
    except OSError:
        return -1, -1


def revive(pid: int, instance: Instance, number: int, *, ipv6: bool) -> bool:
    """Give a running QEMU its deleted tap back, behind the descriptor it still holds; False when it has none."""
    tun = _tun_of(pid)
    if tun is None:
        return False
    fd = _taken(pid, tun)
    try:
        attach(fd, instance, number, ipv6=ipv6)
        # What QEMU had set on the lost device. Without offloads the guest gets whole, checked packets: always right.
        fcntl.ioctl(fd, _TUNSETVNETHDRSZ, struct.pack("i", _HEADER_BYTES))
        fcntl.ioctl(fd, _TUNSETOFFLOAD, 0)
    finally:
        os.close(fd)
    return True


def _tun_of(pid: int) -> int | None:
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(FileNotFoundError):
            if str(entry.readlink()) == "/dev/net/tun":
                return int(entry.name)
    return None


def _taken(pid: int, number: int) -> int:
    """A copy of another process's descriptor. Root only."""
    libc = ctypes.CDLL(None, use_errno=True)
    process = os.pidfd_open(pid)
    try:
        fd: int = libc.syscall(_SYS_PIDFD_GETFD, process, number, 0)
    finally:
        os.close(process)
    if fd < 0:
        raise OSError(ctypes.get_errno(), "the descriptor of another process cannot be taken")
    return fd


def configure(name: str, address: str, address6: str = "") -> None:
    """Make an interface the host's end towards the guest at `address`: the gateway's MAC, one route, IPv6 if given.

    Idempotent, so that an interface that somebody changed is mended by it.
    """
    _ipv6(name, bool(address6))
    run("ip", "-batch", "-", text=(
        f"link set dev {name} address {HOST_MAC}\n"
        f"addr replace {GATEWAY}/32 dev {name}\n"
        f"link set dev {name} up\n"
        f"route replace {address}/32 dev {name} src {GATEWAY}\n"
    ))
    if address6:
        run("ip", "-6", "-batch", "-", text=(
            f"addr replace {GATEWAY6}/64 dev {name} nodad\nroute replace {address6}/128 dev {name}\n"
        ))


def _ipv6(name: str, wanted: bool) -> None:
    settings = Path(f"/proc/sys/net/ipv6/conf/{name}")
    if not settings.exists():
        return
    # A guest must not be able to make itself the host's router.
    for setting, value in (("accept_ra", 0), ("autoconf", 0), ("accept_redirects", 0), ("addr_gen_mode", 1),
                           ("disable_ipv6", 0 if wanted else 1)):
        (settings / setting).write_text(str(value))


def speaks_ipv6(instance: Instance, number: int) -> bool:
    """Whether the tap of a VM was made for IPv6 too; needs no privilege."""
    switch = Path(f"/proc/sys/net/ipv6/conf/{instance.tap(number)}/disable_ipv6")
    return switch.exists() and switch.read_text().strip() == "0"


def leftover(instance: Instance) -> list[str]:
    """Names of this instance's taps that exist now."""
    return sorted(p.name for p in Path("/sys/class/net").glob(f"{instance.tap_prefix}*"))


def remove(name: str) -> None:
    """Take a tap away; no error when it is gone already."""
    subprocess.run(["ip", "link", "del", "dev", name], capture_output=True, timeout=_TIMEOUT, check=False)


def hold_pool(instance: Instance) -> None:
    """Let addresses of guests that are not there be unreachable, not somebody's beyond the default route."""
    run("ip", "route", "replace", "unreachable", str(instance.pool), text="")


def hold_pool6(instance: Instance) -> None:
    """The same for the guests' IPv6 addresses."""
    run("ip", "-6", "route", "replace", "unreachable", str(instance.pool6), text="")


def release_pool(instance: Instance) -> None:
    """Undo `hold_pool` and `hold_pool6`; no error when there is nothing to undo."""
    for words in (["route", "del", "unreachable", str(instance.pool)],
                  ["-6", "route", "del", "unreachable", str(instance.pool6)]):
        subprocess.run(["ip", *words], capture_output=True, timeout=_TIMEOUT, check=False)


def cut_streams(address: str) -> None:
    """Abort every TCP connection of this host to a guest that ended.

    Nobody answers on that address any more, so readers would wait until keepalive gives up. A kernel without
    INET_DIAG_DESTROY leaves it at that.
    """
    subprocess.run(
        ["ss", "-K", "-H", "-n", "-t", "dst", address], capture_output=True, timeout=_TIMEOUT, check=False,
    )


def load_rules(text: str) -> None:
    """Load nftables text as one transaction. Raises subprocess.CalledProcessError with nft's words."""
    run("nft", "-f", "-", text=text)


def tables() -> frozenset[str]:
    """Names of the tables of all instances on this host."""
    return frozenset(re.findall(r"^table inet (ussycode_[0-9]+)$", run("nft", "list", "tables", text=""), re.M))


def walls(instance: Instance) -> list[int]:
    """Numbers of the guests of this instance that have a wall."""
    listed = run("nft", "list", "tables", text="")
    return sorted(int(number) for number in re.findall(rf"^table netdev {instance.table}_([0-9]+)$", listed, re.M))


def run(*argv: str, text: str) -> str:
    """What a host tool says, given `text` as its input; bounded in time, its complaint kept for the error."""
    return subprocess.run(argv, input=text, text=True, capture_output=True, timeout=_TIMEOUT, check=True).stdout
