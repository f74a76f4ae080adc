"""The command tree: finding the command that some words name."""
from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches

from ussycode.base.errors import ErrorCode, Kind
from ussycode.cmdline.spec import Command

UNKNOWN = ErrorCode(
    "command.unknown", Kind.UNKNOWN_COMMAND, "unknown command: {name}", hint="{suggestion}type help for all commands"
)
INCOMPLETE = ErrorCode(
    "command.incomplete", Kind.USAGE, "{name} needs one more word: {words}", hint="help {name} explains them"
)
BEGUN = 3
"""Letters from which on a beginning of a command is taken for it, in advice."""
HELP_WORDS = ("help", "--help", "-h")
"""After the name of a group they ask for its page."""


@dataclass(frozen=True)
class Tree:
    """All commands by path. Aliases are other spellings of a full path."""

    commands: tuple[Command, ...]
    sections: tuple[tuple[str, tuple[Command, ...]], ...] = ()
    """The same commands under headings, for the page of all help."""

    @classmethod
    def of(cls, *sections: tuple[str, Iterable[Command]]) -> Tree:
        """A tree in the order given, by heading; raises ValueError when two commands share a spelling."""
        kept = tuple((title, tuple(commands)) for title, commands in sections)
        tree = cls(tuple(c for _, commands in kept for c in commands), kept)
        spellings = [s for c in tree.commands for s in (c.name, *c.aliases)]
        if doubled := {s for s in spellings if spellings.count(s) > 1}:
            raise ValueError(f"two commands are called {sorted(doubled)}")
        return tree

    def named(self, name: str) -> Command | None:
        """The command with exactly this path or alias."""
        return next((c for c in self.commands if name == c.name or name in c.aliases), None)

    def under(self, words: Sequence[str]) -> tuple[Command, ...]:
        """Commands whose path begins with `words`."""
        return tuple(c for c in self.commands if c.path[: len(words)] == tuple(words))

    def find(self, words: Sequence[str]) -> tuple[Command, tuple[str, ...]]:
        """The longest command that `words` begin with, and the words after it.

        Raises INCOMPLETE for the name of a group alone, UNKNOWN for anything else that is no command.
        """
        for length in (2, 1):
            found = self.named(" ".join(words[:length])) if len(words) >= length else None
            if found is not None:
                return found, tuple(words[length:])
        group = self.under(words[:1])
        if group and len(words) > 1 and words[1] in HELP_WORDS and (found := self.named("help")):
            return found, (words[0], *words[2:])
        if group and tuple(words[1:]) in ((), ("--json",)):
            inside = [c for c in group if c.offered] or group
            raise INCOMPLETE(name=words[0], words=", ".join(c.path[1] for c in inside))
        raise self.unknown(words)

    def unknown(self, words: Sequence[str]) -> Exception:
        """UNKNOWN for `words`, suggesting the nearest spelling."""
        group = bool(words) and bool(self.under(words[:1]))
        name = " ".join(words[:2] if group else words[:1])
        spellings = [s for c in self.commands for s in (c.name, *c.aliases)]
        typed = " ".join(words[:2])
        begun = [s for s in spellings if len(name) >= BEGUN and s.startswith(name)]
        near = begun or get_close_matches(typed, spellings, 1, 0.75) or get_close_matches(name, spellings, 1, 0.6)
        inside = ", ".join(c.name for c in self.under(words[:1])) if group else ""
        suggestion = f"did you mean {near[0]}? " if near else f"there is {inside}; " if inside else ""
        return UNKNOWN(name=name, suggestion=suggestion)
