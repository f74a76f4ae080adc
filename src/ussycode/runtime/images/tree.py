"""A root file system in memory: layers are merged here, so that no name of theirs ever meets the host's."""
from __future__ import annotations

import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from ussycode.base.errors import ErrorCode, Kind

MAX_NAME = 255
"""Bytes of one name: what ext4 holds."""
MAX_DEPTH = 100
"""Names on the way to a file."""
MAX_PATH = 3000
"""Bytes of a whole path."""
MAX_HOPS = 40
"""Symlinks followed on the way to one entry."""

BAD_LAYER = ErrorCode("image.bad_layer", Kind.FAILED, "a layer of the image cannot be applied: {why}")
_WHITEOUT, _OPAQUE = b".wh.", b".wh..wh..opq"


@dataclass(eq=False)
class Node:
    """An inode: `mode` with its type; `blob` numbers a regular file's bytes, `target` is a symlink's words."""

    mode: int
    uid: int = 0
    gid: int = 0
    mtime: int = 0
    blob: int = -1
    size: int = 0
    target: bytes = b""
    device: tuple[int, int] = (0, 0)
    xattrs: Mapping[str, bytes] = field(default_factory=dict)
    children: dict[bytes, Node] = field(default_factory=dict)

    @property
    def is_dir(self) -> bool:
        """A folder."""
        return stat.S_ISDIR(self.mode)

    @property
    def is_link(self) -> bool:
        """A symbolic link."""
        return stat.S_ISLNK(self.mode)


def folder(mode: int = 0o755) -> Node:
    """An empty folder of root."""
    return Node(stat.S_IFDIR | mode)


@dataclass(frozen=True)
class Entry:
    """One member of a layer: a node, or another name (`link`) of a file that is there already."""

    path: bytes
    node: Node | None
    link: bytes = b""


def words(path: bytes) -> tuple[bytes, ...]:
    """The names of a path. Raises BAD_LAYER for one that leads upwards or that no file system would hold."""
    names = tuple(name for name in path.split(b"/") if name not in (b"", b"."))
    if b".." in names:
        raise BAD_LAYER(why="a path leads upwards")
    if len(names) > MAX_DEPTH or len(path) > MAX_PATH:
        raise BAD_LAYER(why="a path is too long")
    for name in names:
        if len(name) > MAX_NAME or not printable(name):
            raise BAD_LAYER(why="a file has an impossible name")
    return names


def printable(text: bytes) -> bool:
    """No control characters."""
    return all(byte >= 0x20 and byte != 0x7F for byte in text)


class Tree:
    """The merged layers. Only ever a structure in memory: there is nothing to escape from."""

    def __init__(self) -> None:
        self.root = folder()

    def apply(self, layer: list[Entry]) -> None:
        """Lay one layer over the tree: first what it removes from below, then what it brings. Raises BAD_LAYER."""
        brought: list[Entry] = []
        for entry in layer:
            *above, last = words(entry.path) or (b"",)
            if last.startswith(_WHITEOUT):
                self._whiteout(tuple(above), last)
            else:
                brought.append(entry)
        for entry in brought:
            self._bring(entry)

    def find(self, path: bytes) -> Node | None:
        """The node at a path; its folders may be symlinks inside the tree, it itself is not followed."""
        names = words(path)
        if not names:
            return self.root
        above = self._walk(names[:-1], make=False)
        return None if above is None else above.children.get(names[-1])

    def make(self, path: bytes, node: Node) -> None:
        """Put a node at a path, in the place of what is there."""
        self._bring(Entry(path, node))

    def files(self) -> Iterator[tuple[bytes, Node]]:
        """Every path with its node, each folder before what is in it."""
        todo = [(b"", self.root)]
        while todo:
            path, node = todo.pop()
            yield path or b"/", node
            todo += [(path + b"/" + name, child) for name, child in sorted(node.children.items(), reverse=True)]

    def _whiteout(self, above: tuple[bytes, ...], name: bytes) -> None:
        parent = self._walk(above, make=False)
        if parent is None:
            return
        if name == _OPAQUE:
            parent.children.clear()
            return
        hidden = name[len(_WHITEOUT) :]
        if hidden in (b"", b".", b".."):
            raise BAD_LAYER(why="it removes a file without a name")
        parent.children.pop(hidden, None)

    def _bring(self, entry: Entry) -> None:
        names = words(entry.path)
        if not names:
            if entry.node is not None and entry.node.is_dir:
                entry.node.children = self.root.children
                self.root = entry.node
            return
        parent = self._walk(names[:-1], make=True)
        assert parent is not None
        node = entry.node or self._linked(entry.link)
        old = parent.children.get(names[-1])
        if entry.node is not None and node.is_dir and old is not None and old.is_dir:
            node.children = old.children
        parent.children[names[-1]] = node

    def _linked(self, target: bytes) -> Node:
        node = self.find(target)
        if node is None or node.is_dir:
            raise BAD_LAYER(why="a hard link leads to no file")
        return node

    def _walk(self, names: tuple[bytes, ...], make: bool) -> Node | None:
        """The folder at `names`; symlinks on the way stay inside the tree. With `make`, what is missing is made."""
        path, todo, hops = [self.root], list(reversed(names)), 0
        while todo:
            name = todo.pop()
            if name == b"..":
                path = path[:-1] or path
                continue
            child = path[-1].children.get(name)
            if child is not None and child.is_link:
                hops += 1
                if hops > MAX_HOPS:
                    raise BAD_LAYER(why="symbolic links lead in a circle")
                path = path[:1] if child.target.startswith(b"/") else path
                todo += [part for part in reversed(child.target.split(b"/")) if part not in (b"", b".")]
                continue
            if child is None or not child.is_dir:
                if not make:
                    return None
                child = path[-1].children[name] = folder()
            if len(path) > MAX_DEPTH:
                raise BAD_LAYER(why="a path is too long")
            path.append(child)
        return path[-1]
