"""The guest kernel: Debian's cloud kernel, downloaded and unpacked, never installed on the host."""
from __future__ import annotations

import hashlib
import json
import lzma
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from ussycode.base.errors import ErrorCode, Failure, Kind
from ussycode.runtime import bzimage, host_tool
from ussycode.runtime.publish import locked, publish, staging, write_atomically

Progress = Callable[[str, float], None]
"""Called with a stage in words and how much of the whole is done, from 0 to 1."""

METAPACKAGE = "linux-image-cloud-amd64"

MODULES = (
    "virtio_ring", "virtio", "virtio_mmio", "virtio_blk", "failover", "net_failover", "virtio_net",
    "virtio_console", "virtio-rng",
)
"""What the initrd must load before it sees a disk, in loading order."""

DOWNLOAD_SECONDS = 600.0
UNPACK_SECONDS = 120.0

NO_PACKAGE = ErrorCode(
    "kernel.no_package", Kind.UNAVAILABLE,
    "apt knows no package {name}, from which the guest kernel is taken",
    hint="sudo apt-get update (a Debian archive for amd64 must be among the host's sources)",
)
DAMAGED = ErrorCode(
    "kernel.damaged", Kind.FAILED, "the downloaded kernel package {name} is not what the archive promised",
    hint="sudo apt-get update, then try again",
)
NO_MODULE = ErrorCode("kernel.no_module", Kind.FAILED, "the kernel package {name} has no module {module}")


@dataclass(frozen=True)
class Package:
    """One concrete package of the archive; `sha256` is of the .deb, as the signed lists promise it."""

    name: str
    version: str
    sha256: str


@dataclass(frozen=True)
class Kernel:
    """An unpacked kernel. `modules` are those of `MODULES` that are not built in; `digest` is the package's."""

    vmlinux: Path
    modules: Mapping[str, bytes]
    version: str
    digest: str


@dataclass(frozen=True)
class BootFiles:
    """What QEMU boots: ELF kernel, and initrd with the guest program. `digest` changes when either does."""

    kernel: Path
    initrd: Path
    version: str
    digest: str
    guest: Path = Path("/nonexistent/ussy-init")
    """The static guest program by itself, for containers."""


def silent(stage: str, done: float) -> None:
    """A progress callback for callers that show nothing."""


def boot_files(cache: Path, progress: Progress = silent) -> BootFiles:
    """Kernel and initrd, made when missing and kept in `cache`. Blocks; the second call takes milliseconds.

    Raises the failures of `fetch_kernel`, and those of building the guest program.
    """
    from ussycode.runtime.guest.build import build
    from ussycode.runtime.guest.initrd import make_initrd

    kernel = fetch_kernel(cache, lambda stage, done: progress(stage, done * 0.9))
    progress("building the guest program", 0.9)
    cache.mkdir(parents=True, exist_ok=True)
    init = build(cache / "guest")
    digest = _digest(kernel, init.read_bytes())
    final = cache / "boot" / digest
    with locked(cache / "boot.lock"):
        if not final.exists():
            with staging(cache) as folder:
                make_initrd(init, kernel.modules, folder / "initrd")
                (folder / "initrd").chmod(0o644)
                publish(folder, final)
    progress("kernel and initrd are ready", 1.0)
    return BootFiles(kernel.vmlinux, final / "initrd", kernel.version, digest, init)


def fetch_kernel(cache: Path, progress: Progress = silent, *, update: bool = False) -> Kernel:
    """The guest kernel, from `cache` without asking anybody when it is there.

    `update` asks apt's local lists first and moves to a newer package. Blocks (a download of about 27 MB the
    first time). Raises NO_PACKAGE, DAMAGED, NO_MODULE, and what `host_tool.run` raises. Leaves nothing
    half-made.
    """
    folder = cache / "kernel"
    with locked(cache / "kernel.lock"):
        known = _current(folder)
        if known is not None and not update:
            return known
        progress("looking up the guest kernel", 0.0)
        package = resolve()
        if not (folder / package.sha256).exists():
            _unpack_into(folder, package, progress)
        write_atomically(folder / "current", package.sha256)
    progress(f"guest kernel {package.version}", 1.0)
    return _load(folder / package.sha256)


