"""Whether KVM runs our guests: /dev/kvm existing proves nothing, a bounded test boot does."""
from __future__ import annotations

import fcntl
import hashlib
import json
import os
import secrets
import socket
import subprocess
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from ussycode.runtime import host_tool
from ussycode.runtime.guest.protocol import NONCE_CHARS, SYNC
from ussycode.runtime.kernel import BootFiles
from ussycode.runtime.publish import locked, write_atomically

BOOT_SECONDS = 6.0
"""A stock kernel under real KVM speaks within one second, also on a loaded host."""

GET_API_VERSION, API_VERSION = 0xAE00, 12
CACHED = frozenset({"ok", "hang"})
"""Outcomes that stay true until the host restarts; the others are mended by installing or granting something."""

Outcome = Literal["ok", "hang", "qemu-exited", "no-device", "pvm", "denied"]

REMEDIES: dict[Outcome, str] = {
    "ok": "",
    "hang": "nothing to mend here: virtual machines run under software emulation, which is slower",
    "qemu-exited": "read QEMU's words above; a newer qemu-system-x86 or host kernel usually helps",
    "no-device": "switch on virtualisation in the firmware (or nested virtualisation at the provider), "
                 "then: sudo modprobe kvm_intel || sudo modprobe kvm_amd",
    "pvm": "nothing to mend here: this host is itself a virtual machine of a kind that cannot run stock kernels; "
           "virtual machines run under software emulation, which is slower",
    "denied": "sudo usermod --append --groups kvm $USER, then log in again",
}


@dataclass(frozen=True)
class KvmVerdict:
    """`usable` says whether to start VMs with KVM; `why` is a sentence for the operator."""

    usable: bool
    outcome: Outcome
    why: str

    @property
    def todo(self) -> str:
        """What the operator can do about it; empty when all is well."""
        return REMEDIES[self.outcome]


@dataclass(frozen=True)
class Trial:
    """One test boot: how, and where on the host to look. The defaults are the real host."""

    qemu: str = "qemu-system-x86_64"
    accel: str = "kvm"
    cpu: str = "host"
    cmdline: str = ""
    seconds: float = BOOT_SECONDS
    device: Path = Path("/dev/kvm")
    pvm: Path = Path("/sys/module/kvm_pvm")
    boot_id: Path = Path("/proc/sys/kernel/random/boot_id")


def probe(boot: BootFiles, cache: Path, trial: Trial | None = None) -> KvmVerdict:
    """Decide whether VMs run under KVM here. Blocks for at most `BOOT_SECONDS` and a little, once per host boot.

    What the device and the host's modules say decides at once; else a VM is booted from `boot`, and its agent must
    speak. `ok` and `hang` are kept in `cache` for this host boot, kernel, QEMU and guest kernel. Raises TOOL_MISSING
    when QEMU is not installed.
    """
    trial = trial or Trial()
    return glance(trial) or tried(boot, cache, trial)


def tried(boot: BootFiles, cache: Path, trial: Trial) -> KvmVerdict:
    """The verdict of a test boot, from `cache` when this host boot has one."""
    file = cache / f"kvm-{_key(boot, trial)}.json"
    with locked(cache / "kvm.lock"):
        if file.exists():
            return KvmVerdict(**json.loads(file.read_text()))
        verdict = attempt(boot, trial)
        if verdict.outcome in CACHED:
            write_atomically(file, json.dumps(asdict(verdict)))
    return verdict


def glance(trial: Trial) -> KvmVerdict | None:
    """What can be decided without starting a VM; None when only a boot can tell."""
    if trial.pvm.exists():
        return KvmVerdict(False, "pvm", "the host's KVM is paravirtual (kvm_pvm), a stock guest kernel hangs in it")
    try:
        with trial.device.open("r+b", buffering=0) as device:
            version = fcntl.ioctl(device, GET_API_VERSION)
    except PermissionError:
        return KvmVerdict(False, "denied", f"{trial.device} may not be opened by this user")
    except OSError as missing:
        return KvmVerdict(False, "no-device", f"{trial.device}: {missing.strerror}")
    if version != API_VERSION:
        return KvmVerdict(False, "no-device", f"{trial.device} speaks version {version}, not {API_VERSION}")
    return None


