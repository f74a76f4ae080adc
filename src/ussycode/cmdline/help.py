"""Help pages read off the declarations; at most 80 columns, no escapes unless asked."""
from __future__ import annotations

import re
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, NotRequired, TypedDict

from ussycode.cmdline.parse import usage
from ussycode.cmdline.render import Style
from ussycode.cmdline.schema import reply
from ussycode.cmdline.spec import Command, Param
from ussycode.cmdline.tree import Tree

WIDTH = 80
"""Columns that every help page fits into."""
GLANCE = 12
"""Columns of names at a glance."""


class ArgumentDocument(TypedDict):
    """One argument; a flag by how it is typed, the others by their place."""

    name: str
    kind: Literal["word", "flag", "switch", "rest"]
    help: str
    required: bool
    repeatable: bool


class CommandDocument(TypedDict):
    """One command; `reply` is the JSON Schema of its document, told when only one command is asked about."""

    name: str
    summary: str
    usage: str
    arguments: list[ArgumentDocument]
    aliases: list[str]
    examples: list[str]
    reply: NotRequired[dict[str, Any]]


class HelpDocument(TypedDict):
    """`help`, and any command with --help."""

    commands: list[CommandDocument]


@dataclass(frozen=True)
class HelpPage:
    """Help for a whole tree, a group or one command."""

    sections: tuple[tuple[str, tuple[Command, ...]], ...]
    whole: bool
    short: bool = False
    """At a glance: groups on one line, and what is not offered left out."""

    @property
    def commands(self) -> tuple[Command, ...]:
        """Every command of the page."""
        return tuple(c for _, commands in self.sections for c in commands)

    def text(self, style: Style) -> str:
        """A page for a person."""
        if len(self.commands) == 1 and not self.whole:
            return one(self.commands[0], style)
        return at_a_glance(self.sections, style) if self.short else several(self.sections, style)

    def document(self) -> HelpDocument:
        """Flags and examples for a machine."""
        told = [describe(c) for c in self.commands]
        if len(self.commands) == 1 and (schema := reply(self.commands[0])):
            told[0]["reply"] = schema
        return {"commands": told}


def page(tree: Tree, words: Sequence[str]) -> HelpPage:
    """The page for `words`: nothing means all at a glance, `all` all in full; a heading means what is below it.

    Raises UNKNOWN for what is no topic.
    """
    if not words or tuple(words) == ("all",):
        return HelpPage(tree.sections, True, not words)
    name = " ".join(words)
    named = tree.named(name)
    if named is not None:
        return of_command(named)
    titled = tuple(section for section in tree.sections if section[0].casefold() == name.casefold())
    if not titled and not tree.under(words):
        raise tree.unknown(words)
    return HelpPage(titled or ((name, tree.under(words)),), True)


def of_command(command: Command) -> HelpPage:
    """The full page of one command."""
    return HelpPage(((command.name, (command,)),), False)


def several(sections: Sequence[tuple[str, Sequence[Command]]], style: Style) -> str:
    """Commands with their summaries, by heading."""
    width = max(len(c.name) for _, commands in sections for c in commands)
    lines: list[str] = []
    for title, commands in sections:
        lines += [style.paint(title.upper(), "bold"), *(_entry(c, width, style) for c in commands), ""]
    return "\n".join([*lines, "help COMMAND explains one; every command takes --json and --help"])


def at_a_glance(sections: Sequence[tuple[str, Sequence[Command]]], style: Style) -> str:
    """Commands by heading, one line each; the commands of a group share one."""
    lines: list[str] = []
    for title, commands in sections:
        offered = [c for c in commands if c.offered]
        groups = {c.path[0]: [o for o in offered if o.path[0] == c.path[0]] for c in offered}
        lines += [style.paint(title.upper(), "bold"), *(_glance(*group, style) for group in groups.items()), ""]
    return "\n".join([
        *lines, "help COMMAND explains one, help all explains all; each takes --json and --help",
    ])


def _glance(name: str, commands: Sequence[Command], style: Style) -> str:
    said = clause(commands[0].summary) if len(commands) == 1 and len(commands[0].path) == 1 else ", ".join(
        " ".join(c.path[1:]) for c in commands)
    rows = textwrap.wrap(said, WIDTH - GLANCE - 4, break_on_hyphens=False)
    head = f"  {style.paint(name.ljust(GLANCE), 'cyan')}  {rows[0]}"
    return "\n".join((head, *(" " * (GLANCE + 4) + row for row in rows[1:])))


def clause(summary: str) -> str:
    """What a summary says before it goes into detail."""
    return re.split(r"[;:.] |[.]$", summary)[0]


def _entry(command: Command, width: int, style: Style) -> str:
    rows = textwrap.wrap(command.summary, WIDTH - width - 4) or [""]
    head = f"  {style.paint(command.name.ljust(width), 'cyan')}  {rows[0]}"
    return "\n".join((head, *(" " * (width + 4) + row for row in rows[1:])))


def one(command: Command, style: Style) -> str:
    """The full page of one command."""
    parts = [*_wrapped(f"{command.name}: {command.summary}"), "", *_wrapped(f"usage: {usage(command)} [--json]", 9)]
    parts[0] = parts[0].replace(command.name, style.paint(command.name, "bold"), 1)
    if command.details:
        parts += ["", *_wrapped(command.details)]
    if command.params:
        parts += ["", *(_line(p) for p in command.params)]
    if command.aliases:
        parts += ["", "also: " + ", ".join(command.aliases)]
    if command.examples:
        parts += ["", "examples:", *(f"  {e}" for e in command.examples)]
    return "\n".join(parts)


def describe(command: Command) -> CommandDocument:
    """One command as plain values."""
    flags: list[ArgumentDocument] = [
        {"name": p.flag if p.kind in ("flag", "switch") else p.name, "kind": p.kind, "help": p.help,
         "required": p.required, "repeatable": p.many}
        for p in command.params
    ]
    return {
        "name": command.name, "summary": command.summary, "usage": usage(command), "arguments": flags,
        "aliases": list(command.aliases), "examples": list(command.examples),
    }


def _wrapped(text: str, indent: int = 0) -> list[str]:
    return textwrap.wrap(" ".join(text.split()), WIDTH, subsequent_indent=" " * indent, break_on_hyphens=False)


def _line(param: Param) -> str:
    name = param.flag if param.kind in ("flag", "switch") else param.name.upper().replace("_", "-")
    short = f", -{param.short}" if param.short else ""
    again = " (may repeat)" if param.many and param.kind == "flag" else ""
    head = f"  {(name + short).ljust(16)} "
    return "\n".join(textwrap.wrap(head + param.help + again, WIDTH, subsequent_indent=" " * 19,
                                   drop_whitespace=True, replace_whitespace=False, break_on_hyphens=False))