def resolve(name: str = METAPACKAGE) -> Package:
    """The concrete package behind the metapackage, from apt's local lists."""
    depends = _fields(name).get("Depends", "")
    found = re.search(r"\blinux-image-[0-9][^\s,|(]*-cloud-amd64\b", depends)
    if found is None:
        raise NO_PACKAGE(name=name)
    fields = _fields(found[0])
    return Package(found[0], fields["Version"], fields["SHA256"])


def _fields(name: str) -> dict[str, str]:
    try:
        text = host_tool.run(["apt-cache", "--no-all-versions", "show", name], timeout=UNPACK_SECONDS)
    except Failure as failure:
        if failure.error is host_tool.TOOL_FAILED:
            raise NO_PACKAGE(name=name).because(failure.detail) from None
        raise
    pairs = (line.partition(": ") for line in text.splitlines() if not line.startswith(" "))
    fields = {key: value for key, _, value in pairs}
    if not {"Version", "SHA256"} <= fields.keys():
        raise NO_PACKAGE(name=name)
    return fields


def _unpack_into(folder: Path, package: Package, progress: Progress) -> None:
    with staging(folder) as work:
        progress(f"downloading {package.name} {package.version}", 0.05)
        deb = _download(package, work)
        progress("unpacking the kernel", 0.6)
        host_tool.run(["dpkg-deb", "-x", deb, work / "tree"], timeout=UNPACK_SECONDS)
        ready = work / "ready"
        (ready / "modules").mkdir(parents=True)
        _write_kernel(work / "tree", ready)
        progress("unpacking its modules", 0.9)
        _write_modules(work / "tree", ready / "modules", package)
        about = {"package": package.name, "version": package.version, "sha256": package.sha256}
        (ready / "kernel.json").write_text(json.dumps(about, indent=1) + "\n")
        publish(ready, folder / package.sha256)


def _download(package: Package, work: Path) -> Path:
    argv = ["apt-get", "-q", "download", f"{package.name}={package.version}"]
    host_tool.run(argv, timeout=DOWNLOAD_SECONDS, cwd=work)
    debs = list(work.glob("*.deb"))
    if len(debs) != 1 or hashlib.sha256(debs[0].read_bytes()).hexdigest() != package.sha256:
        raise DAMAGED(name=package.name)
    return debs[0]


def _write_kernel(tree: Path, ready: Path) -> None:
    image = next(iter((tree / "boot").glob("vmlinuz-*")), None)
    if image is None:
        raise bzimage.BAD_KERNEL(why="the package has no vmlinuz")
    target = ready / "vmlinux"
    target.write_bytes(bzimage.vmlinux(image.read_bytes()))
    target.chmod(0o644)


def _write_modules(tree: Path, target: Path, package: Package) -> None:
    builtin = "".join(path.read_text() for path in tree.glob("**/modules.builtin"))
    for name in MODULES:
        found = next(iter(tree.glob(f"**/{name}.ko*")), None)
        if found is None and f"/{name}.ko\n" not in builtin:
            raise NO_MODULE(name=package.name, module=name)
        if found is not None:
            (target / f"{name}.ko").write_bytes(_module_bytes(found))
    _strip(sorted(target.iterdir()))


def _module_bytes(path: Path) -> bytes:
    data = path.read_bytes()
    if path.suffix == ".ko":
        return data
    return lzma.decompress(data) if path.suffix == ".xz" else bzimage.decompress(data)


def _strip(modules: list[Path]) -> None:
    """Drop debug symbols where binutils is there: a smaller initrd unpacks faster, a larger one works too."""
    try:
        host_tool.run(["strip", "--strip-debug", *modules], timeout=UNPACK_SECONDS)
    except Failure as failure:
        if failure.error is not host_tool.TOOL_MISSING:
            raise


def _current(folder: Path) -> Kernel | None:
    pointer = folder / "current"
    if not pointer.exists() or not (folder / pointer.read_text()).is_dir():
        return None
    return _load(folder / pointer.read_text())


def _load(folder: Path) -> Kernel:
    about = json.loads((folder / "kernel.json").read_text())
    found = {path.stem: path.read_bytes() for path in (folder / "modules").iterdir()}
    modules = {name: found[name] for name in MODULES if name in found}
    return Kernel(folder / "vmlinux", modules, about["version"], about["sha256"])


def _digest(kernel: Kernel, init: bytes) -> str:
    digest = hashlib.sha256(kernel.digest.encode() + hashlib.sha256(init).digest())
    for name, data in kernel.modules.items():
        digest.update(f"{name} {hashlib.sha256(data).hexdigest()}\n".encode())
    return digest.hexdigest()
