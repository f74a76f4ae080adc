"""What live tests boot: made once, kept between runs in LIVE_TEST_DATA (a folder under /var/tmp otherwise)."""
from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.live.rig import Platform, platform
from tests.name_server import NameServer
from tests.pebble import Pebble, pebble
from ussycode.runtime.images.store import Image, ImageStore
from ussycode.runtime.kernel import BootFiles, boot_files


def data_folder() -> Path:
    """The folder where kernel, initrd, images and downloaded packages are kept; made when missing."""
    folder = Path(os.environ.get("LIVE_TEST_DATA", f"/var/tmp/ussycode-live-{os.getuid()}"))
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@pytest.fixture(scope="session")
def live_data() -> Path:
    return data_folder()


@pytest.fixture(scope="session")
def boot(live_data: Path) -> BootFiles:
    return boot_files(live_data / "cache")


@pytest.fixture(scope="session")
def image_store(live_data: Path) -> ImageStore:
    return ImageStore(live_data / "images")


@pytest.fixture(scope="session")
def debian_min(image_store: ImageStore) -> Image:
    return image_store.ensure("debian-min")


@pytest.fixture(scope="session")
def ussyuntu(image_store: ImageStore) -> Image:
    return image_store.ensure("ussyuntu")


@pytest.fixture(scope="session")
def acme(live_data: Path, names: NameServer) -> Iterator[Pebble]:
    """A certificate authority, with its root where the platform's own users can read it."""
    folder = live_data / f"pebble-{os.getpid()}"
    folder.mkdir()
    try:
        with pebble(folder, f"127.0.0.1:{names.port}") as made:
            yield made
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def lived(
    live_data: Path, boot: BootFiles, debian_min: Image, tmp_path_factory: pytest.TempPathFactory, names: NameServer,
    acme: Pebble,
) -> Iterator[Platform]:
    """One platform on the minimal image for the whole run."""
    home = tmp_path_factory.mktemp("home")
    data = live_data / f"platform-{os.getpid()}"
    with platform(data, home, live_data, "--default-image", "debian-min", "--containers", "true",
                  "--dns-resolver", names.setting, "--dns-port", str(names.local_zone_port),
                  "--acme-directory", acme.directory, "--acme-root", str(acme.root)) as made:
        yield made
