"""Where images live: ROOT/NAME/DIGEST/ with disk.raw and image.json, published whole by a rename."""
from __future__ import annotations

import dataclasses
import hashlib
import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from ussycode.base import resources
from ussycode.base.clock import Clock, SystemClock
from ussycode.runtime.guest.identity import Service
from ussycode.runtime.images import disk, recipe
from ussycode.runtime.images.build import Built, build
from ussycode.runtime.images.recipe import Recipe
from ussycode.runtime.kernel import Progress, silent
from ussycode.runtime.publish import locked, publish, staging, write_atomically

PULLED = "oci"
"""Folder of images from registries; no recipe may be called so."""


SETTLE = "usr/lib/ussycode/settle"
"""Program of an image that ends once everything in it has started."""
MAX_CACHED = 20 << 30
"""Bytes on the host that pulled images may take together, those in use not counted out."""


def is_pulled(name: str) -> bool:
    """Whether an image's name is one that a pull gave: REFERENCE@sha256:HEX, with #OWNER for a private one."""
    return "@sha256:" in name


def key(name: str) -> str:
    """Folder of a pulled image, as 64 hex digits: the manifest's digest, mixed with the owner of a private one.

    So nobody reaches the bytes of another's private image by knowing its digest alone.
    """
    digest, hidden, owner = name.rpartition("@sha256:")[2].partition("#")
    return hashlib.sha256(f"{owner}:{digest}".encode()).hexdigest() if hidden else digest


@dataclass(frozen=True)
class Image:
    """A published image. `disk` is raw and read-only to VMs; `size` in bytes; `created` in Unix seconds."""

    name: str
    digest: str
    disk: Path
    login_user: str
    init: str
    size: int
    created: float
    packages: int
    default_port: int
    labels: Mapping[str, str]
    recipe: str
    """Digest of the recipe it was built from; empty for one that was pulled."""
    argv: tuple[str, ...] = ()
    """What the tiny init starts; empty for nothing."""
    env: tuple[tuple[str, str], ...] = ()
    workdir: str = "/"
    user: str = ""
    """Whom `argv` runs as, in a container's words: NAME, UID, each with :GROUP perhaps; empty for root."""
    foreign: bool = False
    """Its file system was not written here: only a guest's kernel may mount it."""
    settles: bool = False
    """A template of it may start the image's init before it is anybody: the image knows how to become a machine."""

    @property
    def service(self) -> Service:
        """What its VMs run, unless they are given another command."""
        return Service(self.argv, self.workdir, self.user, self.env)


