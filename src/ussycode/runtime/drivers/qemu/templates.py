"""Which templates there are: made in the background when nobody waits, shared by who may, dropped by watermark."""
from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import structlog

from ussycode.base.errors import Failure
from ussycode.runtime.driver import Want
from ussycode.runtime.drivers.qemu.saved import forget
from ussycode.runtime.drivers.qemu.template import PREFIX, Class, Template, Workshop, every
from ussycode.runtime.images.store import Image

RETRY_SECONDS = 600.0
"""After a template could not be made, or its copies do not come up, the next attempt is so many seconds away."""
MAX_STRIKES = 2
"""Copies of one class that may fail one after the other before its next template has to wait."""
MAX_WISHES = 32
"""Classes that may wait for their template; what is wished beyond that is wished again by the next machine."""
LOOK_SECONDS = 0.25
"""Between two looks whether anybody's machine is starting."""
_log = structlog.get_logger("ussycode.templates")


@dataclass(frozen=True)
class Limits:
    """`most_mib` is the memory of the host that templates may take together; 0 for none at all.

    `first` is made at the start, without being asked for: image, virtual CPUs, memory in MiB.
    """

    most_mib: int = 0
    first: tuple[str, int, int] | None = None


@dataclass
class Figures:
    """What the operator sees: templates held and the bytes they take, machines by how they came up."""

    held: int = 0
    size: int = 0
    forked: int = 0
    failed: int = 0
    """Copies that did not come up; their machines were booted instead."""


