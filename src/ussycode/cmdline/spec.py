"""How a command is declared: an args dataclass plus a decorator. Everything else is read off it."""
from __future__ import annotations

import dataclasses
import inspect
import typing
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

Parse = Callable[[str], Any]
"""Turns one word into a value; raises ValueError with a sentence, or a declared Failure."""
A = TypeVar("A")
MISSING = dataclasses.MISSING
NOT_OFFERED = "Not offered"
"""How the summary of a command begins that is answered with a reason instead."""


@dataclass(frozen=True)
class Param:
    """One argument of a command, read off a dataclass field."""

    name: str
    kind: Literal["word", "flag", "switch", "rest"]
    """`word` (positional), `flag` (takes a value), `switch` (yes or no), `rest` (all words that follow)."""
    parse: Parse
    help: str
    many: bool = False
    required: bool = False
    default: object = None
    short: str = ""
    complete: str = ""
    """What Tab offers for a value: a kind such as `vm` or `image`, the words themselves as `on|off`, or nothing."""

    @property
    def offered(self) -> bool:
        """It does something; one that is not offered is answered with a reason instead."""
        return not self.help.startswith(NOT_OFFERED.lower())

    @property
    def flag(self) -> str:
        """How it is typed: `--name`."""
        return "--" + self.name.replace("_", "-")


def word(parse: Parse, *, help: str, default: object = MISSING, many: bool = False, complete: str = "") -> Any:
    """A positional argument; required unless it has a default."""
    return _field("word", parse, help, default, many, "", complete)


def flag(
    parse: Parse, *, help: str, default: object = None, many: bool = False, complete: str = "", short: str = "",
) -> Any:
    """`--name VALUE` or `--name=VALUE`; `many` collects a tuple."""
    return _field("flag", parse, help, () if many else default, many, short, complete)


def switch(*, help: str, short: str = "", default: bool = False) -> Any:
    """`--name`, `--name=false`; off unless given or on by default."""
    return _field("switch", truth, help, default, False, short, "")


def rest(*, help: str) -> Any:
    """Every word after the positional ones, flags included, untouched."""
    return _field("rest", str, help, (), True, "", "")


def _field(kind: str, parse: Parse, help: str, default: object, many: bool, short: str, complete: str) -> Any:
    meta = {"kind": kind, "parse": parse, "help": help, "many": many, "short": short, "complete": complete}
    if default is MISSING:
        return dataclasses.field(metadata=meta)
    return dataclasses.field(default=default, metadata=meta)


def truth(text: str) -> bool:
    """Yes or no from a word; raises ValueError for anything else."""
    if text in ("true", "yes", "on", "1"):
        return True
    if text in ("false", "no", "off", "0"):
        return False
    raise ValueError("say true or false")


def params(args: type) -> tuple[Param, ...]:
    """The declared arguments of an args dataclass, in order."""
    return tuple(
        Param(
            name=f.name, required=f.default is MISSING, default=None if f.default is MISSING else f.default,
            **{k: f.metadata[k] for k in ("kind", "parse", "help", "many", "short", "complete")},
        )
        for f in dataclasses.fields(args)
    )


@dataclass(frozen=True)
class Target:
    """What a command acts on: nothing, the caller's account, or the VM(s) an argument names."""

    kind: str
    argument: str = ""


NOTHING = Target("nothing")
ACCOUNT = Target("account")


def vm(argument: str) -> Target:
    """The VM named by `argument`; dispatch resolves it once and no check reads words again."""
    return Target("vm", argument)


@dataclass(frozen=True)
class Command:
    """One declared command. `path` is its words (`share`, `show`)."""

    path: tuple[str, ...]
    args: type
    params: tuple[Param, ...]
    needs: str
    on: Target
    handler: Callable[[Any, Any], Awaitable[Any]]
    examples: tuple[str, ...]
    aliases: tuple[str, ...]
    view: type
    reads_only: bool

    @property
    def name(self) -> str:
        """`share show`."""
        return " ".join(self.path)

    @property
    def summary(self) -> str:
        """First line of the handler's docstring."""
        return (inspect.getdoc(self.handler) or "").split("\n")[0]

    @property
    def offered(self) -> bool:
        """It does something; one that is not offered is answered with a reason instead."""
        return not self.summary.startswith(NOT_OFFERED)

    @property
    def details(self) -> str:
        """What the docstring says beyond its first line."""
        return "\n".join((inspect.getdoc(self.handler) or "").split("\n")[1:]).strip()


def command(
    name: str, *, needs: str, on: Target, examples: tuple[str, ...] = (), aliases: tuple[str, ...] = (),
    reads_only: bool = False,
) -> Callable[[Callable[[Any, A], Awaitable[Any]]], Command]:
    """Declare a command from its handler `async def f(ctx: Ctx, a: Args) -> View`."""

    def declare(handler: Callable[[Any, A], Awaitable[Any]]) -> Command:
        hints = typing.get_type_hints(handler)
        names = list(inspect.signature(handler).parameters)
        args = hints[names[1]]
        return Command(
            tuple(name.split()), args, params(args), needs, on, handler, examples, aliases, hints["return"], reads_only
        )

    return declare