@dataclass(frozen=True)
class ImageStore:
    """The images below `root` (DATA/images); downloaded packages are kept beside it in DATA/cache."""

    root: Path
    clock: Clock = field(default_factory=SystemClock)
    recipes: Callable[[], Path] = lambda: resources.path("images")
    """Folder of the recipes; asked only when something is built, since only root may be able to enter it."""

    def list(self) -> list[Image]:
        """The current image of every name, sorted by name."""
        return [image for name in self._names() if (image := self.find(name)) is not None]

    def find(self, name: str) -> Image | None:
        """The image that new VMs of `name` get; None when there is none."""
        current = self.root / name / "current"
        if is_pulled(name):
            return self.get(name, key(name))
        if name not in self._names() or not current.exists():
            return None
        return self.get(name, current.read_text())

    def get(self, name: str, digest: str) -> Image | None:
        """One build of `name`, also an older one that VMs still stand on; None when it is gone."""
        folder = self.root / (PULLED if is_pulled(name) else name) / digest
        if not folder.resolve().is_relative_to(self.root.resolve()) or not (folder / "image.json").exists():
            return None
        return _load(folder)

    def ensure(self, name: str, progress: Progress = silent) -> Image:
        """The current image when the present recipe made it, else a fresh build. Raises as `build` does."""
        wanted = recipe.load(name, self.recipes())
        if (image := self._made_by(wanted)) is not None:
            return image
        with locked(self._lock):
            # Another process may have built it while this one waited for the lock.
            return self._made_by(wanted) or self._build(wanted, progress)

    def build(self, name: str, progress: Progress = silent) -> Image:
        """Build the recipe `name` and make it current. Blocks; one build at a time on this store.

        Raises `recipe.NO_RECIPE` and the failures of `build.build`. A failed build leaves nothing behind, and
        the image that was current stays so.
        """
        with locked(self._lock):
            return self._build(recipe.load(name, self.recipes()), progress)

    def _made_by(self, wanted: Recipe) -> Image | None:
        """The build of this very recipe, the newest if there are several; it is current afterwards."""
        current = self.find(wanted.name)
        if current is not None and current.recipe == wanted.digest:
            return current
        folder = self.root / wanted.name
        builds = [_load(place) for place in folder.glob("*") if (place / "image.json").exists()]
        found = max((one for one in builds if one.recipe == wanted.digest), key=lambda one: one.created, default=None)
        if found is not None:
            write_atomically(folder / "current", found.digest)
        return found

    def _build(self, wanted: Recipe, progress: Progress) -> Image:
        with staging(self.root) as work:
            built = build(wanted, work, self.root.parent / "cache" / "debs", progress)
            progress("checking the disk", 0.96)
            image = self._publish(wanted, built)
        progress(f"image {wanted.name} is ready", 1.0)
        return image

    @property
    def _lock(self) -> Path:
        return self.root / "build.lock"

    def remove(self, name: str, digest: str | None = None) -> bool:
        """Remove every build of `name`, or the one with `digest`; False when there was none.

        The caller knows that no VM stands on it: a disk overlay without its base is lost.
        """
        if name not in self._names():
            return False
        folder = self.root / name
        with locked(self._lock):
            gone = [folder] if digest is None else [folder / image.name for image in _builds(folder, digest)]
            for path in gone:
                shutil.rmtree(path)
        return bool(gone)

    def forget(self, name: str) -> None:
        """Remove a pulled image; the caller knows that no VM stands on it. Idempotent."""
        assert is_pulled(name)
        shutil.rmtree(self.pulled / key(name), ignore_errors=True)

    def evict(self, in_use: frozenset[str], most: int = MAX_CACHED) -> Sequence[str]:
        """Remove pulled images until they take at most `most` bytes, the longest unwanted first; their names."""
        kept = {key(name) for name in in_use if is_pulled(name)}
        folders = [path for path in self.pulled.iterdir() if (path / "image.json").exists()]
        folders.sort(key=lambda path: (path / "image.json").stat().st_mtime)
        taken = {path: (path / "disk.raw").stat().st_blocks * 512 for path in folders}
        gone = []
        for path in folders[:-1]:  # the newest was pulled just now
            if sum(taken.values()) <= most:
                break
            if path.name not in kept:
                gone.append(_load(path).name)
                shutil.rmtree(path, ignore_errors=True)
                del taken[path]
        return gone

    @property
    def pulled(self) -> Path:
        """Folder of the images that were pulled: one folder each, named by its key; control's own."""
        return self.root / PULLED

    def _names(self) -> frozenset[str]:
        if not self.root.is_dir():
            return frozenset()
        folders = (path for path in self.root.iterdir() if path.is_dir() and path.name != PULLED)
        return frozenset(path.name for path in folders if path.name[0] != ".")

    def _publish(self, wanted: Recipe, built: Built) -> Image:
        digest = disk.digest(built.disk)
        ready = built.disk.parent / "ready"
        ready.mkdir()
        built.disk.rename(ready / "disk.raw")
        final = self.root / wanted.name / digest
        image = Image(
            name=wanted.name, digest=digest, disk=final / "disk.raw", login_user=wanted.login_user,
            init=wanted.init, size=wanted.disk_gib << 30, created=self.clock.now(), packages=built.packages,
            default_port=wanted.default_port, labels=wanted.labels, recipe=wanted.digest,
            settles=(wanted.overlay / SETTLE).exists(),
        )
        (ready / "image.json").write_text(dump(image))
        publish(ready, final)
        write_atomically(final.parent / "current", digest)
        return image


def _builds(folder: Path, digest: str) -> list[Path]:
    return [path for path in folder.iterdir() if path.name == digest and path.is_dir()]


def dump(image: Image) -> str:
    """The text of image.json."""
    fields = asdict(image)
    del fields["disk"]  # where it lies follows from where this file lies
    return json.dumps(fields, indent=1, sort_keys=True) + "\n"


def _load(folder: Path) -> Image:
    fields = json.loads((folder / "image.json").read_text())
    fields["argv"] = tuple(fields.get("argv", ()))
    fields["env"] = tuple((name, value) for name, value in fields.get("env", ()))
    known = {one.name for one in dataclasses.fields(Image)}  # one that a later version wrote may say more
    return Image(disk=folder / "disk.raw", **{name: value for name, value in fields.items() if name in known})
