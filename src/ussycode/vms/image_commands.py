"""Commands about images from registries."""
from __future__ import annotations

from dataclasses import dataclass

from ussycode.access.actions import Action
from ussycode.base.clock import rfc3339
from ussycode.cmdline.render import Style, table
from ussycode.cmdline.spec import ACCOUNT, command, flag, word
from ussycode.ports import Ctx
from ussycode.runtime.images.reference import parse
from ussycode.runtime.images.registry_auth import Credentials, credentials
from ussycode.vms import images
from ussycode.vms.documents import ImageDocument, ImagesDocument, PulledDocument, RemovedImagesDocument
from ussycode.vms.image_store import PulledImage


def reference(text: str) -> str:
    """The name of an image in a registry."""
    parse(text)
    return text


@dataclass(frozen=True)
class Nothing:
    """No arguments."""


@dataclass(frozen=True)
class ImagesView:
    """Images that `new --image` takes without a download."""

    built: tuple[str, ...]
    pulled: tuple[PulledImage, ...]

    def text(self, style: Style) -> str:
        """A table of both kinds."""
        rows = [[name, "built here", "", ""] for name in self.built]
        rows += [
            [one.reference, "private" if one.private else "public", one.name.partition("@sha256:")[2][:12],
             f"{one.size >> 20} MiB"] for one in self.pulled
        ]
        return table(["IMAGE", "KIND", "DIGEST", "DISK"], rows, style) if rows else "no images yet"

    def document(self) -> ImagesDocument:
        """The document of `image ls`."""
        built: list[ImageDocument] = [{"image": name, "kind": "built"} for name in self.built]
        return {"images": built + [pulled_document(one) for one in self.pulled]}


def pulled_document(one: PulledImage) -> ImageDocument:
    """One pulled image as JSON."""
    return {
        "image": one.reference, "kind": "private" if one.private else "public", "pinned": images.shown(one.name),
        "pulled_at": rfc3339(one.pulled_at),
    }


@command("image ls", needs=Action.VM_LIST, on=ACCOUNT, reads_only=True, examples=("image ls",))
async def image_ls(ctx: Ctx, a: Nothing) -> ImagesView:
    """List images that are ready to boot; private ones are shown to who pulled them alone."""
    return ImagesView(tuple(ctx.app.images.names()), tuple(await images.listed(ctx.app, ctx.permit)))


@dataclass(frozen=True)
class PullArgs:
    """Arguments of `image pull`."""

    image: str = word(reference, help="NAME:TAG, HOST/NAME:TAG or NAME@sha256:DIGEST")
    registry_auth: Credentials | None = flag(  # noqa: RUF009 - a declaration
        credentials, help="USER:PASSWORD for its registry; the image is then yours alone",
    )


@dataclass(frozen=True)
class PulledView:
    """A pull that is done."""

    name: str

    def text(self, style: Style) -> str:
        """The pinned name."""
        return f"{images.shown(self.name)} is ready"

    def document(self) -> PulledDocument:
        """The document of `image pull`."""
        return {"pinned": images.shown(self.name)}


@command("image pull", needs=Action.VM_CREATE, on=ACCOUNT, examples=("image pull alpine:3.20",))
async def image_pull(ctx: Ctx, a: PullArgs) -> PulledView:
    """Bring an image from its registry and make a disk of it; a tag is asked for anew.

    Credentials are used for this one pull and kept nowhere.
    """
    made = await images.pull(ctx.app, ctx.permit, a.image, a.registry_auth, ctx.talk.progress)
    return PulledView(made.name)


@dataclass(frozen=True)
class RmArgs:
    """Arguments of `image rm`."""

    image: str = word(reference, help="the image, as image ls shows it")


@dataclass(frozen=True)
class GoneView:
    """Images that are gone."""

    names: tuple[str, ...]

    def text(self, style: Style) -> str:
        """One line for each."""
        return "\n".join(f"removed {images.shown(name)}" for name in self.names)

    def document(self) -> RemovedImagesDocument:
        """The document of `image rm`."""
        return {"removed": [images.shown(name) for name in self.names]}


@command("image rm", needs=Action.VM_CREATE, on=ACCOUNT, examples=("image rm alpine:3.20",))
async def image_rm(ctx: Ctx, a: RmArgs) -> GoneView:
    """Forget an image you pulled; its disk goes when nobody else holds it. An operator removes anybody's."""
    return GoneView(tuple(await images.remove(ctx.app, ctx.permit, a.image)))


ALL = (image_ls, image_pull, image_rm)
