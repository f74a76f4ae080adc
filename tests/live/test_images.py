"""The images that ship, booted: what a person finds in a new machine, and that a failed build leaves nothing."""
from __future__ import annotations

import asyncio
import contextlib
import secrets
import socket
import subprocess
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from ussycode.base.clock import SystemClock
from ussycode.base.errors import Failure
from ussycode.runtime import host_tool, kvm
from ussycode.runtime.guest.channel import ControlChannel
from ussycode.runtime.guest.execs import ExecSpec, run
from ussycode.runtime.guest.identity import Identity
from ussycode.runtime.guest.streams import GuestAddress, dial
from ussycode.runtime.images.store import Image, ImageStore
from ussycode.runtime.kernel import BootFiles
from ussycode.runtime.kvm import Trial
from ussycode.runtime.tsc import tsc_khz

LIFE_SECONDS = 150
"""No machine of this file lives longer, whatever happens to the test."""
ADDRESS = "169.254.1.15"


@dataclass
class Guest:
    """A booted machine: its control channel, where its streams answer, and its QEMU."""

    control: ControlChannel
    streams: GuestAddress
    qemu: subprocess.Popen[bytes]
    console: Path
    booted_in: float

    async def says(self, cmd: str, user: str = "") -> str:
        """What `cmd` prints; it must succeed."""
        done = await run(self.streams, ExecSpec(cmd=cmd, user=user, login=True), timeout=60)
        assert done.status == 0, (cmd, done)
        return done.stdout.decode().strip()


def emulated() -> list[str]:
    """A machine under software emulation with a network of its own, reached through the host's loopback."""
    return [
        "-accel", "tcg,thread=multi,tb-size=64", "-cpu", "max", "-smp", "1", "-m", "512M",
        "-M", "microvm,acpi=on,pit=on,pic=on,rtc=on,isa-serial=on,x-option-roms=off,auto-kernel-cmdline=off",
    ]


def cmdline(init: str) -> str:
    return (
        "console=ttyS0 quiet loglevel=1 reboot=t panic=-1 tsc=reliable no_timer_check mitigations=off nokaslr "
        f"net.ifnames=0 rw cryptomgr.notests audit=0 apparmor=0 selinux=0 nowatchdog tsc_early_khz={tsc_khz()} "
        f"ussy.init={init}"
    )


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


@contextlib.asynccontextmanager
async def booted(boot: BootFiles, image: Image, work: Path, disk_gib: int = 5) -> AsyncIterator[Guest]:
    """A machine from `image`, configured; ended with the block."""
    disk, console, port = work / "disk.qcow2", work / "console.log", free_port()
    host_tool.run(["qemu-img", "create", "-q", "-f", "qcow2", "-b", image.disk, "-F", "raw", disk, f"{disk_gib}G"],
                  timeout=20)
    net = f"user,id=net,net=169.254.1.0/24,host=169.254.1.1,dns=169.254.1.3,dhcpstart=169.254.1.20," \
          f"hostfwd=tcp:127.0.0.1:{port}-{ADDRESS}:1021"
    began = time.monotonic()
    qemu = subprocess.Popen([
        "timeout", str(LIFE_SECONDS), "qemu-system-x86_64", "-nodefaults", "-no-user-config", "-display", "none",
        "-no-reboot", *emulated(), "-kernel", boot.kernel, "-initrd", boot.initrd, "-append", cmdline(image.init),
        "-serial", f"file:{console}", "-chardev", f"socket,id=agent,path={work}/agent.sock,server=on,wait=off",
        "-drive", f"id=disk,file={disk},format=qcow2,if=none", "-device", "virtio-blk-device,drive=disk",
        "-netdev", net, "-device", "virtio-net-device,netdev=net",
        "-device", "virtio-serial-device,max_ports=2", "-device", "virtserialport,chardev=agent,name=ussy",
        "-object", "rng-random,id=rng,filename=/dev/urandom", "-device", "virtio-rng-device,rng=rng",
    ])
    control = ControlChannel(work / "agent.sock", SystemClock())
    control.start()
    try:
        await control.ready(60)
        secret = secrets.token_hex(32)
        await control.configure(Identity(
            hostname="demo", address=ADDRESS, secret=secret, machine_id=secrets.token_hex(16),
            login_user=image.login_user, dns=("169.254.1.3",), env=(("GREETING", "hello # world"), ("PLAIN", "yes")),
        ))
        booted_in = time.monotonic() - began
        yield Guest(control, GuestAddress("127.0.0.1", secret, port), qemu, console, booted_in)
    finally:
        await control.close()
        qemu.terminate()
        await asyncio.to_thread(qemu.wait, 20)


async def power_off(guest: Guest) -> None:
    """Ask for it; the machine may be gone before its answer is read."""
    with contextlib.suppress(Failure):
        await guest.control.shutdown()


async def test_debian_min_is_a_debian_with_python_and_sudo(
    boot: BootFiles, debian_min: Image, tmp_path: Path,
) -> None:
    async with booted(boot, debian_min, tmp_path, disk_gib=7) as guest:
        assert await guest.says("whoami; hostname; pwd") == "ussy\ndemo\n/home/ussy"
        assert await guest.says("sudo -n id -u") == "0"
        assert await guest.says("echo $GREETING; echo $SHELL") == "hello # world\n/bin/bash"
        assert int(await guest.says("df --output=size -BM / | tail -1 | tr -dc 0-9")) > 6500
        assert "inet 169.254.1.15/32" in await guest.says("ip -4 addr show eth0")
        assert await guest.says("dpkg --audit; sudo apt-get -q check >&2; echo sound") == "sound"
        await guest.says("cd /tmp && echo from-the-vm > index.html && (setsid python3 -m http.server 8000 "
                         ">/dev/null 2>&1 < /dev/null &) && for i in $(seq 100); do "
                         "python3 -c 'import socket; socket.create_connection((\"127.0.0.1\", 8000))' "
                         "2>/dev/null && exit 0; done; exit 1")
        page = await dial(guest.streams, port=8000)
        page.writer.write(b"GET / HTTP/1.0\r\n\r\n")
        assert (await page.reader.read()).endswith(b"from-the-vm\n")
        await page.close()
        await power_off(guest)
        assert await asyncio.to_thread(guest.qemu.wait, 20) == 0


