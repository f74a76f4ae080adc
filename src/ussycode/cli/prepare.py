"""Everything that must exist before the platform can serve, made when missing, with progress."""
from __future__ import annotations

import os
import pwd
import shutil
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from ussycode.base.errors import ErrorCode, Kind
from ussycode.config import Config
from ussycode.identity.keys import read_public_key
from ussycode.runtime import host_tool
from ussycode.runtime import instance as instances
from ussycode.runtime.instance import Instance
from ussycode.runtime.kernel import BootFiles

NOT_ROOT = ErrorCode(
    "up.not_root", Kind.FAILED, "ussycode needs root to make network interfaces and to give every VM its own user",
    hint="run: sudo {command}",
)
TOOL_MISSING = ErrorCode(
    "up.tools_missing", Kind.FAILED, "these programs are missing: {tools}", hint="run: sudo make setup"
)
BAD_KEY_FILE = ErrorCode(
    "up.bad_key_file", Kind.USAGE, "{file} holds no usable public key: {why}",
    hint="make one with ssh-keygen -t ed25519",
)
TOOLS = ("qemu-system-x86_64", "qemu-img", "nft", "ip", "mmdebstrap", "musl-gcc", "mkfs.ext4", "dpkg-deb", "apt-get")
"""Programs of the host that running and building VMs needs."""
Say = Callable[[str], None]


@dataclass(frozen=True)
class Prepared:
    """What the supervisor starts from."""

    instance: Instance
    boot: BootFiles
    accel: str
    tsc_khz: int
    admin_keys: list[str]


@dataclass
class Progress:
    """Prints a stage when it begins, and its percentage now and then."""

    say: Say
    stage: str = ""
    last: float = field(default_factory=lambda: 0.0)

    def __call__(self, stage: str, done: float) -> None:
        """A step of a long piece of work; `done` is 0..1."""
        now = time.monotonic()
        if stage == self.stage and now - self.last < 5 and done < 1:
            return
        self.say(f"  {stage}" + (f" ({done:.0%})" if 0 < done < 1 else ""))
        self.stage, self.last = stage, now


def require_root() -> None:
    """Nothing for root; NOT_ROOT says how to become it."""
    if os.geteuid() != 0:
        raise NOT_ROOT(command=" ".join([str(Path(sys.argv[0]).absolute()), *sys.argv[1:]]))


def missing_tools() -> list[str]:
    """Names from TOOLS that this host lacks."""
    path = os.environ.get("PATH", os.defpath) + ":/usr/sbin:/sbin"
    return [tool for tool in TOOLS if shutil.which(tool, path=path) is None]


def prepare(config: Config, say: Say) -> Prepared:
    """Folders, kernel, guest program, default image, acceleration. Idempotent; the second time it is quick."""
    if lacking := missing_tools():
        raise TOOL_MISSING(tools=", ".join(lacking))
    if config.containers:
        host_tool.find("runc")
    config.data_dir.mkdir(mode=0o711, parents=True, exist_ok=True)
    instance = instances.claim(config.data_dir)
    instances.make_folders(instance)
    _private(config.data_dir / "control", instance.control_uid)
    _private(config.data_dir / "edge", instance.edge_uid)
    (config.data_dir / "log").mkdir(mode=0o755, exist_ok=True)
    keys = admin_keys(config)
    if config.runtime == "fake":
        return Prepared(instance, BootFiles(Path("/"), Path("/"), "", ""), "tcg", 0, keys)
    return _with_machines(config, instance, keys, say)


def _with_machines(config: Config, instance: Instance, keys: list[str], say: Say) -> Prepared:
    from ussycode.runtime.images.store import ImageStore
    from ussycode.runtime.kernel import boot_files
    from ussycode.runtime.tsc import tsc_khz

    boot = boot_files(config.data_dir / "cache", Progress(say))
    store = ImageStore(config.data_dir / "images")
    if store.find(config.default_image) is None:
        say(f"building the image {config.default_image}, once; this takes a minute or two")
    store.ensure(config.default_image, Progress(say))
    accel = choose_accel(config, boot, say)
    return Prepared(instance, boot, accel, tsc_khz() if accel == "tcg" else 0, keys)


def choose_accel(config: Config, boot: BootFiles, say: Say) -> str:
    """`kvm` or `tcg`, probing when the setting leaves it open; a forced kvm that does not work is said."""
    from ussycode.runtime.kvm import probe

    if config.accel == "tcg":
        return "tcg"
    verdict = probe(boot, config.data_dir / "cache")
    if verdict.usable:
        return "kvm"
    say(f"  VMs run under software emulation: {verdict.why}")
    if config.accel == "kvm":
        raise KVM_UNUSABLE(why=verdict.why, todo=verdict.todo)
    return "tcg"


KVM_UNUSABLE = ErrorCode(
    "up.kvm_unusable", Kind.FAILED, "accel = kvm, but KVM is not usable: {why}", hint="{todo}, or leave accel at auto"
)


def admin_keys(config: Config) -> list[str]:
    """Public keys that may register as admin: the configured file's, else the operator's own."""
    if config.admin_keys is not None:
        lines = config.admin_keys.read_text().splitlines() if config.admin_keys.exists() else []
        found = [line for line in lines if line.strip() and not line.startswith("#")]
        for line in found or [""]:
            try:
                read_public_key(line)
            except ValueError as why:
                raise BAD_KEY_FILE(file=config.admin_keys, why=why) from None
        return found
    return [line for file in sorted(operator_home().glob(".ssh/*.pub")) if (line := _usable(file))]


def operator_home() -> Path:
    """Home of the person at the keyboard, also under sudo."""
    try:
        return Path(pwd.getpwnam(os.environ["SUDO_USER"]).pw_dir)
    except KeyError:
        return Path.home()


def _usable(file: Path) -> str:
    try:
        line = file.read_text().strip()
        read_public_key(line)
    except (OSError, ValueError):
        return ""
    return line


def _private(folder: Path, uid: int) -> None:
    folder.mkdir(mode=0o700, exist_ok=True)
    os.chown(folder, uid, uid)
    folder.chmod(0o700)
