"""A whole control plane in memory with named people. Real dispatch, SQL and reconciler; fake VMs."""
from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from tests.schemas import check
from ussycode import config as settings
from ussycode.access.facts import Caller, Role
from ussycode.agent.link import LocalLink
from ussycode.agent.loop import Reconciler
from ussycode.app import NamedImages
from ussycode.base import schema
from ussycode.base.clock import ManualClock
from ussycode.base.db import Database
from ussycode.base.telemetry import Telemetry
from ussycode.cmdline.help import HelpPage
from ussycode.cmdline.lex import split
from ussycode.dispatch import Call, Outcome, run
from ussycode.identity import ops as identity
from ussycode.identity import store
from ussycode.identity.keys import PublicKey
from ussycode.ports import App, Uses, Waiters
from ussycode.runtime.drivers.fake import FakeDriver
from ussycode.vms import ops as vms

HOST_KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIHo5J3xVx8v3kqVb3rZk3x1yq2mJt0m3s5h6n8v6mJtK"


@dataclass
class World:
    """The app and who lives in it."""

    app: App
    driver: FakeDriver
    clock: ManualClock
    loop: Reconciler

    async def person(self, handle: str, role: Role = Role.NEWBIE) -> Caller:
        """Somebody with an account and one key."""
        key = PublicKey(f"ssh-ed25519 {handle}", f"SHA256:{handle}", handle)
        user = await identity.register(self.app, key, handle, handle)
        if role is not Role.NEWBIE:
            await self.app.db.write(lambda tx: store.update_user(tx, user.id, role=role.value))
        found = await identity.recognise(self.app, key.fingerprint)
        assert found is not None
        return found[0]

    async def run(self, caller: Caller, line: str, json: bool = True) -> Outcome:
        """Run a command line as somebody. What is answered has to fit the schema of the command."""
        outcome = await run(self.app, Call(caller, split(line), "test", json))
        if outcome.view is not None:
            check("help" if isinstance(outcome.view, HelpPage) else outcome.command, outcome.view.document())
        return outcome

    async def does(self, caller: Caller, line: str) -> dict[str, object]:
        """The document of a command that must succeed."""
        outcome = await self.run(caller, line)
        assert outcome.failure is None, (outcome.failure, outcome.failure and outcome.failure.detail)
        assert outcome.view is not None
        document = outcome.view.document()
        assert isinstance(document, dict)
        return document

    async def fails(self, caller: Caller, line: str) -> tuple[str, int]:
        """Error code and exit status of a command that must fail."""
        outcome = await self.run(caller, line)
        assert outcome.failure is not None, outcome.view
        return outcome.failure.code, outcome.exit_code


@asynccontextmanager
async def world(driver: FakeDriver | None = None, **options: str) -> AsyncIterator[World]:
    """A running world; `options` are settings as text."""
    clock = ManualClock()
    config = settings.load({"data_dir": "/nonexistent", "runtime": "fake", **options}, {})
    db = Database(None, clock)
    schema.migrate(db.engine)
    made = driver or FakeDriver()
    loop = Reconciler(made, lambda: vms.wants(app), lambda seen: vms.observe(app, seen), clock)
    images = NamedImages((config.default_image, "debian-min"))
    link, quiet = LocalLink(made), Telemetry("test")
    app = App(config, db, clock, link, images, Waiters(), quiet, loop.nudge, Uses(clock), HOST_KEY)
    db.listen(app.waiters.heard)
    made.on_change(loop.nudge)
    task = asyncio.create_task(loop.run())
    try:
        yield World(app, made, clock, loop)
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        db.close()