async def test_ussyuntu_comes_up_whole(boot: BootFiles, ussyuntu: Image, tmp_path: Path) -> None:
    async with booted(boot, ussyuntu, tmp_path) as guest:
        await guest.says("for i in $(seq 300); do [ -S /run/dbus/system_bus_socket ] && exit; sleep 0.1; done; exit 1")
        assert await guest.says("systemctl is-system-running --wait") == "running"
        assert await guest.says("systemctl --failed --plain --no-legend") == ""
        assert await guest.says("whoami; hostname; sudo -n id -u") == "ussy\ndemo\n0"
        assert await guest.says("systemctl --user is-system-running --wait") == "running"
        assert await guest.says("systemctl show-environment | grep PLAIN") == "PLAIN=yes"
        assert "inet 169.254.1.15/32" in await guest.says("ip -4 addr show eth0")
        tools = "git curl wget tmux jq rg fd sqlite3 rsync htop ping nano vi make unzip xz file python3"
        assert await guest.says(f"for tool in {tools}; do command -v $tool >/dev/null || echo $tool; done") == ""
        assert "ussycode" in await guest.says("cat ~/AGENTS.md")
        await check_ssh(guest)
        await power_off(guest)
        assert await asyncio.to_thread(guest.qemu.wait, 30) == 0


async def check_ssh(guest: Guest) -> None:
    """The guest's own sshd: keys of the account, keys only, nobody as root, and the machine's settings."""
    await guest.says("ssh-keygen -q -t ed25519 -N '' -f ~/.ssh/id_ed25519")
    await guest.control.set_authorized_keys([await guest.says("cat ~/.ssh/id_ed25519.pub")])
    ssh = "ssh -o StrictHostKeyChecking=accept-new -o BatchMode=yes"
    assert await guest.says(f"{ssh} ussy@127.0.0.1 'echo $PLAIN $XDG_RUNTIME_DIR'") == "yes /run/user/1000"
    assert await guest.says(f"{ssh} root@127.0.0.1 true || echo refused") == "refused"
    assert await guest.says(f"{ssh} -o PubkeyAuthentication=no ussy@127.0.0.1 true || echo refused") == "refused"


@pytest.mark.parametrize("name", ["debian_min", "ussyuntu"])
def test_an_image_holds_nothing_that_two_machines_must_not_share(name: str, request: pytest.FixtureRequest) -> None:
    image: Image = request.getfixturevalue(name)

    def inside(question: str) -> str:
        return host_tool.run(["debugfs", "-R", question, image.disk], timeout=30)

    assert "Size: 0" in inside("stat /etc/machine-id")
    assert "ssh_host" not in inside("ls /etc/ssh")
    assert "resolv.conf" not in inside("ls /etc")
    assert ".deb" not in inside("ls /var/cache/apt/archives")
    assert "customize.sh" not in inside("ls /")
    assert "building" not in inside("ls /etc/dpkg/dpkg.cfg.d")
    host_tool.run(["e2fsck", "-fn", image.disk], timeout=60)
    assert image.disk.stat().st_mode & 0o777 == 0o644


def test_a_failed_build_leaves_nothing_and_says_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:
    """mmdebstrap is replaced by a program that makes half a system and gives up."""
    (tmp_path / "bin").mkdir()
    broken = tmp_path / "bin/mmdebstrap"
    broken.write_text('#!/bin/sh\nfor word; do case $word in */tree) mkdir -p "$word/etc";; esac; done\n'
                      'echo "I: running apt-get update..." >&2\necho "E: the archive does not answer" >&2\nexit 1\n')
    broken.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}/bin:/usr/sbin:/usr/bin:/sbin:/bin")
    store, stages = ImageStore(tmp_path / "images"), []
    with pytest.raises(Failure) as failed:
        store.build("debian-min", lambda stage, done: stages.append(stage))
    assert failed.value.sentence == "mmdebstrap failed: E: the archive does not answer"
    assert stages == ["fetching tools", "reading the package lists"]
    assert store.list() == []
    assert [path.name for path in store.root.iterdir()] == ["build.lock"]


def test_the_kvm_probe_boots_the_real_kernel_and_hears_the_agent(boot: BootFiles) -> None:
    """Under software emulation, so that the whole path is proved on hosts without KVM too."""
    words = f"tsc=reliable no_timer_check tsc_early_khz={tsc_khz()} loglevel=1"
    verdict = kvm.attempt(boot, Trial(accel="tcg", cpu="max", cmdline=words, seconds=60))
    assert (verdict.usable, verdict.outcome) == (True, "ok"), verdict


def test_the_kvm_probe_reaches_a_verdict_on_this_host(boot: BootFiles, tmp_path: Path) -> None:
    began = time.monotonic()
    verdict = kvm.probe(boot, tmp_path)
    assert verdict.usable == (verdict.outcome == "ok")
    assert time.monotonic() - began < kvm.BOOT_SECONDS + 4
    assert kvm.probe(boot, tmp_path).outcome == verdict.outcome
