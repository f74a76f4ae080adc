"""Images: the recipes that ship are sound, and the store shows whole images or none."""
from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from ussycode.base import resources
from ussycode.base.clock import ManualClock
from ussycode.base.errors import Failure
from ussycode.runtime.images import build, disk, recipe
from ussycode.runtime.images.build import Built
from ussycode.runtime.images.store import Image, ImageStore

SHIPPED = resources.path("images")


@pytest.fixture
def store(tmp_path: Path) -> ImageStore:
    return ImageStore(tmp_path / "data/images", clock=ManualClock())


def put(store: ImageStore, content: bytes, name: str = "debian-min") -> Image:
    """Publish a disk of a few bytes through the very steps a build ends with."""
    work = store.root / ".building-test"
    work.mkdir(parents=True)
    (work / "disk.raw").write_bytes(content)
    image = store._publish(recipe.load(name, SHIPPED), Built(work / "disk.raw", packages=7))
    shutil.rmtree(work)
    return image


@pytest.mark.parametrize("name", recipe.names(SHIPPED))
def test_every_shipped_recipe_loads(name: str) -> None:
    loaded = recipe.load(name, SHIPPED)
    assert loaded.script.is_file()
    assert loaded.overlay.is_dir()
    assert loaded.login_user == "ussy"
    assert "sudo" in loaded.packages


def test_no_shipped_recipe_names_a_mirror() -> None:
    for path in SHIPPED.rglob("*"):
        if path.is_file():
            assert "deb http" not in path.read_text(), path


def test_an_unknown_recipe_names_the_known_ones() -> None:
    with pytest.raises(Failure) as refused:
        recipe.load("gentoo", SHIPPED)
    assert "debian-min" in refused.value.hint


@pytest.mark.parametrize(("change", "why"), [
    (('login_user = "ussy"', 'login_user = "ussy; rm -rf /"'), "not a user name"),
    (('"bash"', '"bash --force-yes"'), "impossible name"),
    (('init = "tiny"', 'init = "sbin/init"'), "absolute path"),
    (('disk_gib = 5', 'disk_gib = "5"'), "disk_gib is not"),
    (('disk_gib = 5', 'disk_size = 5'), "exactly"),
    (('name = "debian-min"', 'name = "other"'), "not its folder's"),
    (('disk_gib = 5', 'disk_gib 5'), "Expected"),
])
def test_a_wrong_recipe_says_what_is_wrong(tmp_path: Path, change: tuple[str, str], why: str) -> None:
    home = tmp_path / "debian-min"
    home.mkdir()
    text = (SHIPPED / "debian-min/recipe.toml").read_text()
    assert change[0] in text
    (home / "recipe.toml").write_text(text.replace(*change))
    with pytest.raises(Failure) as refused:
        recipe.load("debian-min", tmp_path)
    assert why in refused.value.sentence


def test_a_published_image_is_found_with_all_it_says(store: ImageStore) -> None:
    image = put(store, b"first")
    assert store.find("debian-min") == image
    assert store.list() == [image]
    assert image.disk.read_bytes() == b"first"
    assert (image.login_user, image.init, image.size) == ("ussy", "tiny", 5 << 30)
    assert image.created == ManualClock().now()


def test_what_a_later_version_says_of_an_image_is_passed_over(store: ImageStore) -> None:
    image = put(store, b"first")
    file = image.disk.parent / "image.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "a_later_word": [1]}))
    assert store.find("debian-min") == image


def test_a_build_of_the_present_recipe_that_is_not_current_is_taken_up_again(store: ImageStore) -> None:
    wanted = put(store, b"first")
    other = put(store, b"second")
    file = other.disk.parent / "image.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "recipe": "another"}))
    assert store.ensure("debian-min") == wanted == store.find("debian-min")


def test_a_new_build_becomes_current_and_the_old_one_stays_for_its_vms(store: ImageStore) -> None:
    old, new = put(store, b"first"), put(store, b"second")
    assert store.find("debian-min") == new
    assert store.get("debian-min", old.digest) == old


def test_an_image_of_the_present_recipe_is_not_built_again(store: ImageStore) -> None:
    image = put(store, b"first")
    assert store.ensure("debian-min") == image


def test_a_changed_recipe_has_another_digest(tmp_path: Path) -> None:
    shutil.copytree(SHIPPED / "debian-min", tmp_path / "debian-min")
    before = recipe.load("debian-min", tmp_path).digest
    assert before == recipe.load("debian-min", SHIPPED).digest
    (tmp_path / "debian-min/files/etc/motd").write_text("hello")
    assert recipe.load("debian-min", tmp_path).digest != before


def test_an_absent_image_is_none_not_an_error(store: ImageStore) -> None:
    assert store.list() == []
    assert store.find("debian-min") is None
    put(store, b"first")
    for name in ("gentoo", "", ".", "..", "../images/debian-min", "/etc", ".building-test"):
        assert store.find(name) is None
        assert not store.remove(name)
    assert store.get("debian-min", "../../../etc") is None
    assert store.get("..", "etc") is None


def test_removing_one_build_or_all_of_a_name(store: ImageStore) -> None:
    old, new = put(store, b"first"), put(store, b"second")
    assert store.remove("debian-min", old.digest)
    assert not store.remove("debian-min", old.digest)
    assert not store.remove("debian-min", "..")
    assert store.find("debian-min") == new
    assert store.remove("debian-min")
    assert store.list() == []


def test_a_build_that_cannot_fit_is_refused_with_both_numbers(tmp_path: Path) -> None:
    huge = replace(recipe.load("debian-min", SHIPPED), needs_mib=1 << 40)
    with pytest.raises(Failure) as refused:
        build.require_space(huge, tmp_path)
    assert str(1 << 40) in refused.value.sentence
    assert "MiB free" in refused.value.sentence


def test_paths_with_blanks_reach_the_build_as_one_word(tmp_path: Path) -> None:
    folders = (tmp_path / "a b", tmp_path / "it's debs", tmp_path / "tools")
    made = build.command(recipe.load("ussyuntu", SHIPPED), "bookworm", *folders)
    assert any("'\"'\"'" in word for word in made)
    assert made[-3:] == ["bookworm", str(tmp_path / "a b"), "-"]


def test_a_folder_becomes_a_disk_that_can_grow_while_mounted(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    tree.mkdir()
    (tree / "hello").write_text("world\n")
    (tree / "hello").chmod(0o640)
    disk.make(tree, tmp_path / "disk.raw", 1 << 30)
    stat = (tmp_path / "disk.raw").stat()
    assert stat.st_size == 1 << 30
    assert stat.st_blocks * 512 < 64 << 20
    assert stat.st_mode & 0o777 == 0o644
    listed = disk.host_tool.run(["debugfs", "-R", "stat /hello", tmp_path / "disk.raw"], timeout=30)
    assert "Mode:  0640" in listed
    features = disk.host_tool.run(["debugfs", "-R", "features", tmp_path / "disk.raw"], timeout=30)
    assert {"has_journal", "resize_inode", "metadata_csum", "64bit"} <= set(features.split())


def test_the_digest_of_a_disk_sees_bytes_and_where_they_lie(tmp_path: Path) -> None:
    def sparse(at: int, content: bytes) -> str:
        path = tmp_path / f"{at}-{content[:1]!r}"
        with path.open("wb") as file:
            file.seek(at)
            file.write(content)
            file.truncate(1 << 30)
        return disk.digest(path)

    assert sparse(0, b"x" * 4096) != sparse(8192, b"x" * 4096) != sparse(8192, b"y" * 4096)
    assert sparse(1 << 20, b"same") == sparse(1 << 20, b"same")
