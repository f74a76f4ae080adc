"""Build a recipe: mmdebstrap makes the root file system, mkfs.ext4 makes a disk of it."""
from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from ussycode.base.errors import ErrorCode, Kind
from ussycode.runtime import host_tool
from ussycode.runtime.images import disk, mirror, wheels
from ussycode.runtime.images.recipe import Recipe
from ussycode.runtime.kernel import Progress

BUILD_SECONDS = 1800.0
"""A build that takes longer is ended: a mirror that trickles must not hold the lock for ever."""

NEEDS_ROOT = ErrorCode(
    "image.needs_root", Kind.FORBIDDEN, "building an image needs root: its files belong to many users",
    hint="sudo ussycode image build {name}",
)
NO_SPACE = ErrorCode(
    "image.no_space", Kind.UNAVAILABLE,
    "building {name} takes {needed} MiB, and {folder} has {free} MiB free",
    hint="free some space, or move the data folder to a larger disk",
)

STAGES: tuple[tuple[str, float, str], ...] = (
    ("running apt-get update", 0.02, "reading the package lists"),
    ("downloading packages", 0.08, "downloading the base system"),
    ("extracting archives", 0.15, "unpacking the base system"),
    ("installing essential", 0.22, "installing the base system"),
    ("installing remaining", 0.35, "installing packages"),
    ("running --customize-hook", 0.80, "configuring"),
    ("cleaning package lists", 0.85, "cleaning up"),
)
"""What mmdebstrap says, how far along the whole build that is, and what a person reads."""

SLIM = (
    "path-exclude=/usr/share/man/*", "path-exclude=/usr/share/info/*", "path-exclude=/usr/share/locale/*",
    "path-include=/usr/share/locale/locale.alias", "path-exclude=/usr/share/lintian/*",
    "path-exclude=/usr/share/doc/*", "path-include=/usr/share/doc/*/copyright",
)
"""What dpkg leaves out in every image, now and when the user installs more."""


@dataclass(frozen=True)
class Built:
    """A finished disk, not yet published. `packages` is how many are installed in it."""

    disk: Path
    packages: int


def build(recipe: Recipe, work: Path, debs: Path, progress: Progress, apt: Path = Path("/etc/apt")) -> Built:
    """Build `recipe` inside the empty folder `work`; downloaded packages are kept in `debs` for the next.

    Blocks, half a minute to a few minutes. Raises NEEDS_ROOT, NO_SPACE, `mirror.NO_ARCHIVE` and the failures
    of host tools; `work` then holds rubbish that its owner removes.
    """
    if os.geteuid() != 0:
        raise NEEDS_ROOT(name=recipe.name)
    require_space(recipe, work)
    suite = mirror.codename(Path("/etc/os-release").read_text())
    sources = "".join(entry.line() + "\n" for entry in mirror.archive(apt, suite))
    debs.mkdir(parents=True, exist_ok=True)
    tree, tools = work / "tree", work / "tools"
    progress("fetching tools", 0.01)
    wheels.lay_out(recipe, debs.parent / "wheels", tools)
    _bootstrap(command(recipe, suite, tree, debs, tools), sources, progress)
    progress("making the disk", 0.88)
    disk.make(tree, work / "disk.raw", recipe.disk_gib << 30)
    packages = installed(tree)
    shutil.rmtree(tree)
    shutil.rmtree(tools)
    return Built(work / "disk.raw", packages)


def require_space(recipe: Recipe, folder: Path) -> None:
    """Raise NO_SPACE, with both numbers, when `folder` cannot hold a build of `recipe`."""
    free = shutil.disk_usage(folder).free >> 20
    if free < recipe.needs_mib:
        raise NO_SPACE(name=recipe.name, needed=recipe.needs_mib, free=free, folder=folder)


