"""Files that ship beside the code: guest sources, image recipes."""
from __future__ import annotations

from pathlib import Path

PACKAGE = Path(__file__).resolve().parent.parent


def path(name: str) -> Path:
    """Folder `name` (`guest` or `images`): package data of an installed wheel, else the checkout's root.

    Raises FileNotFoundError when neither exists.
    """
    for candidate in (PACKAGE / "_data" / name, PACKAGE.parent.parent / name):
        if candidate.is_dir():
            return candidate
    raise FileNotFoundError(f"the folder {name} is missing from this installation of ussycode")
