"""A shell and tools for images that have none: Debian's static busybox, in a folder that nothing else uses."""
from __future__ import annotations

import io
import stat
from pathlib import Path

from ussycode.runtime.images.layers import Blobs
from ussycode.runtime.images.tree import Node, Tree, folder

BUSYBOX = Path("/bin/busybox")
"""From the package busybox-static."""
PLACE = b".ussy/bin"
MAX_HOPS = 10
TOOLS = (
    "sh", "ash", "cat", "chmod", "chown", "clear", "cp", "cut", "date", "dd", "df", "dirname", "du", "echo", "env",
    "expr", "false", "find", "free", "grep", "gunzip", "gzip", "head", "hostname", "id", "ip", "kill", "less", "ln",
    "ls", "md5sum", "mkdir", "mktemp", "more", "mv", "nc", "netstat", "nslookup", "od", "ping", "printf", "ps",
    "pwd", "readlink", "realpath", "rm", "rmdir", "sed", "seq", "sha256sum", "sleep", "sort", "stat", "stty",
    "sync", "tail", "tar", "tee", "test", "touch", "tr", "true", "tty", "uname", "uniq", "unzip", "uptime", "vi",
    "wc", "wget", "which", "whoami", "xargs", "yes", "zcat",
)


def read() -> bytes | None:
    """The program; None on a host without it. A busybox that needs a C library is of no use and not taken."""
    try:
        data = BUSYBOX.read_bytes()
    except OSError:
        return None
    return None if b"/ld-linux" in data[:4096] else data


def has_shell(tree: Tree) -> bool:
    """Whether /bin/sh of the image leads to a file."""
    path = b"/bin/sh"
    for _ in range(MAX_HOPS):
        node = tree.find(path)
        if node is None or not node.is_link:
            return node is not None and stat.S_ISREG(node.mode)
        path = node.target if node.target.startswith(b"/") else b"/".join(_beside(path, node.target))
    return False


def _beside(path: bytes, target: bytes) -> list[bytes]:
    """Names of a relative symlink's target."""
    names = path.split(b"/")[:-1]
    for name in target.split(b"/"):
        names = names[:-1] if name == b".." else [*names, name]
    return names


def install(tree: Tree, blobs: Blobs, busybox: bytes) -> None:
    """Put the kit into the tree, read-only to all but root."""
    program = Node(stat.S_IFREG | 0o555, blob=blobs.keep(io.BytesIO(busybox), len(busybox)), size=len(busybox))
    tree.make(b".ussy", folder())
    tree.make(PLACE, folder())
    tree.make(PLACE + b"/busybox", program)
    for tool in TOOLS:
        tree.make(PLACE + b"/" + tool.encode(), Node(stat.S_IFLNK | 0o777, target=b"busybox"))
