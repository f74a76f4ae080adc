"""Use cases of images: pull, list, remove; and what `new --image` means."""
from __future__ import annotations

from collections.abc import Awaitable, Callable

from ussycode.access.decide import Permit
from ussycode.access.facts import Role
from ussycode.base.db import Tx
from ussycode.base.errors import ErrorCode, Kind
from ussycode.base.events import SYSTEM, Event
from ussycode.ports import App
from ussycode.runtime.images.pull import Pull
from ussycode.runtime.images.reference import parse
from ussycode.runtime.images.registry_auth import Credentials
from ussycode.runtime.images.store import Image
from ussycode.vms import image_store
from ussycode.vms.image_store import PulledImage

Show = Callable[[str], Awaitable[None]]
NOT_PULLED = ErrorCode("image.not_pulled", Kind.NOT_FOUND, "you have no image {image}", hint="image ls shows them")
IN_USE = ErrorCode(
    "image.in_use", Kind.CONFLICT, "VMs stand on the image {image}", hint="it goes with the last of them: rm VM"
)
NOT_YOURS = ErrorCode("image.not_yours", Kind.FORBIDDEN, "only the operator removes an image that others pulled")


async def pull(app: App, permit: Permit, text: str, credentials: Credentials | None, show: Show) -> Image:
    """Bring an image from its registry; its tag is asked for anew. Raises what `Puller.pull` does."""
    wanted = Pull(parse(text), permit.actor, credentials)
    image = await app.images.pull(wanted, show)
    await keep(app, permit, image, str(wanted.reference), private=credentials is not None)
    return image


async def keep(app: App, permit: Permit, image: Image, reference: str, *, private: bool) -> None:
    """Note that the caller has an image, and let others go for which there is no room."""

    def note(tx: Tx) -> frozenset[str]:
        image_store.put(tx, PulledImage(image.name, permit.actor, reference, private, image.size, tx.now))
        tx.emit(Event("image.pulled", permit.actor, shown(image.name), {"private": private}))
        return image_store.in_use(tx)

    await _evict(app, await app.db.write(note) | {image.name})


async def _evict(app: App, in_use: frozenset[str]) -> None:
    gone = await app.images.evict(in_use)
    if not gone:
        return

    def forget(tx: Tx) -> None:
        for name in gone:
            image_store.drop(tx, name, None)
            tx.emit(Event("image.evicted", SYSTEM, shown(name), {}))

    await app.db.write(forget)


async def choose(app: App, permit: Permit, text: str, credentials: Credentials | None, show: Show) -> str:
    """The pinned name of the image that somebody typed, pulled when it is not here.

    A private image that was pulled with credentials is found again without them, by the account that did.
    """
    if text in app.images.names() and credentials is None:
        return text
    own = await _own_private(app, permit, text) if credentials is None else None
    if own is not None:
        return own
    return (await pull(app, permit, text, credentials, show)).name


async def _own_private(app: App, permit: Permit, text: str) -> str | None:
    reference = str(parse(text))
    seen = await app.db.read(lambda tx: image_store.seen_by(tx, permit.actor))
    own = [one for one in seen if one.private and one.reference == reference and app.images.find(one.name)]
    return max(own, key=lambda one: one.pulled_at).name if own else None


async def listed(app: App, permit: Permit) -> list[PulledImage]:
    """Pulled images that the caller may see."""
    return await app.db.read(lambda tx: image_store.seen_by(tx, permit.actor))


async def remove(app: App, permit: Permit, text: str) -> list[str]:
    """Forget the caller's pulls of an image (an operator's: everybody's); their names.

    Its disk goes with the last account that holds it. Raises NOT_PULLED, NOT_YOURS, IN_USE.
    """
    operator = permit.caller.role in (Role.OPERATOR, Role.ADMIN)
    reference = str(parse(text))

    def forget(tx: Tx) -> list[str]:
        seen = [one for one in image_store.seen_by(tx, permit.actor) if reference in (one.reference, shown(one.name))]
        if not seen:
            raise NOT_PULLED(image=text)
        if not operator and all(one.owner != permit.actor for one in seen):
            raise NOT_YOURS()
        used = image_store.in_use(tx)
        for one in seen:
            if one.name in used:
                raise IN_USE(image=text)
            image_store.drop(tx, one.name, None if operator else permit.actor)
            tx.emit(Event("image.removed", permit.actor, shown(one.name), {}))
        return [one.name for one in seen]

    names = await app.db.write(forget)
    held = await app.db.read(lambda tx: {name for name in names if image_store.is_held(tx, name)})
    for name in names:
        if name not in held:
            await app.images.forget(name)
    return names


def shown(name: str) -> str:
    """A pinned name as people see it: without the mark of who owns a private one."""
    return name.partition("#")[0]
