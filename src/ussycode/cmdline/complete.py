"""Tab completion from the same declarations."""
from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence

from ussycode.cmdline.help import clause
from ussycode.cmdline.spec import Command, Param
from ussycode.cmdline.tree import Tree

Names = Callable[[str], Sequence[str]]
"""Known values of a kind (`vm`, `image`), for arguments that complete from it."""
Offer = tuple[str, str]
"""A whole word, and what it means; empty when there is nothing to say."""


def complete(tree: Tree, before: str, names: Names) -> tuple[str, ...]:
    """Whole words that could stand where the last word of `before` is being typed, sorted."""
    return tuple(word for word, _ in offers(tree, before, names))


def offers(tree: Tree, before: str, names: Names) -> tuple[Offer, ...]:
    """The words of `complete`, each with what it means."""
    words = before.split()
    partial = words.pop() if words and not before.endswith(" ") else ""
    found = {word: meaning for word, meaning in _candidates(tree, words, partial, names) if word.startswith(partial)}
    return tuple(sorted(found.items()))


def _candidates(tree: Tree, words: list[str], partial: str, names: Names) -> Iterable[Offer]:
    command = tree.named(" ".join(words[:2])) or tree.named(" ".join(words[:1]))
    if command is None:
        return _next_words(tree, words)
    if partial.startswith("-"):
        return _flags(command, partial, names)
    if words[0] == "help":
        return _next_words(tree, words[1:])
    return _values(_awaited(command, words), names)


def _next_words(tree: Tree, words: Sequence[str]) -> Iterator[Offer]:
    depth = len(words)
    offered = [c for c in tree.under(words) if len(c.path) > depth and c.offered]
    for word in dict.fromkeys(c.path[depth] for c in offered):
        below = [c for c in offered if c.path[depth] == word]
        last = len(below) == 1 and len(below[0].path) == depth + 1
        yield word, clause(below[0].summary) if last else ", ".join(c.path[-1] for c in below)


def _flags(command: Command, partial: str, names: Names) -> Iterator[Offer]:
    typed, equals, _ = partial.partition("=")
    for param in command.params:
        if param.kind not in ("flag", "switch"):
            continue
        if equals and param.flag == typed:
            yield from ((f"{typed}={value}", "") for value, _ in _values(param, names))
        elif not equals:
            yield param.flag, param.help
    if not equals:
        yield from (("--json", "one JSON document"), ("--help", "how it is used"))


def _values(param: Param | None, names: Names) -> Iterator[Offer]:
    if param is not None and param.complete:
        known = param.complete.split("|") if "|" in param.complete else names(param.complete)
        yield from ((value, "") for value in known if value)


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