@dataclass
class Templates:
    """The templates of a node. `busy` says whether a machine is starting just now: its owner goes first."""

    workshop: Workshop
    limits: Limits
    find_image: Callable[[str], Image | None]
    busy: Callable[[], bool]
    build: str = ""
    figures: Figures = field(default_factory=Figures)
    _held: dict[str, Template] = field(default_factory=dict)
    """By id; the one used last is last."""
    _pins: dict[str, ExitStack] = field(default_factory=dict)
    _wishes: dict[Class, Image | None] = field(default_factory=dict)
    _not_before: dict[Class, float] = field(default_factory=dict)
    _strikes: Counter[Class] = field(default_factory=Counter)
    _wished: asyncio.Event = field(default_factory=asyncio.Event)
    _task: asyncio.Task[None] | None = None

    async def open(self, build: str) -> None:
        """Take up what an earlier control left, drop what is of no use any more, and begin to make what is wished."""
        self.build = build
        held = {one.template: one for one in await self.workshop.helper.templates()}
        for found in [*every(self.workshop.instance.data)]:
            known = held.pop(found.id, None)
            if known is not None and known.sealed and found.of.build == build and self.limits.most_mib:
                self._take_up(found)
            else:
                await self.workshop.remove(found)
        await self._remove_leavings(list(held))
        if self.limits.first is not None:
            self._wish_first(*self.limits.first)
        if self.limits.most_mib:
            self._task = asyncio.create_task(self._make_for_ever())

    async def close(self) -> None:
        """Stop making; what there is stays."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self._task = None

    @property
    def held(self) -> list[Template]:
        """The templates, the one used last at the end."""
        return list(self._held.values())

    def system(self, want: Want, image: Image) -> Template | None:
        """The template of a new machine's whole system, where its image is made for that; None wishes for one."""
        self.kernel(want)
        if not image.settles:
            return None
        return self._find(Class(image.name, image.digest, want.vcpus, want.memory_mib, self.build), image)

    def kernel(self, want: Want) -> Template | None:
        """The template of a kernel for a machine of this size; None wishes for one."""
        return self._find(Class("", "", want.vcpus, want.memory_mib, self.build), None)

    def _find(self, of: Class, image: Image | None) -> Template | None:
        found = next((one for one in self._held.values() if one.of == of), None)
        if found is None:
            self._wish(of, image)
        else:
            self._held[found.id] = self._held.pop(found.id)
        return found

    def ready(self, template: str) -> Template | None:
        """The template with this id, when a copy can be made of it now."""
        found = self._held.get(template)
        return found if found is not None and self.workshop.is_whole(found) else None

    def state(self, template: Template) -> Path:
        """Folder with its device state."""
        return self.workshop.folder(template)

    def succeeded(self, template: str) -> None:
        """A copy came up."""
        self.figures.forked += 1
        found = self._held.get(template)
        if found is not None:
            self._strikes.pop(found.of, None)

    async def failed(self, template: str) -> None:
        """A copy did not come up: another one would not either."""
        self.figures.failed += 1
        found = self._held.get(template)
        if found is not None:
            _log.warning("a copy of a template did not come up", template=template, image=found.of.image)
            self._strikes[found.of] += 1
            if self._strikes[found.of] >= MAX_STRIKES:
                self._put_off(found.of)
            await self._drop(found)

    def _wish_first(self, name: str, vcpus: int, memory_mib: int) -> None:
        self._find(Class("", "", vcpus, memory_mib, self.build), None)
        image = self.find_image(name)
        if image is not None and image.settles:
            self._find(Class(image.name, image.digest, vcpus, memory_mib, self.build), image)

    def _wish(self, of: Class, image: Image | None) -> None:
        if self.limits.most_mib and len(self._wishes) < MAX_WISHES:
            self._wishes.setdefault(of, image)
            self._wished.set()

    def _put_off(self, of: Class) -> None:
        self._not_before[of] = self.workshop.clock.now() + RETRY_SECONDS

    async def _make_for_ever(self) -> None:
        """One after the other. The outermost frame: what cannot be made is tried again later, for another machine."""
        while True:
            await self._wished.wait()
            self._wished.clear()
            while self._wishes:
                while self.busy():  # noqa: ASYNC110  - a look costs less than to be told of every machine's every step
                    await asyncio.sleep(LOOK_SECONDS)
                of, image = next(iter(self._wishes.items()))
                del self._wishes[of]
                if self._not_before.get(of, 0) <= self.workshop.clock.now():
                    await self._make(of, image)

    async def _make(self, of: Class, image: Image | None) -> None:
        began = self.workshop.clock.now()
        try:
            made = await self.workshop.make(of, image)
        except (Failure, OSError) as error:
            _log.warning("no template could be made", image=of.image, error=str(error))
            self._put_off(of)
            return
        self._take_up(made)
        took = round(self.workshop.clock.now() - began, 2)
        _log.info("template made", image=of.image, memory_mib=of.memory_mib, seconds=took)
        await self._thin_out(made)

    async def _thin_out(self, newest: Template) -> None:
        """Drop templates of earlier builds of the same, then those unused longest until the rest has room."""
        for one in list(self._held.values()):
            if one.id != newest.id and _outdated(one.of, newest.of):
                await self._drop(one)
        for one in list(self._held.values()):
            if self.figures.size > self.limits.most_mib << 20 and one.id != newest.id:
                await self._drop(one)
        if self.figures.size > self.limits.most_mib << 20:
            _log.warning("a template is larger than all may be together", size=self.figures.size >> 20)

    def _take_up(self, template: Template) -> None:
        self._held[template.id] = template
        self._pins[template.id] = ExitStack()
        self._pins[template.id].enter_context(self.workshop.layers.pinned((template.layer,)))
        self._count()

    async def _drop(self, template: Template) -> None:
        self._held.pop(template.id, None)
        self._count()
        await self.workshop.remove(template)
        self._pins.pop(template.id, ExitStack()).close()

    def _count(self) -> None:
        self.figures.held, self.figures.size = len(self._held), sum(one.size for one in self._held.values())

    async def _remove_leavings(self, unknown: list[str]) -> None:
        """What a control that died had begun: machines half way to a template, memory that nothing tells of."""
        instance = self.workshop.instance
        kept = {one.machine for one in self._held.values()}
        for folder in (instance.run / "vm", instance.data / "vms"):
            for place in [*folder.glob(f"{PREFIX}*")]:
                if place.name not in kept:
                    await self.workshop.end(place.name)
                    forget(instance.vm_data(place.name))
        for template in unknown:
            await self.workshop.helper.template_drop(template)


def _outdated(one: Class, newest: Class) -> bool:
    """The same machines made of something older."""
    same = (one.image, one.vcpus, one.memory_mib) == (newest.image, newest.vcpus, newest.memory_mib)
    return same and one != newest
