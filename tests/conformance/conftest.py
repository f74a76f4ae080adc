"""What the tests of the package share: a control plane without machines, and a platform with them."""
from __future__ import annotations

import json
import os
import ssl
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.conformance.driven import Driven, Loop, client
from tests.live.conftest import boot, debian_min, image_store, live_data  # noqa: F401 - fixtures
from tests.live.rig import Platform, platform
from tests.live.test_main_loop import token
from tests.name_server import NameServer
from tests.product.web_world import WebWorld, web_world
from ussycode.access.facts import Role
from ussycode.catalog import COMMANDS
from ussycode.identity import store as people
from ussycode.runtime.drivers.fake import FakeDriver
from ussycode.runtime.guest.build import build
from ussycode.runtime.images.store import Image
from ussycode.runtime.kernel import BootFiles

BASE = "http://control"
"""The edge takes TLS off; here the package speaks to what is behind it."""
FLAVOURS = ("sync", "async")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "covers(*names): public methods of the package that the test makes work")


@dataclass
class Desk:
    """A control plane with fake machines, and clients for it."""

    loop: Loop
    world: WebWorld
    flavour: str
    driver: FakeDriver
    seen: set[str] = field(default_factory=set)
    _stack: ExitStack = field(default_factory=ExitStack)

    def client(self, commands: list[str] | None = None, token: str = "", **options: Any) -> Driven:
        """A client whose token may run `commands`, all of them when omitted; closed with the desk."""
        bearer = token or self.world.alice.token(json.dumps({"cmds": commands or [c.name for c in COMMANDS]}))
        head = {"X-Forwarded-Host": "localhost:8443", "X-Forwarded-Proto": "https"}
        kind = httpx.HTTPTransport if self.flavour == "sync" else httpx.AsyncHTTPTransport
        http = {"transport": kind(uds=str(self.world.path)), "headers": head}
        made = client(self.flavour, self.loop, self.seen, bearer, BASE, http, **options)
        return self._stack.enter_context(made)

    def close(self) -> None:
        self._stack.close()


@pytest.fixture(scope="session")
def guest_program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The guest program, compiled once."""
    return build(tmp_path_factory.mktemp("guest"))


@pytest.fixture(scope="session")
def loop() -> Iterator[Loop]:
    made = Loop()
    yield made
    made.close()


@pytest.fixture(params=FLAVOURS)
def desk(
    request: pytest.FixtureRequest, loop: Loop, guest_program: Path, tmp_path: Path, names: NameServer,
) -> Iterator[Desk]:
    """A control plane whose VMs are one guest program on this machine; Alice may have as many as she likes."""
    driver = FakeDriver()
    # A command in a VM that is not reached is given up at once: nothing here takes time to start.
    entered = web_world(tmp_path, guest_program, driver=driver, seconds=5.0, dns_resolver=names.setting)
    world = loop.run(entered.__aenter__())
    made = Desk(loop, world, request.param, driver)
    try:
        loop.run(_promote(world))
        yield made
        require_covered(request.node, made.seen)
    finally:
        made.close()
        loop.run(entered.__aexit__(None, None, None))


async def _promote(world: WebWorld) -> None:
    user = world.caller.user
    await world.app.db.write(lambda tx: people.update_user(tx, user, role=Role.OPERATOR.value))


@pytest.fixture
def exe(desk: Desk) -> Driven:
    """Alice's client of either flavour."""
    return desk.client()


def require_covered(node: pytest.Item, seen: set[str]) -> None:
    """Fail unless everything that a test says it covers has answered in it."""
    missing = {name for marker in node.iter_markers("covers") for name in marker.args} - seen
    assert not missing, f"said to be covered, but never answered: {sorted(missing)}"


@pytest.fixture(scope="session")
def hosted(
    live_data: Path, boot: BootFiles, debian_min: Image, tmp_path_factory: pytest.TempPathFactory,  # noqa: F811
) -> Iterator[Platform]:
    """The real platform with real machines, as an operator starts it."""
    home = tmp_path_factory.mktemp("home")
    data = live_data / f"conformance-{os.getpid()}"
    with platform(data, home, live_data, "--default-image", "debian-min") as made:
        yield made


@dataclass
class Cloud:
    """The real platform as a stranger's program sees it: an address, a root certificate and a token."""

    platform: Platform
    flavour: str
    bearer: str
    loop: Loop
    seen: set[str] = field(default_factory=set)

    def client(self, **options: Any) -> AbstractContextManager[Driven]:
        """A client of the platform's admin."""
        http = {"verify": ssl.create_default_context(cafile=str(self.platform.home / "root.pem"))}
        base = self.platform.url("localhost", "")
        return client(self.flavour, self.loop, self.seen, self.bearer, base, http, **options)


@pytest.fixture(scope="session")
def bearer(hosted: Platform) -> str:
    """A token for everything, signed with ssh-keygen."""
    assert hosted.lobby("whoami").status == 0  # the first login makes the account
    return token(hosted, "admin", json.dumps({"exp": int(time.time()) + 3600, "cmds": [c.name for c in COMMANDS]}))


@pytest.fixture(params=FLAVOURS)
def cloud(request: pytest.FixtureRequest, hosted: Platform, bearer: str, loop: Loop) -> Iterator[Cloud]:
    """The platform for a client of either flavour."""
    made = Cloud(hosted, request.param, bearer, loop)
    yield made
    require_covered(request.node, made.seen)


@pytest.fixture
def far(cloud: Cloud) -> Iterator[Driven]:
    """The admin's client of either flavour."""
    with cloud.client() as made:
        yield made


@pytest.fixture(scope="session")
def machine(hosted: Platform, bearer: str, loop: Loop) -> Iterator[str]:
    """The name of a VM that tests of commands share."""
    env = {"COLOUR": "light blue", "POEM": "one\ntwo 'three'"}
    with Cloud(hosted, "sync", bearer, loop).client() as exe, exe.new(name="shared", env=env) as vm:
        yield vm.name


@pytest.fixture
def vm(far: Driven, machine: str) -> Driven:
    """The shared VM, through a client of either flavour."""
    return far.vm(machine)
