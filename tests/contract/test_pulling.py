"""Pulling from a real registry: anonymous, basic and token authentication, indexes, broken connections, walls."""
from __future__ import annotations

import asyncio
import os
import subprocess
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from tests import registry_rig as rig
from tests.registry_rig import PASSWORD, USER, RegistryRig, layer
from ussycode.base.clock import SystemClock
from ussycode.base.errors import Failure
from ussycode.runtime.images import pull as pulling
from ussycode.runtime.images.pull import Pull, Puller
from ussycode.runtime.images.reference import parse
from ussycode.runtime.images.registry import Registries
from ussycode.runtime.images.registry_auth import Credentials
from ussycode.runtime.images.store import Image, ImageStore
from ussycode.runtime.images.unpack import UNPACK_SECONDS
from ussycode.runtime.images.uploads import MAX_UPLOADS_OF_ONE, Upload, Uploads

APP = layer({"bin/app": (b"#!", 0o755), "etc/conf": b"x"})
TOP = layer({"etc/.wh.conf": b"", "srv/page": b"hello"})
CONFIG = {"Entrypoint": ["/bin/app"], "Cmd": ["serve"], "Env": ["A=1", "bad"], "WorkingDir": "/srv", "User": "1000:7",
          "ExposedPorts": {"9000/tcp": {}, "53/udp": {}}, "Labels": {"exe.dev/login-user": "me"}}


@pytest.fixture(scope="module")
def open_registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RegistryRig]:
    with rig.registry(tmp_path_factory.mktemp("open")) as made:
        yield made


@pytest.fixture
def store(tmp_path: Path) -> ImageStore:
    made = ImageStore(tmp_path / "images")
    made.pulled.mkdir(parents=True)
    return made


def puller(store: ImageStore, *hosts: str) -> Puller:
    return Puller(store, Registries(trusted=frozenset(hosts)), SystemClock())


async def pulled(
    by: Puller, name: str, credentials: Credentials | None = None, owner: str = "usr_a", shown: list[str] | None = None,
) -> Image:
    async def show(line: str) -> None:
        lines.append(line)

    lines = shown if shown is not None else []
    return await by.pull(Pull(parse(name), owner, credentials), show)


def inside(image: Image, request: str) -> str:
    return subprocess.run(["/usr/sbin/debugfs", "-R", request, image.disk], capture_output=True, text=True).stdout


async def test_an_image_becomes_a_disk_with_its_way_of_running(open_registry: RegistryRig, store: ImageStore) -> None:
    digest = open_registry.push("app", [APP, TOP], CONFIG, tag="1")
    image = await pulled(puller(store, open_registry.host), f"{open_registry.host}/app:1")
    assert image.name == f"{open_registry.host}/app:1@{digest}" and store.find(image.name) == image
    assert (image.init, image.argv, image.env) == ("tiny", ("/bin/app", "serve"), (("A", "1"),))
    assert (image.workdir, image.user, image.login_user, image.default_port) == ("/srv", "1000:7", "me", 9000)
    assert inside(image, "cat /srv/page") == "hello" and "conf" not in inside(image, "ls /etc")
    assert "busybox" in inside(image, "ls /.ussy/bin"), "an image without a shell gets one"
    assert sorted(path.name for path in store.pulled.iterdir()) == [image.digest], "nothing else is left"


@pytest.mark.parametrize("kind", [rig.MANIFEST, rig.DOCKER_MANIFEST])
async def test_indexes_and_both_kinds_of_manifest(open_registry: RegistryRig, store: ImageStore, kind: str) -> None:
    digest = open_registry.push("many", [APP], {}, tag="x", manifest_type=kind, index=True)
    image = await pulled(puller(store, open_registry.host), f"{open_registry.host}/many:x")
    assert image.name.endswith(digest)


async def test_layers_packed_by_zstd(open_registry: RegistryRig, store: ImageStore) -> None:
    def zstd(data: bytes) -> bytes:
        return subprocess.run(["zstd", "-cq"], input=data, capture_output=True, check=True).stdout

    open_registry.push("zstd", [APP], {}, pack=zstd)
    assert await pulled(puller(store, open_registry.host), f"{open_registry.host}/zstd")


async def test_a_tag_is_asked_for_anew_and_a_digest_is_kept(open_registry: RegistryRig, store: ImageStore) -> None:
    by, name = puller(store, open_registry.host), f"{open_registry.host}/moving"
    open_registry.push("moving", [APP], {})
    first = await pulled(by, name)
    open_registry.push("moving", [TOP], {})
    second = await pulled(by, name)
    assert first.digest != second.digest and store.find(first.name) == first
    again = await pulled(by, f"{name}@sha256:{first.digest}")
    assert again.digest == first.digest


