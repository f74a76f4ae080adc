"""The QEMU command line of one VM: a pure function of typed facts."""
from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ussycode.runtime.privileged.protocol import Accel

TCG_BUFFER_MIB = 32
"""Translation cache of one TCG guest; the default would be a gigabyte."""
QEMU = "qemu-system-x86_64"
_MACHINE = "microvm,acpi=on,pit=on,pic=on,rtc=on,isa-serial=on,x-option-roms=off,auto-kernel-cmdline=off"
_SANDBOX = "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"
_KERNEL_WORDS = (
    "console=ttyS0 quiet loglevel=1 reboot=t panic=-1 net.ifnames=0 rw random.trust_cpu=on "
    "cryptomgr.notests audit=0 apparmor=0 nowatchdog"
)


@dataclass(frozen=True)
class Descriptors:
    """Open files that QEMU is born with: tap, the two listening sockets, the console log."""

    tap: int
    qmp: int
    agent: int
    console: int
    memory: int = -1
    """Of a template or of what becomes one; -1 for a machine with memory of its own."""

    @property
    def all(self) -> tuple[int, ...]:
        """Every one of them."""
        given = (self.tap, self.qmp, self.agent, self.console)
        return given if self.memory < 0 else (*given, self.memory)


@dataclass(frozen=True)
class Machine:
    """Everything about one VM that shapes its command line. `memory_mib` is the guest's RAM."""

    name: str
    kernel: Path
    initrd: Path
    disk: Path
    mac: str
    vcpus: int
    memory_mib: int
    init: str
    accel: Accel
    tsc_khz: int
    incoming: bool = False
    """Wait for the memory of a machine that ran before, instead of booting."""
    waits: bool = False
    """Boot a kernel that waits for what to go on with."""


def kernel_words(machine: Machine) -> str:
    """The guest kernel's command line.

    Mitigations stay on under KVM, where the guest runs on the real CPU. Under TCG they protect nothing, and
    the clock rate is told because calibrating it against an emulated timer hangs.
    """
    init = "ussy.wait=1" if machine.waits else f"ussy.init={machine.init}"
    if machine.accel is Accel.KVM:
        return f"{_KERNEL_WORDS} {init}"
    tcg = f"tsc=reliable no_timer_check mitigations=off nokaslr tsc_early_khz={machine.tsc_khz}"
    return f"{_KERNEL_WORDS} {tcg} {init}"


def command_line(machine: Machine, fds: Descriptors) -> list[str]:
    """The words to execute; the order of the virtio devices is the guest's order of names."""
    return [
        QEMU, "-name", f"{machine.name},process={machine.name[:15]}", "-nodefaults", "-no-user-config",
        "-display", "none", "-no-reboot", "-sandbox", _SANDBOX, *_cpu(machine),
        *_memory(machine, fds), *_kernel(machine, fds),
        *_talk(fds), *_disk(machine), *_net(machine, fds),
        "-device", "virtio-serial-device,max_ports=2", "-device", "virtserialport,chardev=agent,name=ussy",
        "-object", "rng-random,id=rng0,filename=/dev/urandom", "-device", "virtio-rng-device,rng=rng0",
    ]


def _memory(machine: Machine, fds: Descriptors) -> list[str]:
    """The RAM block has one name whatever is behind it, so that a machine can go on from another's memory.

    A clone maps its template's memory privately: it reads what is there and keeps what it writes to itself. There
    is no balloon among the devices: giving pages back would reach through a private mapping into the file below.
    """
    words = ["-m", f"{machine.memory_mib}M", "-object"]
    if fds.memory < 0:
        words += [f"memory-backend-ram,id=ram,size={machine.memory_mib}M"]
    else:
        share = "off" if machine.incoming else "on"
        words += [f"memory-backend-file,id=ram,size={machine.memory_mib}M,mem-path=/proc/self/fd/{fds.memory},"
                  f"share={share}"]
    wait = ["-incoming", "defer", "-S"] if machine.incoming else []
    return [*words, "-M", f"{_MACHINE},memory-backend=ram", *wait]


def _kernel(machine: Machine, fds: Descriptors) -> list[str]:
    """A clone has its kernel in its memory; reading the files again would take as long as all the rest of its start."""
    if machine.incoming and fds.memory >= 0:
        return []
    return ["-kernel", str(machine.kernel), "-initrd", str(machine.initrd), "-append", kernel_words(machine)]


def _cpu(machine: Machine) -> list[str]:
    smp = ["-smp", str(machine.vcpus)]
    if machine.accel is Accel.KVM:
        return ["-accel", "kvm", "-cpu", "host", *smp]
    return ["-accel", f"tcg,thread=multi,tb-size={TCG_BUFFER_MIB}", "-cpu", "max", *smp]


def _talk(fds: Descriptors) -> list[str]:
    return [
        "-add-fd", f"fd={fds.console},set=1,opaque=console",
        "-chardev", "file,id=console,path=/dev/fdset/1,append=on", "-serial", "chardev:console",
        "-chardev", f"socket,id=qmp,fd={fds.qmp},server=on,wait=off", "-mon", "chardev=qmp,mode=control",
        "-chardev", f"socket,id=agent,fd={fds.agent},server=on,wait=off",
    ]


def _disk(machine: Machine) -> list[str]:
    file = str(machine.disk).replace(",", ",,")  # QEMU's own way to write a comma inside an option
    return [
        "-drive", f"id=disk,file={file},format=qcow2,if=none,cache=writeback,discard=unmap,detect-zeroes=unmap",
        "-device", "virtio-blk-device,drive=disk",
    ]


def _net(machine: Machine, fds: Descriptors) -> list[str]:
    return [
        "-netdev", f"tap,id=net,fd={fds.tap},vhost=off",
        "-device", f"virtio-net-device,netdev=net,mac={machine.mac}",
    ]
