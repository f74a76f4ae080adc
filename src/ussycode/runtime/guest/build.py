"""Compile the guest program from source, once per version of it."""
from __future__ import annotations

import hashlib
import shutil
import subprocess
import tempfile
from pathlib import Path

from ussycode.base import resources
from ussycode.runtime.guest import errors

COMPILER = "musl-gcc"
FLAGS = (
    "-std=c11", "-static", "-Os", "-s", "-Wall", "-Wextra", "-Werror", "-fno-asynchronous-unwind-tables",
    "-ffunction-sections", "-Wl,--gc-sections", "-fstack-protector-strong",
)
# musl's headers come first; the kernel's own are only asked for what musl does not have
KERNEL_HEADERS = ("-idirafter", "/usr/include", "-idirafter", "/usr/include/x86_64-linux-gnu")
COMPILE_SECONDS = 120
MAX_WHY = 300
"""Characters of the compiler's complaint that are shown."""


def build_id(source: Path) -> str:
    """Hex digest over flags and sources; the agent says it in its hello."""
    digest = hashlib.sha256(repr(FLAGS).encode())
    for file in sorted(source.glob("*.[ch]")):
        digest.update(file.name.encode() + b"\0" + file.read_bytes())
    return digest.hexdigest()[:16]


def build(out: Path) -> Path:
    """The static guest program in folder `out`, compiled unless it is there already.

    Blocking (about 2 s). Raises NO_COMPILER, BUILD_FAILED. A failed build leaves nothing behind.
    """
    source = resources.path("guest")
    wanted = build_id(source)
    program = out / f"ussy-init-{wanted}"
    if program.exists():
        return program
    if shutil.which(COMPILER) is None:
        raise errors.NO_COMPILER()
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out) as scratch:
        made = Path(scratch) / "ussy-init"
        _compile(sorted(source.glob("*.c")), made, wanted)
        made.replace(program)
    return program


def _compile(files: list[Path], made: Path, wanted: str) -> None:
    command = [COMPILER, *FLAGS, f'-DBUILD_ID="{wanted}"', "-o", str(made), *map(str, files), *KERNEL_HEADERS]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=COMPILE_SECONDS, check=False)
    except subprocess.TimeoutExpired:
        raise errors.BUILD_FAILED(why="the compiler did not end") from None
    if done.returncode:
        raise errors.BUILD_FAILED(why=done.stderr.strip()[:MAX_WHY]).because(done.stderr)
