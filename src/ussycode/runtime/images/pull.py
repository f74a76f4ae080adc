"""Pull images: one download for all who want the same, a few at once, each unpacked in a process of its own."""
from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import tempfile
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from ussycode.base.clock import Clock
from ussycode.base.errors import ErrorCode, Kind
from ussycode.runtime.images import unpack, walled
from ussycode.runtime.images.manifest import BAD_IMAGE, Manifest, Runs, read_config
from ussycode.runtime.images.reference import Reference
from ussycode.runtime.images.registry import Registries
from ussycode.runtime.images.registry_auth import Credentials
from ussycode.runtime.images.store import Image, ImageStore, dump, key
from ussycode.runtime.images.tree import BAD_LAYER
from ussycode.runtime.publish import SCRATCH, publish

MAX_PULLS = 16
"""Downloads at once; a slow registry holds one place of many."""
MAX_PULLS_OF_ONE = 2
"""Downloads at once of one account."""
MAX_ASKING_OF_ONE = 8
"""Registries that one account may be asking at once what a tag means."""
MAX_UNPACKING = MAX_PULLS_OF_ONE + 1
"""Images unpacked at once: more than one account can have, so that a hostile image keeps nobody else waiting."""
UNPACK_SECONDS, UNPACK_SECONDS_PER_MIB = 120.0, 2.0
"""Time to unpack an image, and more of it for each packed MiB; a small image that takes long is meant to."""
PULL_SECONDS = 3600.0
SHOW_SECONDS = 0.5
RESERVE = 1 << 30
"""Bytes that stay free on the host."""
GROWTH = 4
"""A packed layer's size times this is what unpacking it may take: blobs and disk."""

TOO_MANY_PULLS = ErrorCode(
    "image.too_many_pulls", Kind.TOO_MANY, "{count} images are being pulled already", hint="try again when one is done",
)
PULL_TOO_SLOW = ErrorCode("image.pull_too_slow", Kind.TIMEOUT, "pulling {name} took longer than {minutes} minutes")
NO_ROOM_TO_PULL = ErrorCode(
    "image.no_room_to_pull", Kind.UNAVAILABLE, "pulling {name} needs {needed} MiB of disk, and the host has {free} MiB",
    hint="remove images that nobody uses: image rm",
)
Show = Callable[[str], Awaitable[None]]


@dataclass(frozen=True)
class Pull:
    """What somebody wants. Given credentials make the image private to `owner`."""

    reference: Reference
    owner: str
    credentials: Credentials | None = None

    def name(self, digest: str) -> str:
        """The pinned name of the image with that manifest."""
        plain = f"{Reference(self.reference.registry, self.reference.repository, self.reference.tag)}@{digest}"
        plain = plain.replace(":@", "@", 1) if not self.reference.tag else plain
        return plain if self.credentials is None else f"{plain}#{self.owner}"


@dataclass
class _Work:
    """One download and everybody who waits for it."""

    owner: str
    total: int
    have: int = 0
    stage: str = "downloading"
    task: asyncio.Task[Image] | None = None
    waiting: int = 0

    @property
    def line(self) -> str:
        """What a person reads meanwhile."""
        if self.stage != "downloading":
            return self.stage
        return f"downloading {self.have / 1e6:.1f} of {self.total / 1e6:.1f} MB"


