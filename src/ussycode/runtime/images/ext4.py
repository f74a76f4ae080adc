"""Write a merged tree into an ext4 disk by `debugfs`: no mount, no root, no owner or name of it on the host."""
from __future__ import annotations

import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path

from ussycode.runtime import host_tool
from ussycode.runtime.images import disk
from ussycode.runtime.images.layers import Blobs
from ussycode.runtime.images.tree import BAD_LAYER, Node, Tree

FREE_MIB = 192
"""Room beyond the files in a fresh disk: journal, inode tables, and what the guest writes before it grows."""
SMALLEST = 256 << 20
STEP = 64 << 20
SPARE_INODES = 4096
LOST = b"/lost+found"
"""The one folder that every fresh disk has."""
MAX_LINE = 8000
"""Bytes of one line of a script; debugfs would read a longer one as two."""
DEBUGFS_SECONDS, CHECK_SECONDS = 900.0, 300.0


def write(tree: Tree, blobs: Blobs, out: Path) -> int:
    """Make the disk `out` of a tree; its size in bytes. Raises BAD_LAYER and the failures of host tools."""
    lost = tree.root.children.get(LOST[1:])
    if lost is not None and not lost.is_dir:
        raise BAD_LAYER(why="lost+found is not a folder")
    nodes = {id(node): node for _, node in tree.files()}
    data = sum(_room(node, blobs) for node in nodes.values())
    size = max(SMALLEST, -(-(data + data // 16 + (FREE_MIB << 20)) // STEP) * STEP)
    disk.format_empty(out, size, len(nodes) + SPARE_INODES)
    script = out.with_name("script")
    with script.open("wb") as file:
        file.writelines(_script(tree, blobs))
    _run(script, out)
    script.unlink()
    host_tool.run(["e2fsck", "-f", "-n", out], timeout=CHECK_SECONDS)
    return size


def _room(node: Node, blobs: Blobs) -> int:
    blocks = 1 + len(node.children) // 32 if node.is_dir else 1
    if node.blob >= 0:
        blocks = -(-blobs.path(node.blob).stat().st_blocks * 512 // disk.BLOCK) + node.size // (128 << 20) + 1
    return blocks * disk.BLOCK


def _run(script: Path, out: Path) -> None:
    """Carry out a script. debugfs goes on after a failure and ends with 0: what it says on stderr decides."""
    done = subprocess.run(
        [str(host_tool.find("debugfs")), "-w", "-f", str(script), str(out)], stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, timeout=DEBUGFS_SECONDS, check=False,
        env=host_tool.environment(),
    )
    complaints = [line for line in done.stderr.decode(errors="replace").splitlines() if line[:8] != "debugfs "]
    if done.returncode or complaints:
        raise host_tool.failed("debugfs", done.returncode, "\n".join(complaints[:20]))


def _script(tree: Tree, blobs: Blobs) -> Iterator[bytes]:
    first: dict[int, bytes] = {}
    links: dict[int, int] = {}
    here = b"/"
    for path, node in tree.files():
        above, _, name = path.rpartition(b"/")
        if (above or b"/") != here:
            here = above or b"/"
            yield _line(b"cd", here)
        if id(node) in first:
            links[id(node)] = links.get(id(node), 1) + 1
            yield _line(b"ln", first[id(node)], path)
            continue
        first[id(node)] = path
        if name and path != LOST:
            yield _birth(node, name, blobs)
        yield from _facts(node, path, blobs)
    for known, count in links.items():
        yield _line(b"sif", first[known], b"links_count", b"%d" % count)


def _birth(node: Node, name: bytes, blobs: Blobs) -> bytes:
    kind = stat.S_IFMT(node.mode)
    if kind == stat.S_IFDIR:
        return _line(b"mkdir", name)
    if kind == stat.S_IFREG:
        return _line(b"write", bytes(blobs.path(node.blob)), name)
    if kind == stat.S_IFLNK:
        return _line(b"symlink", name, node.target)
    if kind == stat.S_IFIFO:
        return _line(b"mknod", name, b"p")
    major, minor = (b"%d" % number for number in node.device)
    return _line(b"mknod", name, b"c" if kind == stat.S_IFCHR else b"b", major, minor)


def _facts(node: Node, path: bytes, blobs: Blobs) -> Iterator[bytes]:
    given: dict[bytes, bytes] = {b"mode": b"0%o" % node.mode, b"uid": b"%d" % node.uid, b"gid": b"%d" % node.gid}
    given |= {b"%ctime" % letter: b"@%d" % node.mtime for letter in b"acm"}
    for field, value in given.items():
        yield _line(b"sif", path, field, value)
    for name, value in node.xattrs.items():
        held = blobs.path(blobs.keep_bytes(value))
        yield _line(b"ea_set", b"-r", b"-f", bytes(held), path, name.encode())


def _line(*arguments: bytes) -> bytes:
    """One line of a script: every argument in quotes, a quote in it doubled."""
    verb, *rest = arguments
    line = b" ".join((verb, *(b'"' + word.replace(b'"', b'""') + b'"' for word in rest))) + b"\n"
    if len(line) > MAX_LINE or b"\n" in line[:-1] or b"\0" in line:
        raise BAD_LAYER(why="a name is too long or impossible")
    return line
