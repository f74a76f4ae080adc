"""What an image is made of: a folder with recipe.toml, files/ laid over the system, and customize.sh."""
from __future__ import annotations

import hashlib
import os
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ussycode.base.errors import ErrorCode, Kind

NO_RECIPE = ErrorCode(
    "image.no_recipe", Kind.NOT_FOUND, "no image recipe named {name}", hint="recipes that exist: {names}",
)
BAD_RECIPE = ErrorCode("image.bad_recipe", Kind.FAILED, "the recipe of {name} is not valid: {why}")

PACKAGE = re.compile(r"[a-z0-9][a-z0-9+.-]+")
USER = re.compile(r"[a-z_][a-z0-9_-]{0,31}")
TINY = "tiny"
"""`init` of an image without an init of its own: the guest program stays PID 1."""

TYPES: Mapping[str, type] = {
    "name": str, "summary": str, "login_user": str, "init": str, "packages": list, "exclude": list,
    "disk_gib": int, "needs_mib": int, "default_port": int, "labels": dict,
}


@dataclass(frozen=True)
class Recipe:
    """One image's recipe. `disk_gib` is its disk's size, `needs_mib` what building it takes on the host."""

    folder: Path
    name: str
    summary: str
    login_user: str
    init: str
    packages: tuple[str, ...]
    exclude: tuple[str, ...]
    disk_gib: int
    needs_mib: int
    default_port: int
    labels: Mapping[str, str]

    @property
    def overlay(self) -> Path:
        """Files that are copied over the installed system."""
        return self.folder / "files"

    @property
    def script(self) -> Path:
        """What runs inside the new system after the overlay is there."""
        return self.folder / "customize.sh"

    @property
    def wheels(self) -> Path:
        """Pinned wheels that are unpacked below /usr/local; need not exist."""
        return self.folder / "wheels.txt"

    @property
    def digest(self) -> str:
        """SHA-256 over the names, modes and bytes of the recipe's files, as hex."""
        hasher = hashlib.sha256()
        for path in sorted(path for path in self.folder.rglob("*") if path.is_file()):
            about = f"{path.relative_to(self.folder)}\n{os.access(path, os.X_OK)}\n{path.stat().st_size}\n"
            hasher.update(about.encode() + path.read_bytes())
        return hasher.hexdigest()


def names(folder: Path) -> list[str]:
    """Names of the recipes in `folder`, sorted."""
    return sorted(path.parent.name for path in folder.glob("*/recipe.toml"))


def load(name: str, folder: Path) -> Recipe:
    """The recipe `name` of `folder`. Raises NO_RECIPE, or BAD_RECIPE naming the first problem."""
    known = names(folder)
    if name not in known:
        raise NO_RECIPE(name=name, names=", ".join(known))
    home = folder / name
    try:
        fields = tomllib.loads((home / "recipe.toml").read_text())
    except tomllib.TOMLDecodeError as wrong:
        raise BAD_RECIPE(name=name, why=wrong) from None
    return _checked(home, fields)


def _checked(home: Path, fields: dict[str, object]) -> Recipe:
    why = _problem(home, fields)
    if why:
        raise BAD_RECIPE(name=home.name, why=why)
    return Recipe(folder=home, **{key: _frozen(value) for key, value in fields.items()})  # type: ignore[arg-type]


def _problem(home: Path, fields: dict[str, object]) -> str:
    """The first thing that is wrong with a recipe's fields, in words; empty when nothing is."""
    if fields.keys() != TYPES.keys():
        return f"its fields must be exactly {', '.join(TYPES)}"
    for key, wanted in TYPES.items():
        if not isinstance(fields[key], wanted):
            return f"{key} is not a {wanted.__name__}"
    if fields["name"] != home.name:
        return "its name is not its folder's"
    if not USER.fullmatch(str(fields["login_user"])):
        return "login_user is not a user name"
    if fields["init"] != TINY and not str(fields["init"]).startswith("/"):
        return f"init is neither {TINY} nor an absolute path"
    packages = fields["packages"]
    if not isinstance(packages, list) or not all(PACKAGE.fullmatch(str(name)) for name in packages):
        return "a package has an impossible name"
    return ""


def _frozen(value: object) -> object:
    return tuple(value) if isinstance(value, list) else value
