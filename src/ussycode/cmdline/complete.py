"""Tab completion from the same declarations."""
from __future__ import annotations

from collections.abc import Callable, Sequence

from ussycode.cmdline.spec import Command, Param
from ussycode.cmdline.tree import Tree

Names = Callable[[str], Sequence[str]]
"""Known values of a kind (`vm`, `image`), for arguments that complete from it."""


def complete(tree: Tree, before: str, names: Names) -> tuple[str, ...]:
    """Whole words that could stand where the last word of `before` is being typed, sorted."""
    words = before.split()
    partial = words.pop() if words and not before.endswith(" ") else ""
    return tuple(sorted({c for c in _candidates(tree, words, partial, names) if c.startswith(partial)}))


def _candidates(tree: Tree, words: list[str], partial: str, names: Names) -> list[str]:
    command = tree.named(" ".join(words[:2])) or tree.named(" ".join(words[:1]))
    if command is None:
        return [c.path[len(words)] for c in tree.under(words) if len(c.path) > len(words) and c.offered]
    if partial.startswith("-"):
        return [p.flag for p in command.params if p.kind in ("flag", "switch")] + ["--json", "--help"]
    if words[0] == "help":
        return [c.path[len(words) - 1] for c in tree.under(words[1:]) if len(c.path) >= len(words) and c.offered]
    param = _awaited(command, words)
    if param is None or not param.complete:
        return []
    if "|" in param.complete:
        return [choice for choice in param.complete.split("|") if choice]
    return list(names(param.complete))


def _awaited(command: Command, words: list[str]) -> Param | None:
    given = words[len(command.path):]
    flags = {p.flag: p for p in command.params if p.kind == "flag"}
    if given and given[-1] in flags:
        return flags[given[-1]]
    done = sum(not w.startswith("-") for w in given)
    positional = [p for p in command.params if p.kind == "word"]
    if done < len(positional):
        return positional[done]
    return positional[-1] if positional and positional[-1].many else None
