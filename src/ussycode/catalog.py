"""The one explicit command tree."""
from __future__ import annotations

from dataclasses import dataclass

from ussycode.access.actions import Action
from ussycode.cmdline import help as pages
from ussycode.cmdline.render import Style
from ussycode.cmdline.spec import NOTHING, command, word
from ussycode.cmdline.tree import Tree
from ussycode.identity import commands as identity
from ussycode.ports import Ctx
from ussycode.sharing import commands as sharing
from ussycode.vms import commands as vms


@dataclass(frozen=True)
class Help:
    """Arguments of `help`."""

    topic: tuple[str, ...] = word(str, help="a command or a group of them", many=True, default=())


@command("help", needs=Action.NOTHING, on=NOTHING, reads_only=True, aliases=("?",), examples=("help", "help share"))
async def help_command(ctx: Ctx, a: Help) -> pages.HelpPage:
    """Explain all commands or one."""
    return pages.page(TREE, a.topic)


@dataclass(frozen=True)
class Exit:
    """No arguments."""


@dataclass(frozen=True)
class Goodbye:
    """Ends a lobby session."""

    def text(self, style: Style) -> str:
        """One word."""
        return "goodbye"

    def document(self) -> object:
        """The document of `exit`."""
        return {"status": "goodbye"}


@command("exit", needs=Action.NOTHING, on=NOTHING, reads_only=True, aliases=("quit", "logout"))
async def exit_command(ctx: Ctx, a: Exit) -> Goodbye:
    """Leave the lobby."""
    return Goodbye()


COMMANDS = (help_command, *vms.ALL, *sharing.ALL, *identity.ALL, exit_command)
TREE = Tree.of(COMMANDS)
