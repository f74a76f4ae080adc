"""One bare QEMU machine on a tap of its own: enough to meet the guest program, without any driver."""
from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import shutil
import struct
import subprocess
import tempfile
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

from ussycode.base.clock import SystemClock
from ussycode.runtime import tsc
from ussycode.runtime.guest.channel import ControlChannel
from ussycode.runtime.guest.identity import GATEWAY, Identity
from ussycode.runtime.guest.streams import GuestAddress
from ussycode.runtime.kernel import BootFiles

TUNSETIFF, TAP_NO_PI_VNET_HDR = 0x400454CA, 0x0002 | 0x1000 | 0x4000
SECRET = "c0" * 32
LIFE_SECONDS = 100
"""A machine that a broken test forgets ends by itself."""
CMDLINE = (
    "console=ttyS0 quiet loglevel=4 reboot=t panic=-1 tsc=reliable no_timer_check net.ifnames=0 rw "
    "cryptomgr.notests audit=0 apparmor=0 nowatchdog ussy.init=tiny"
)
USERS = "root:x:0:0:root:/root:/bin/sh\nussy:x:1000:1000::/home/ussy:/bin/sh\n"
GROUPS = "root:x:0:\ntty:x:5:\nussy:x:1000:\nstaff:x:50:ussy\n"


@dataclass(frozen=True)
class Machine:
    """A machine that said hello."""

    folder: Path
    address: str
    channel: ControlChannel
    process: asyncio.subprocess.Process
    hello_ms: float
    """From QEMU's start to the agent's hello."""

    @property
    def addr(self) -> GuestAddress:
        return GuestAddress(self.address, SECRET)

    def identity(self, **changes: object) -> Identity:
        told: dict[str, object] = {
            "hostname": "demo", "address": self.address, "secret": SECRET, "machine_id": "ab" * 16,
            "login_user": "ussy", "env": (("GREETING", "hello there"),), "dns": (GATEWAY,),
            "authorized_keys": ("ssh-ed25519 AAAA alice@laptop",),
        }
        return Identity(**{**told, **changes})  # type: ignore[arg-type]

    @property
    def console(self) -> str:
        return (self.folder / "console.log").read_text(errors="replace")


def busybox_disk(cache: Path, folder: Path, megabytes: int = 32, *, shell: bool = True) -> Path:
    """An ext4 image whose only program is a static busybox, on a disk twice as large as its file system.

    Without `shell` it is under no other name, so that no /bin/sh exists.
    """
    tree = folder / "tree"
    for name in ("bin", "etc/profile.d", "etc/ssh", "root", "home/ussy", "var", "usr/bin"):
        (tree / name).mkdir(parents=True)
    shutil.copy(_busybox(cache), tree / "bin/busybox")
    names = subprocess.run([tree / "bin/busybox", "--list"], check=True, capture_output=True, text=True).stdout
    for name in names.split() if shell else ():
        with contextlib.suppress(FileExistsError):
            (tree / "bin" / name).symlink_to("busybox")
    (tree / "etc/passwd").write_text(USERS)
    (tree / "etc/group").write_text(GROUPS)
    (tree / "etc/profile").write_text("for f in /etc/profile.d/*.sh; do . $f; done\n")
    os.chown(tree / "home/ussy", 1000, 1000)
    disk = folder / "disk.raw"
    command = ["mkfs.ext4", "-q", "-F", "-d", str(tree), "-E", "resize=1000000", str(disk), f"{megabytes}M"]
    subprocess.run(command, check=True, capture_output=True, timeout=30)
    os.truncate(disk, 2 * megabytes << 20)
    return disk


def _busybox(cache: Path) -> Path:
    kept = cache / "busybox"
    if not kept.exists():
        with tempfile.TemporaryDirectory(dir=cache) as work:
            subprocess.run(["apt-get", "-q", "download", "busybox-static"], cwd=work, check=True,
                           capture_output=True, timeout=60)
            deb = next(Path(work).glob("*.deb"))
            subprocess.run(["dpkg-deb", "-x", deb, f"{work}/tree"], check=True, timeout=60)
            Path(work, "tree/bin/busybox").replace(kept)
    return kept


def _tap(name: str, address: str) -> int:
    fd = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(fd, TUNSETIFF, struct.pack("16sH22x", name.encode(), TAP_NO_PI_VNET_HDR))
    for words in (f"addr add {GATEWAY}/32 dev {name}", f"link set {name} up", f"route add {address}/32 dev {name}"):
        subprocess.run(["ip", *words.split()], check=True, capture_output=True, timeout=10)
    return fd


def _command(boot: BootFiles, folder: Path, disk: Path, tap: int, extra: str) -> list[str]:
    machine = "microvm,acpi=on,pit=on,pic=on,rtc=on,isa-serial=on,x-option-roms=off,auto-kernel-cmdline=off"
    text = (
        f"timeout -k 1 {LIFE_SECONDS} qemu-system-x86_64 -nodefaults -no-user-config -display none -no-reboot "
        f"-accel tcg,thread=multi,tb-size=64 -cpu max -smp 1 -m 256M -M {machine} "
        f"-kernel {boot.kernel} -initrd {boot.initrd} -serial file:{folder}/console.log "
        f"-chardev socket,id=ag,path={folder}/agent.sock,server=on,wait=off "
        f"-drive id=d0,file={disk},format=raw,if=none,cache=writeback -device virtio-blk-device,drive=d0 "
        f"-netdev tap,id=n0,fd={tap},vhost=off -device virtio-net-device,netdev=n0,mac=02:00:00:00:00:02 "
        "-device virtio-serial-device,max_ports=2 -device virtserialport,chardev=ag,name=ussy "
        "-object rng-random,id=rng0,filename=/dev/urandom -device virtio-rng-device,rng=rng0"
    )
    return [*text.split(), "-append", f"{CMDLINE} tsc_early_khz={tsc.tsc_khz()} {extra}"]


@contextlib.asynccontextmanager
async def machine(boot: BootFiles, disk: Path, folder: Path, extra: str = "") -> AsyncIterator[Machine]:
    """Boot, wait for hello, and afterwards leave neither process nor tap behind."""
    number = os.getpid() % 250 + 2
    address = f"10.213.77.{number}"
    tap = _tap(f"ussytest{number}", address)
    loop = asyncio.get_running_loop()
    began = loop.time()
    process = await asyncio.create_subprocess_exec(
        *_command(boot, folder, disk, tap, extra), pass_fds=(tap,), stdin=asyncio.subprocess.DEVNULL)
    os.close(tap)
    channel = ControlChannel(folder / "agent.sock", SystemClock())
    channel.start()
    try:
        await channel.ready(60)
        yield Machine(folder, address, channel, process, (loop.time() - began) * 1000)
    finally:
        await channel.close()
        if process.returncode is None:
            process.terminate()
            await asyncio.wait_for(process.wait(), 10)
