"""Images in the lobby: who sees what, and what is refused."""
from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from pathlib import Path

from tests.world import world
from ussycode.runtime.images.pull import Pull
from ussycode.runtime.images.store import Image

HEX = "cd" * 32


class Shelf:
    """A registry that has everything, and a disk for each."""

    def __init__(self, size: int = 1 << 28) -> None:
        self.here, self.size = dict[str, Image](), size

    def names(self) -> Sequence[str]:
        return ["debian-min"]

    def login_user(self, image: str) -> str:
        return "root"

    def default_port(self, image: str) -> int:
        return 8080

    def find(self, image: str) -> Image | None:
        return self.here.get(image)

    async def pull(self, wanted: Pull, show: Callable[[str], Awaitable[None]]) -> Image:
        name = wanted.name(f"sha256:{HEX}")
        self.here[name] = Image(name, HEX, Path("/x"), "root", "tiny", self.size, 0.0, 0, 8080, {}, "")
        return self.here[name]

    async def forget(self, image: str) -> None:
        del self.here[image]

    async def evict(self, in_use: frozenset[str]) -> Sequence[str]:
        return []


async def test_pull_list_boot_and_remove() -> None:
    async with world() as w:
        shelf = Shelf()
        w.app = replace(w.app, images=shelf)
        olive, peter = await w.person("olive"), await w.person("peter")
        pinned = f"docker.io/library/alpine:3.20@sha256:{HEX}"
        assert await w.does(olive, "image pull alpine:3.20") == {"pinned": pinned}
        assert [one["image"] for one in (await w.does(peter, "image ls"))["images"]] == [
            "debian-min", "docker.io/library/alpine:3.20"]
        assert (await w.fails(peter, "image rm alpine:3.20"))[0] == "image.not_yours"
        assert (await w.fails(peter, "image rm nothing:1"))[0] == "image.not_pulled"
        assert await w.does(olive, "image rm alpine:3.20") == {"removed": [pinned]}
        assert shelf.here == {}


async def test_a_disk_is_as_large_as_asked_and_counted_so() -> None:
    """An image's file system does not shrink: less is refused, not given in silence beyond the quota."""
    async with world() as w:
        shelf = Shelf(size=7 << 30)
        w.app = replace(w.app, images=shelf)
        newbie = await w.person("newbie")
        assert await w.fails(newbie, "new --name small --image big:1 --disk 6G") == ("vm.disk_too_small", 2)
        await w.does(newbie, "new --name whole --image big:1")
        assert [(told.name, told.disk_gib) for told in w.driver.told.values()] == [("whole", 7)]
        assert (await w.does(newbie, "quota"))["quota"]["disk_gib"]["used"] == 7  # type: ignore[index]
        assert (await w.fails(newbie, "new --name two1a --image big:1 --disk 9G"))[0] == "quota.disk"


async def test_a_private_image_is_its_owners_alone() -> None:
    async with world() as w:
        w.app = replace(w.app, images=Shelf())
        olive, peter = await w.person("olive"), await w.person("peter")
        said = await w.does(olive, "image pull ghcr.io/o/app --registry-auth o:word")
        assert "#" not in said["pinned"] and "word" not in str(said)
        assert len((await w.does(olive, "image ls"))["images"]) == 2
        assert len((await w.does(peter, "image ls"))["images"]) == 1
        assert (await w.fails(peter, "image rm ghcr.io/o/app"))[0] == "image.not_pulled"
        for who in (olive, peter):
            await w.does(who, f"new --name box-{who.handle} --image ghcr.io/o/app")
        told = {one.name: one.image for one in w.driver.told.values()}
        assert told["box-olive"].endswith(f"@sha256:{HEX}#{olive.user}"), "booted again without the password"
        assert told["box-peter"].endswith(f"@sha256:{HEX}"), "who has no password asks the registry as a stranger"
        assert (await w.does(olive, "ls -l box-olive"))["vms"][0]["image"].count("#") == 0  # type: ignore[index]
        assert (await w.fails(olive, "image pull x --registry-auth word"))[1] == 2
