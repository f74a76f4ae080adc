"""Help pages read off the declarations; at most 80 columns, no escapes unless asked."""
from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass

from ussycode.cmdline.parse import usage
from ussycode.cmdline.render import Style
from ussycode.cmdline.spec import Command, Param
from ussycode.cmdline.tree import Tree


@dataclass(frozen=True)
class HelpPage:
    """Help for a whole tree, a group or one command."""

    title: str
    commands: tuple[Command, ...]
    whole: bool

    def text(self, style: Style) -> str:
        """A page for a person."""
        if len(self.commands) == 1 and not self.whole:
            return one(self.commands[0], style)
        return several(self.title, self.commands, style)

    def document(self) -> object:
        """Flags and examples for a machine."""
        return {"commands": [describe(c) for c in self.commands]}


def page(tree: Tree, words: Sequence[str]) -> HelpPage:
    """The page for `words`: nothing means all. Raises UNKNOWN for a topic that does not exist."""
    if not words or tuple(words) == ("all",):
        return HelpPage("commands", tree.commands, True)
    named = tree.named(" ".join(words))
    if named is not None:
        return HelpPage(named.name, (named,), False)
    group = tree.under(words)
    if not group:
        raise tree.unknown(words)
    return HelpPage(" ".join(words), group, True)


def several(title: str, commands: Sequence[Command], style: Style) -> str:
    """A list of commands with their summaries."""
    width = max(len(c.name) for c in commands)
    lines = [f"  {style.paint(c.name.ljust(width), 'cyan')}  {c.summary}" for c in commands]
    tail = "help COMMAND explains one; every command takes --json and --help"
    return "\n".join([style.paint(title.upper(), "bold"), *lines, "", tail])


def one(command: Command, style: Style) -> str:
    """The full page of one command."""
    parts = [f"{style.paint(command.name, 'bold')}: {command.summary}", "", f"usage: {usage(command)} [--json]"]
    if command.details:
        parts += ["", *textwrap.wrap(" ".join(command.details.split()), 78)]
    if command.params:
        parts += ["", *(_line(p) for p in command.params)]
    if command.aliases:
        parts += ["", "also: " + ", ".join(command.aliases)]
    if command.examples:
        parts += ["", "examples:", *(f"  {e}" for e in command.examples)]
    return "\n".join(parts)


def describe(command: Command) -> dict[str, object]:
    """One command as plain values."""
    flags = [
        {"name": p.flag if p.kind in ("flag", "switch") else p.name, "kind": p.kind, "help": p.help,
         "required": p.required, "repeatable": p.many}
        for p in command.params
    ]
    return {
        "name": command.name, "summary": command.summary, "usage": usage(command), "arguments": flags,
        "aliases": list(command.aliases), "examples": list(command.examples),
    }


def _line(param: Param) -> str:
    name = param.flag if param.kind in ("flag", "switch") else param.name.upper().replace("_", "-")
    short = f", -{param.short}" if param.short else ""
    again = " (may repeat)" if param.many and param.kind == "flag" else ""
    return f"  {(name + short).ljust(16)} {param.help}{again}"
