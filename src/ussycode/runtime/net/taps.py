"""Point-to-point taps: the open descriptor, held by QEMU, is the life of the interface."""
from __future__ import annotations

import fcntl
import os
import struct
import subprocess
from pathlib import Path

from ussycode.runtime.instance import GATEWAY, HOST_MAC, Instance

_TUNSETIFF = 0x400454CA
_IFF_TAP, _IFF_NO_PI, _IFF_VNET_HDR = 0x0002, 0x1000, 0x4000
_TIMEOUT = 10.0
"""Seconds that `ip` and `nft` may take; they answer in milliseconds."""


def open_tap(instance: Instance, number: int) -> int:
    """A descriptor of the fresh tap of VM `number`, addressed, routed and up. Root only.

    The interface, its address and its route vanish when the last descriptor is closed.
    Raises OSError when the tap is in use, subprocess.CalledProcessError when `ip` refuses.
    """
    name = instance.tap(number)
    fd = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        fcntl.ioctl(fd, _TUNSETIFF, struct.pack("16sH22x", name.encode(), _IFF_TAP | _IFF_NO_PI | _IFF_VNET_HDR))
        _configure(name, instance.address(number))
    except BaseException:
        os.close(fd)
        raise
    return fd


def _configure(name: str, address: str) -> None:
    ipv6 = Path(f"/proc/sys/net/ipv6/conf/{name}/disable_ipv6")
    if ipv6.exists():
        ipv6.write_text("1")
    run("ip", "-batch", "-", text=(
        f"link set dev {name} address {HOST_MAC}\n"
        f"addr add {GATEWAY}/32 dev {name}\n"
        f"link set dev {name} up\n"
        f"route replace {address}/32 dev {name} src {GATEWAY}\n"
    ))


def leftover(instance: Instance) -> list[str]:
    """Names of this instance's taps that exist now."""
    return sorted(p.name for p in Path("/sys/class/net").glob(f"{instance.tap_prefix}*"))


def remove(name: str) -> None:
    """Take a tap away; no error when it is gone already."""
    subprocess.run(["ip", "link", "del", "dev", name], capture_output=True, timeout=_TIMEOUT, check=False)


def hold_pool(instance: Instance) -> None:
    """Let addresses of guests that are not there be unreachable, not somebody's beyond the default route."""
    run("ip", "route", "replace", "unreachable", str(instance.pool), text="")


def release_pool(instance: Instance) -> None:
    """Undo `hold_pool`; no error when there is nothing to undo."""
    subprocess.run(
        ["ip", "route", "del", "unreachable", str(instance.pool)], capture_output=True, timeout=_TIMEOUT, check=False,
    )


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
    listed = run("nft", "list", "tables", text="")
    names = (line.split()[-1] for line in listed.splitlines() if line.strip())
    return frozenset(name for name in names if name.startswith("ussycode_"))


def run(*argv: str, text: str) -> str:
    """What a host tool says, given `text` as its input; bounded in time, its complaint kept for the error."""
    return subprocess.run(argv, input=text, text=True, capture_output=True, timeout=_TIMEOUT, check=True).stdout