async def test_basic_credentials_make_an_image_private(tmp_path: Path, store: ImageStore) -> None:
    with rig.basic_registry(tmp_path / "basic") as registry:
        registry.push("app", [APP], {})
        by, name = puller(store, registry.host), f"{registry.host}/app"
        image = await pulled(by, name, Credentials(USER, PASSWORD))
        assert image.name.endswith("#usr_a") and image.digest not in image.name
        for wrong in (None, Credentials(USER, "wrong")):
            with pytest.raises(Failure, match="has no image app that it gives to"):
                await pulled(by, name, wrong, owner="usr_b")
        kept = "".join(file.read_text(errors="replace") for file in store.root.rglob("image.json"))
        assert PASSWORD not in kept and PASSWORD not in repr(by) + repr(Credentials(USER, PASSWORD))


async def test_tokens_for_everybody_and_for_those_with_a_password(tmp_path: Path, store: ImageStore) -> None:
    with rig.token_registry(tmp_path / "token") as registry:
        registry.push("public/app", [APP], {})
        registry.push("private/app", [TOP], {})
        by = puller(store, registry.host, f"127.0.0.1:{registry.token_port}")  # type: ignore[attr-defined]
        assert (await pulled(by, f"{registry.host}/public/app")).name.count("#") == 0
        with pytest.raises(Failure, match="gives to everybody"):
            await pulled(by, f"{registry.host}/private/app")
        assert await pulled(by, f"{registry.host}/private/app", Credentials(USER, PASSWORD))


async def test_one_download_for_all_who_want_the_same(open_registry: RegistryRig, store: ImageStore) -> None:
    open_registry.push("shared", [APP], {})
    by = puller(store, open_registry.host)
    names = [f"{open_registry.host}/shared"] * 5
    found = await asyncio.gather(*(pulled(by, name, owner=f"usr_{n}") for n, name in enumerate(names)))
    assert len({image.digest for image in found}) == 1 and len({image.created for image in found}) == 1


async def test_whoever_leaves_ends_only_their_own_waiting(open_registry: RegistryRig, store: ImageStore) -> None:
    open_registry.push("left", [APP], {})
    by, name = puller(store, open_registry.host), f"{open_registry.host}/left"
    leaves, stays = (asyncio.create_task(pulled(by, name, owner=owner)) for owner in ("usr_a", "usr_b"))
    while not by._works:
        await asyncio.sleep(0.001)
    leaves.cancel()
    assert (await stays).disk.exists()


async def test_a_layer_that_lies_about_itself_leaves_nothing(open_registry: RegistryRig, store: ImageStore) -> None:
    open_registry.push("evil", [layer({"../../etc/passwd": b"x"})], {})
    with pytest.raises(Failure, match="leads upwards"):
        await pulled(puller(store, open_registry.host), f"{open_registry.host}/evil")
    assert list(store.pulled.iterdir()) == []


@pytest.mark.parametrize(("hosts", "name"), [
    ((), "127.0.0.1:1/app"), ((), "localhost:1/app"), ((), "169.254.169.254/app"), ((), "10.0.0.1:5000/app"),
    (("127.0.0.1:2",), "127.0.0.1:1/app"),
])
async def test_private_places_are_asked_only_when_the_operator_says_so(
    store: ImageStore, hosts: tuple[str, ...], name: str,
) -> None:
    with pytest.raises(Failure) as refused:
        await pulled(puller(store, *hosts), name)
    assert refused.value.error.code in ("image.registry_forbidden", "image.registry_unreachable")


async def test_who_waits_reads_how_many_bytes_have_come(open_registry: RegistryRig, store: ImageStore) -> None:
    open_registry.push("big", [layer({"big": bytes(range(256)) * 8192})], {}, pack=bytes)
    shown: list[str] = []
    await pulled(puller(store, open_registry.host), f"{open_registry.host}/big", shown=shown)
    assert shown[:2] == [f"asking {open_registry.host}", "downloading 0.0 of 2.1 MB"]
    assert pulling._Work("usr_a", 2_100_000, 1_050_000).line == "downloading 1.1 of 2.1 MB"


