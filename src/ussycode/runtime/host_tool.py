"""Run one program of the host, bounded in time, with a declared error when it is missing or fails."""
from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from ussycode.base.errors import ErrorCode, Failure, Kind

ADMIN_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
"""Where tools are looked for after `PATH`: mkfs and friends live in sbin, which users seldom have."""

TOOL_MISSING = ErrorCode(
    "host.tool_missing", Kind.UNAVAILABLE, "the program {tool} is not installed",
    hint="sudo apt-get install {package}",
)
TOOL_FAILED = ErrorCode("host.tool_failed", Kind.FAILED, "{tool} failed: {why}")
TOOL_SLOW = ErrorCode("host.tool_slow", Kind.TIMEOUT, "{tool} did not finish within {seconds} seconds")

PACKAGES = {
    "mkfs.ext4": "e2fsprogs", "e2fsck": "e2fsprogs", "debugfs": "e2fsprogs",
    "qemu-system-x86_64": "qemu-system-x86", "dpkg-deb": "dpkg", "apt-get": "apt", "apt-cache": "apt",
    "unshare": "util-linux", "chroot": "coreutils",
}
"""The Debian package of a tool, where it is not called like the tool."""


def find(tool: str) -> Path:
    """Absolute path of `tool`. Raises TOOL_MISSING with the package to install."""
    found = shutil.which(tool) or shutil.which(tool, path=ADMIN_PATH)
    if found is None:
        raise TOOL_MISSING(tool=tool, package=PACKAGES.get(tool, tool))
    return Path(found)


def run(
    argv: Sequence[str | Path], *, timeout: float, cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
) -> str:
    """Standard output of `argv` as text.

    `timeout` is in seconds; then the whole process group is killed. Raises TOOL_MISSING, TOOL_FAILED with
    the last line the tool wrote to stderr, or TOOL_SLOW.
    """
    tool = str(argv[0])
    with subprocess.Popen(
        [str(find(tool)), *map(str, argv[1:])], cwd=cwd, env=environment(env), text=True, errors="replace",
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True,
    ) as process:
        try:
            out, err = process.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            raise TOOL_SLOW(tool=tool, seconds=f"{timeout:.0f}") from None
        finally:
            kill_group(process)
    if process.returncode:
        raise failed(tool, process.returncode, err)
    return out


def failed(tool: str, status: int, output: str) -> Failure:
    """TOOL_FAILED whose sentence ends with the last line of `output`; all of it goes to the log."""
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    why = lines[-1] if lines else f"exit status {status}"
    return TOOL_FAILED(tool=tool, why=why).because(output[-4000:])


def kill_group(process: subprocess.Popen[str]) -> None:
    """End a process that leads its own session, with its children; nothing when it ended by itself."""
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)


def environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """The environment of host tools: plain English output, sbin on the path, proxies kept, nothing asked."""
    inherited = os.environ.items()
    kept = {name: value for name, value in inherited if name.lower().endswith("_proxy") or name == "HOME"}
    path = f"{os.environ.get('PATH', '')}:{ADMIN_PATH}".lstrip(":")
    return {**kept, "PATH": path, "LC_ALL": "C.UTF-8", "DEBIAN_FRONTEND": "noninteractive", **(extra or {})}