def attempt(boot: BootFiles, trial: Trial) -> KvmVerdict:
    """Boot once and wait for the agent's first byte. Leaves no process and no file behind."""
    with tempfile.TemporaryDirectory(prefix="ussycode-kvm-") as scratch:
        work = Path(scratch)
        _make_disk(work)
        log = work / "qemu.log"
        with log.open("wb") as output:
            began = time.monotonic()
            process = subprocess.Popen(
                command(boot, trial, work), stdin=subprocess.DEVNULL, stdout=output, stderr=output,
                env=host_tool.environment(), start_new_session=True,
            )
        spoke = False
        try:
            spoke = _heard(process, work / "agent.sock", began + trial.seconds)
        finally:
            status = None if spoke else _ended(process)
            process.kill()
            process.wait()
        return _verdict(spoke, status, time.monotonic() - began, log.read_text(errors="replace"))


def _verdict(spoke: bool, status: int | None, took: float, log: str) -> KvmVerdict:
    if spoke:
        return KvmVerdict(True, "ok", f"a test guest answered after {took:.1f} s")
    if status is not None:
        said = log.strip().splitlines()[-1:] or [f"exit status {status}"]
        return KvmVerdict(False, "qemu-exited", f"QEMU ended at once: {said[0][-200:]}")
    return KvmVerdict(False, "hang", f"a test guest said nothing within {took:.0f} s")


def command(boot: BootFiles, trial: Trial, work: Path) -> list[str]:
    """The smallest machine in which the agent can speak: a disk of a few directories, no network."""
    return [
        str(host_tool.find(trial.qemu)), "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot",
        "-accel", trial.accel, "-cpu", trial.cpu, "-smp", "1", "-m", "128M",
        "-M", "microvm,acpi=on,x-option-roms=off,auto-kernel-cmdline=off",
        "-kernel", str(boot.kernel), "-initrd", str(boot.initrd),
        "-append", f"console=ttyS0 quiet panic=-1 reboot=t net.ifnames=0 rw ussy.init=tiny {trial.cmdline}".strip(),
        "-chardev", f"socket,id=agent,path={work}/agent.sock,server=on,wait=off",
        "-drive", f"id=disk,file={work}/disk.raw,format=raw,if=none", "-device", "virtio-blk-device,drive=disk",
        "-device", "virtio-serial-device,max_ports=2", "-device", "virtserialport,chardev=agent,name=ussy",
    ]


def _make_disk(work: Path) -> None:
    for name in ("dev", "proc", "sys", "run", "tmp", "etc", "root"):
        (work / "tree" / name).mkdir(parents=True)
    host_tool.run(
        ["mkfs.ext4", "-q", "-F", "-O", "^has_journal", "-d", work / "tree", work / "disk.raw", "16M"], timeout=30,
    )


def _heard(process: subprocess.Popen[bytes], path: Path, until: float) -> bool:
    """Whether the guest said anything before `until` (monotonic seconds) or the process ended."""
    greeting = SYNC + secrets.token_hex(NONCE_CHARS // 2).encode()
    while process.poll() is None and (left := until - time.monotonic()) > 0:
        with socket.socket(socket.AF_UNIX) as channel:
            channel.settimeout(left)
            try:
                channel.connect(str(path))
                channel.sendall(greeting)
                return bool(channel.recv(1))
            except (FileNotFoundError, ConnectionError):
                time.sleep(min(left, 0.01))  # QEMU has not made its socket yet
            except TimeoutError:
                return False
    return False


def _ended(process: subprocess.Popen[bytes]) -> int | None:
    """Exit status if the process is ending; its socket closes a moment before it can be reaped."""
    try:
        return process.wait(timeout=0.3)
    except subprocess.TimeoutExpired:
        return None


def _key(boot: BootFiles, trial: Trial) -> str:
    qemu = host_tool.run([trial.qemu, "--version"], timeout=20).splitlines()[0]
    facts = (trial.boot_id.read_text(), os.uname().release, qemu, boot.digest)
    return hashlib.sha256("\n".join(facts).encode()).hexdigest()[:16]
