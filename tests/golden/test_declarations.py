"""Commands and errors as the world sees them, reviewed as a diff."""
from __future__ import annotations

import importlib
import json
import pkgutil
from collections.abc import Callable

import ussycode
from ussycode.base.errors import DECLARED
from ussycode.catalog import COMMANDS
from ussycode.cmdline.help import describe


def load_everything() -> None:
    for module in pkgutil.walk_packages(ussycode.__path__, "ussycode."):
        if "migrations" not in module.name and not module.name.endswith("__main__"):
            importlib.import_module(module.name)


def test_commands_are_the_reviewed_ones(golden: Callable[[str, str], None]) -> None:
    golden("commands.json", json.dumps([describe(c) for c in COMMANDS], indent=1) + "\n")


def test_errors_are_the_reviewed_ones(golden: Callable[[str, str], None]) -> None:
    load_everything()
    lines = [
        f"{e.code:26} {e.kind.status} {e.kind.exit_code:3}  {e.sentence}" + (f"  [{e.hint}]" if e.hint else "")
        for e in sorted(DECLARED.values(), key=lambda e: e.code)
    ]
    golden("errors.txt", "\n".join(lines) + "\n")