@dataclass
class Puller:
    """Brings images from registries into the store. Lives in one event loop."""

    store: ImageStore
    registries: Registries
    clock: Clock
    _works: dict[str, _Work] = field(default_factory=dict)
    _asking: Counter[str] = field(default_factory=Counter)
    _unpacking: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(MAX_UNPACKING))

    async def pull(self, wanted: Pull, show: Show) -> Image:
        """The image, downloaded unless it is here; a tag is asked for anew every time.

        Raises the registry's failures, TOO_MANY_PULLS, NO_ROOM_TO_PULL, PULL_TOO_SLOW, BAD_IMAGE, BAD_LAYER.
        """
        await show(f"asking {wanted.reference.registry}")
        manifest = await self._manifest(wanted)
        name = wanted.name(manifest.digest)
        found = self.store.find(name)
        if found is not None:
            os.utime(found.disk.parent / "image.json")  # so that eviction takes those first that nobody wants
            return found
        return await self._share(name, wanted, manifest, show)

    async def _manifest(self, wanted: Pull) -> Manifest:
        if self._asking[wanted.owner] >= MAX_ASKING_OF_ONE:
            raise TOO_MANY_PULLS(count=self._asking[wanted.owner])
        self._asking[wanted.owner] += 1
        try:
            async with self.registries.open(wanted.reference, wanted.credentials) as registry:
                return await registry.manifest()
        finally:
            self._asking[wanted.owner] -= 1

    def clean(self) -> None:
        """Remove what an earlier process left half done; to be called once, before the first pull."""
        for left in self.store.pulled.glob(f"{SCRATCH}*"):
            shutil.rmtree(left, ignore_errors=True)

    async def _share(self, name: str, wanted: Pull, manifest: Manifest, show: Show) -> Image:
        folder = key(name)
        work = self._works.get(folder)
        if work is None:
            self._require_place(wanted.owner)
            work = self._works[folder] = _Work(wanted.owner, manifest.size)
            work.task = asyncio.create_task(self._bring(name, wanted, manifest, work))
            work.task.add_done_callback(partial(self._ended, folder, work))
        work.waiting += 1
        try:
            return await _watched(work, show)
        finally:
            work.waiting -= 1
            if work.waiting == 0 and work.task is not None:
                self._drop(folder, work)  # at once: nobody may join what is about to end
                work.task.cancel()

    def _ended(self, folder: str, work: _Work, _: object) -> None:
        self._drop(folder, work)

    def _drop(self, folder: str, work: _Work) -> None:
        if self._works.get(folder) is work:
            del self._works[folder]

    def _require_place(self, owner: str) -> None:
        mine = sum(work.owner == owner for work in self._works.values())
        if mine >= MAX_PULLS_OF_ONE or len(self._works) >= MAX_PULLS:
            raise TOO_MANY_PULLS(count=mine if mine >= MAX_PULLS_OF_ONE else len(self._works))

    async def _bring(self, name: str, wanted: Pull, manifest: Manifest, work: _Work) -> Image:
        self._require_room(name)
        try:
            async with asyncio.timeout(PULL_SECONDS):
                with scratch(self.store.pulled) as place:
                    runs = await self._download(place, name, wanted, manifest, work)
                    work.stage = "waiting to unpack"
                    async with self._unpacking:
                        work.stage = "unpacking"
                        job = unpack.Job(_diff_ids(name, runs, manifest))
                        size = await _unpacked(place, job, unpack_seconds(manifest.size))
                    return await asyncio.to_thread(self._publish, place, name, runs, size)
        except TimeoutError:
            raise PULL_TOO_SLOW(name=name, minutes=int(PULL_SECONDS // 60)) from None

    def _require_room(self, name: str) -> None:
        """All downloads under way are to fit, this one among them: none of them takes its room at once."""
        packed = sum(work.total for work in self._works.values())
        free, needed = shutil.disk_usage(self.store.pulled).free, packed * GROWTH + RESERVE
        if free < needed:
            raise NO_ROOM_TO_PULL(name=name, needed=needed >> 20, free=free >> 20)

    async def _download(self, place: Path, name: str, wanted: Pull, manifest: Manifest, work: _Work) -> Runs:
        def seen(size: int) -> None:
            work.have += size

        async with self.registries.open(wanted.reference, wanted.credentials) as registry:
            runs = read_config(name, await registry.config(manifest.config))
            for number, layer in enumerate(manifest.layers):
                await registry.download(layer, place / str(number), seen)
        return runs

    def _publish(self, place: Path, name: str, runs: Runs, size: int) -> Image:
        return keep(self.store, place, name, runs, size, self.clock.now())


def keep(
    store: ImageStore, place: Path, name: str, runs: Runs, size: int, now: float, *, foreign: bool = False
) -> Image:
    """Publish place/disk.raw, `size` bytes, as an image under its pinned name."""
    ready, final = place / "ready", store.pulled / key(name)
    ready.mkdir(mode=0o755)
    (place / "disk.raw").rename(ready / "disk.raw")
    image = Image(
        name=name, digest=key(name), disk=final / "disk.raw", login_user=runs.login_user, init=runs.init, size=size,
        created=now, packages=0, default_port=runs.default_port, labels=dict(runs.labels), recipe="",
        argv=runs.argv, env=runs.env, workdir=runs.workdir, user=runs.user, foreign=foreign,
    )
    (ready / "image.json").write_text(dump(image))
    publish(ready, final)
    return image


@contextmanager
def scratch(parent: Path) -> Iterator[Path]:
    """A folder that is gone afterwards, or with the next start."""
    with tempfile.TemporaryDirectory(prefix=SCRATCH, dir=parent, ignore_cleanup_errors=True) as made:
        yield Path(made)


def _diff_ids(name: str, runs: Runs, manifest: Manifest) -> tuple[str, ...]:
    if len(runs.diff_ids) != len(manifest.layers):
        raise BAD_IMAGE(name=name, why="its configuration speaks of other layers than its manifest")
    return runs.diff_ids


async def _watched(work: _Work, show: Show) -> Image:
    assert work.task is not None
    while not work.task.done():
        await show(work.line)
        await asyncio.wait({work.task}, timeout=SHOW_SECONDS)
    return work.task.result()


def unpack_seconds(packed: int) -> float:
    """How long unpacking so many packed bytes may take."""
    return min(unpack.UNPACK_SECONDS, UNPACK_SECONDS + UNPACK_SECONDS_PER_MIB * (packed >> 20))


async def _unpacked(place: Path, job: unpack.Job, seconds: float) -> int:
    """Run the unpacking process to its end; it ends with us when we are cancelled. Raises BAD_LAYER."""
    try:
        await finished(unpack.start(place, job), seconds)
    except TimeoutError:
        raise BAD_LAYER(why=f"unpacking it took longer than {seconds:.0f} s") from None
    return unpack.result(place)


async def finished(process: subprocess.Popen[bytes], seconds: float = unpack.UNPACK_SECONDS) -> None:
    """Wait for a process behind walls; it ends with us when we are cancelled. Raises TimeoutError."""
    try:
        async with asyncio.timeout(seconds):
            await walled.ended(process)
    finally:
        walled.end(process)
