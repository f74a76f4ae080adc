"""Commands of the lobby itself: help and the way out."""
from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, TypedDict

from ussycode.access.actions import Action
from ussycode.cmdline import help as pages
from ussycode.cmdline.render import Style, table
from ussycode.cmdline.spec import NOTHING, Command, command, switch, word
from ussycode.cmdline.tree import Tree
from ussycode.ports import Ctx


@dataclass(frozen=True)
class Help:
    """Arguments of `help`."""

    topic: tuple[str, ...] = word(str, help="a command or a group of them", many=True, default=(), complete="command")
    aliases: bool = switch(help="list other spellings of commands")


class AliasesDocument(TypedDict):
    """`help --aliases`: command by other spelling."""

    aliases: dict[str, str]


@dataclass(frozen=True)
class AliasesView:
    """Other spellings, and the command each means."""

    pairs: tuple[tuple[str, str], ...]

    def text(self, style: Style) -> str:
        """A table."""
        return table(["SPELLING", "COMMAND"], self.pairs, style)

    def document(self) -> AliasesDocument:
        """The document of `help --aliases`."""
        return {"aliases": dict(self.pairs)}


def help_of(tree: Callable[[], Tree]) -> Command:
    """The `help` command of the tree it is itself part of, which is complete only later."""

    @command("help", needs=Action.NOTHING, on=NOTHING, reads_only=True, aliases=("?",),
             examples=("help", "help share", "help new", "help --aliases"))
    async def help_command(ctx: Ctx, a: Help) -> pages.HelpPage | AliasesView:
        """Explain all commands, a group of them, or one."""
        if a.aliases:
            return AliasesView(tuple((alias, c.name) for c in tree().commands for alias in c.aliases))
        return pages.page(tree(), a.topic)

    return help_command


@dataclass(frozen=True)
class Exit:
    """No arguments."""


class GoodbyeDocument(TypedDict):
    """`exit`."""

    status: Literal["goodbye"]


@dataclass(frozen=True)
class Goodbye:
    """Ends a lobby session."""

    def text(self, style: Style) -> str:
        """One word."""
        return "goodbye"

    def document(self) -> GoodbyeDocument:
        """The document of `exit`."""
        return {"status": "goodbye"}


@command("exit", needs=Action.NOTHING, on=NOTHING, reads_only=True, aliases=("quit",))
async def exit_command(ctx: Ctx, a: Exit) -> Goodbye:
    """Leave the lobby."""
    return Goodbye()