def command(recipe: Recipe, suite: str, tree: Path, debs: Path, tools: Path) -> list[str]:
    """The mmdebstrap call that makes `tree`, with `tools` as its /usr/local; it reads the archive entries from stdin.

    It runs in namespaces of its own: when it is killed, its processes end and its mounts of /dev and /proc
    are gone before anybody removes the folder they were in.
    """
    return [
        "unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc",
        "mmdebstrap", "--mode=root", "--variant=apt", "--format=directory", "--skip=essential/unlink",
        f"--include={','.join(recipe.packages)}",
        *(f"--dpkgopt={line}" for line in (*SLIM, *(f"path-exclude={path}" for path in recipe.exclude))),
        "--aptopt=Acquire::Languages \"none\"", "--aptopt=APT::Install-Recommends \"false\"",
        *_hooks(recipe, debs, tools), suite, str(tree), "-",
    ]


def _hooks(recipe: Recipe, debs: Path, tools: Path) -> Iterator[str]:
    cache, archives = shlex.quote(str(debs)), '"$1"/var/cache/apt/archives'
    yield f"--setup-hook=mkdir -p {archives} && find {cache} -name '*.deb' -exec cp -l -t {archives} {{}} +"
    yield "--setup-hook=printf 'force-unsafe-io\\n' > \"$1\"/etc/dpkg/dpkg.cfg.d/building"
    yield f"--customize-hook=find {archives} -name '*.deb' -exec cp -ln -t {cache} {{}} +"
    yield f"--customize-hook=cp -rT {shlex.quote(str(tools))} \"$1\"/usr/local"
    yield f"--customize-hook=cp -rT {shlex.quote(str(recipe.overlay))} \"$1\""
    yield f"--customize-hook=upload {shlex.quote(str(recipe.script))} /customize.sh"
    yield "--customize-hook=chroot \"$1\" sh -eu /customize.sh"
    yield "--customize-hook=rm \"$1\"/customize.sh \"$1\"/etc/dpkg/dpkg.cfg.d/building"


def _bootstrap(argv: Sequence[str], sources: str, progress: Progress) -> None:
    """Run mmdebstrap and turn its lines into progress. Raises TOOL_FAILED or TOOL_SLOW."""
    host_tool.find("mmdebstrap")
    with tempfile.TemporaryFile("w+") as given:
        given.write(sources)
        given.seek(0)
        process = subprocess.Popen(
            [str(host_tool.find(argv[0])), *argv[1:]], stdin=given, stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE, text=True, errors="replace", env=host_tool.environment(),
            start_new_session=True,
        )
    late = threading.Event()
    watchdog = threading.Timer(BUILD_SECONDS, _end_late, [process, late])
    watchdog.start()
    with process:
        try:
            said = _follow(process, progress)
        finally:
            watchdog.cancel()
            host_tool.kill_group(process)
    if late.is_set():
        raise host_tool.TOOL_SLOW(tool="mmdebstrap", seconds=f"{BUILD_SECONDS:.0f}")
    if process.returncode:
        raise host_tool.failed("mmdebstrap", process.returncode, said)


def _end_late(process: subprocess.Popen[str], late: threading.Event) -> None:
    late.set()
    host_tool.kill_group(process)


def _follow(process: subprocess.Popen[str], progress: Progress) -> str:
    """Report each stage until the process ends; return its errors, or else its last lines."""
    lines: list[str] = []
    reached = 0.0
    for line in process.stderr or ():
        lines = [*lines[-200:], line]
        for marker, done, stage in STAGES:
            if marker in line and done > reached:
                reached = done
                progress(stage, done)
    process.wait()
    errors = [line for line in lines if re.match(r"(E:|Err:|dpkg: error)", line)]
    return "".join(errors[:5][::-1] or lines)


def installed(tree: Path) -> int:
    """How many packages dpkg has installed in `tree`."""
    status = (tree / "var/lib/dpkg/status").read_text(errors="replace")
    return status.count("\nStatus: install ok installed\n")
