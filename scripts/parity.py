"""What of exe.dev's command line is here, from docs/parity.toml and the commands' declarations."""
from __future__ import annotations

import tomllib
from dataclasses import dataclass
from pathlib import Path

from ussycode.catalog import COMMANDS, TREE, declined
from ussycode.cmdline.spec import Command

TABLE = Path(__file__).parents[1] / "docs" / "parity.toml"


@dataclass(frozen=True)
class Row:
    """One command of exe.dev, or some flags of it."""

    theirs: str
    usage: str
    test: str
    flags: tuple[str, ...] = ()
    note: str = ""
    absent: str = ""

    @property
    def ours(self) -> Command | None:
        """The command that answers to it here."""
        return TREE.named(self.theirs)

    @property
    def missing(self) -> list[str]:
        """Flags that our command does not take."""
        if self.ours is None:
            return list(self.flags)
        params = self.ours.params
        known = {p.flag for p in params} | {"-" + p.short for p in params if p.short}
        return [f for f in self.flags if f not in known]

    @property
    def verdict(self) -> str:
        """`same`, `differs`, `declined` or `missing`, and the reason."""
        if self.ours is None:
            return f"missing: {self.absent}"
        refused = next((d for d in declined.DECLINED if d.name == self.ours.name), None)
        if refused is not None:
            return f"declined: {refused.why}"
        lacks = [f"without {', '.join(self.missing)}"] if self.missing else []
        said = [*lacks, *([self.note] if self.note else [])]
        return f"differs: {'; '.join(said)}" if said else "same"


def rows() -> list[Row]:
    """The table of docs/parity.toml."""
    return [Row(**row | {"flags": tuple(row.get("flags", ()))}) for row in tomllib.loads(TABLE.read_text())["row"]]


def page(note: str) -> str:
    """The page that people read."""
    found = rows()
    theirs = [f"| `{r.usage.replace('|', chr(92) + '|')}` | {r.verdict} | `{r.test}` |" for r in found]
    known = {r.ours.name for r in found if r.ours is not None}
    mine = [f"- `{c.name}`: {c.summary}" for c in COMMANDS if c.name not in known]
    return "\n".join([
        "# Parity with exe.dev", "", note,
        "Names, flags and JSON are exe.dev's where a self-hosted platform has them. Each row names its test.\n",
        "| exe.dev | here | shown by |", "|---|---|---|", *theirs, "", "## Only here", "", *mine, "",
    ])