async def test_a_registry_that_stalls_keeps_nobody_else_waiting(open_registry: RegistryRig, store: ImageStore) -> None:
    """One account's downloads hang and its images take for ever to unpack; another's pull goes through."""
    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.set()
        await reader.read()
        writer.close()

    asked = asyncio.Event()
    open_registry.push("quick", [APP], {})
    async with await asyncio.start_server(silent, "127.0.0.1", 0) as stalls:
        place = f"127.0.0.1:{stalls.sockets[0].getsockname()[1]}"
        by = puller(store, open_registry.host, place)
        hanging = [asyncio.create_task(pulled(by, f"{place}/x")) for _ in range(pulling.MAX_ASKING_OF_ONE)]
        await asked.wait()
        while by._asking["usr_a"] < pulling.MAX_ASKING_OF_ONE:
            await asyncio.sleep(0)
        with pytest.raises(Failure, match="8 images are being pulled already"):
            await pulled(by, f"{place}/x")
        for _ in range(pulling.MAX_PULLS_OF_ONE):
            await by._unpacking.acquire()
        assert await pulled(by, f"{open_registry.host}/quick", owner="usr_b")
        for task in hanging:
            task.cancel()
        await asyncio.gather(*hanging, return_exceptions=True)
        assert not +by._asking


async def test_an_image_that_takes_too_long_to_unpack_is_ended(
    open_registry: RegistryRig, store: ImageStore, monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert [pulling.unpack_seconds(size << 20) for size in (0, 100, 1 << 20)] == [120, 320, UNPACK_SECONDS]
    monkeypatch.setattr(pulling, "UNPACK_SECONDS", 0.01)
    open_registry.push("slow", [APP], {})
    with pytest.raises(Failure, match=r"unpacking it took longer than 0 s"):
        await pulled(puller(store, open_registry.host), f"{open_registry.host}/slow")
    assert list(store.pulled.iterdir()) == []


async def test_a_pull_that_cannot_fit_is_refused_with_both_numbers(
    open_registry: RegistryRig, store: ImageStore, monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(pulling, "RESERVE", 1 << 60)
    open_registry.push("large", [APP], {})
    with pytest.raises(Failure, match=rf"needs {1 << 40} MiB of disk, and the host has \d+ MiB"):
        await pulled(puller(store, open_registry.host), f"{open_registry.host}/large")
    assert list(store.pulled.iterdir()) == []


async def test_pulls_under_way_count_before_they_have_come(open_registry: RegistryRig, store: ImageStore) -> None:
    by = puller(store, open_registry.host)
    by._works["another"] = pulling._Work("usr_b", 1 << 58)
    open_registry.push("late", [APP], {})
    with pytest.raises(Failure, match="MiB of disk, and the host has"):
        await pulled(by, f"{open_registry.host}/late")


async def test_files_that_are_hard_to_read_keep_nobody_else_waiting(store: ImageStore) -> None:
    async def chunks() -> AsyncIterator[bytes]:
        yield APP

    async def show(_: str) -> None:
        """Nobody looks."""

    uploads = Uploads(store, SystemClock())
    for _ in range(MAX_UPLOADS_OF_ONE):
        await uploads._reading.acquire()  # another account's
    assert (await uploads.take(Upload("usr_b", "mine", 1 << 30, chunks()), show)).disk.exists()


async def test_images_that_nobody_uses_go_when_the_cache_is_full(open_registry: RegistryRig, store: ImageStore) -> None:
    by, kept = puller(store, open_registry.host), []
    for number in range(4):
        open_registry.push(f"many{number}", [layer({"n": str(number).encode()})], {})
        kept.append(await pulled(by, f"{open_registry.host}/many{number}"))
        os.utime(kept[-1].disk.parent / "image.json", (number, number))
    assert (await pulled(by, f"{open_registry.host}/many0")).digest == kept[0].digest, "which makes it wanted again"
    size = kept[0].disk.stat().st_blocks * 512
    assert store.evict(frozenset({kept[1].name}), most=size * 5) == []
    assert store.evict(frozenset({kept[1].name}), most=1) == [kept[2].name, kept[3].name]
    assert [store.find(image.name) is not None for image in kept] == [True, True, False, False]


async def test_one_account_cannot_take_every_place(
    open_registry: RegistryRig, store: ImageStore, monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(pulling, "MAX_PULLS_OF_ONE", 0)
    open_registry.push("one", [APP], {})
    with pytest.raises(Failure, match="being pulled already"):
        await pulled(puller(store, open_registry.host), f"{open_registry.host}/one")
