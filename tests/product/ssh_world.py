"""A platform with its SSH door on loopback, real OpenSSH clients, and the real guest program in place of VMs."""
from __future__ import annotations

import asyncio
import dataclasses
import fcntl
import os
import re
import socket
import struct
import termios
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import asyncssh

from tests.unit.runtime.guest.host_agent import HostAgent, start_configured
from tests.world import World, world
from ussycode.agent.link import LocalLink
from ussycode.app import NamedImages
from ussycode.doors.ssh.door import SshDoor
from ussycode.doors.ssh.hostkey import public_line
from ussycode.identity import ops as identity
from ussycode.identity.keys import PublicKey, read_public_key
from ussycode.ports import App
from ussycode.runtime.drivers.fake import FakeDriver
from ussycode.runtime.export import Export, Form, empty
from ussycode.runtime.guest.streams import GuestAddress

SECONDS = 20.0
"""Longest wait for anything a client does."""


@dataclass(frozen=True)
class RootImages(NamedImages):
    """Images whose login user exists on the machine that runs the tests."""

    def login_user(self, image: str) -> str:
        return "root"


@dataclass(frozen=True)
class OneGuest:
    """Every VM is the same guest program on this machine."""

    agent: HostAgent

    def guest_address(self, vm: str) -> GuestAddress:
        return self.agent.addr

    def console(self, vm: str) -> str:
        return ""

    async def sample(self, vm: str) -> None:
        return None

    async def listening(self, vm: str) -> None:
        return None

    async def export(self, vm: str, form: Form) -> Export:
        return empty(5)


@dataclass(frozen=True)
class Done:
    """How a client ended."""

    status: int
    out: bytes
    err: bytes

    @property
    def text(self) -> str:
        return self.out.decode()

    @property
    def said(self) -> str:
        return self.err.decode()


@dataclass
class Person:
    """Somebody with a key and an SSH configuration of their own."""

    place: SshWorld
    name: str
    home: Path
    key: PublicKey

    @property
    def options(self) -> list[str]:
        return ["-F", str(self.home / "config")]

    async def ssh(self, *words: str, stdin: bytes | None = None) -> Done:
        """`ssh WORDS…` without a terminal."""
        return await self.run("ssh", *self.options, *words, stdin=stdin)

    async def run(self, *argv: str, stdin: bytes | None = None, env: dict[str, str] | None = None) -> Done:
        """Any program, to its end."""
        process = await asyncio.create_subprocess_exec(
            *argv, stdin=asyncio.subprocess.DEVNULL if stdin is None else asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE, env={**os.environ, **(env or {})},
        )
        try:
            out, err = await asyncio.wait_for(process.communicate(stdin), SECONDS)
        finally:
            if process.returncode is None:
                process.kill()
        assert process.returncode is not None
        return Done(process.returncode, out, err)

    def terminal(
        self, *words: str, term: str = "xterm", size: tuple[int, int] = (24, 80)
    ) -> AbstractAsyncContextManager[Tty]:
        """`ssh WORDS…` on a terminal of its own, `size` in rows and columns."""
        return self.sitting_at("ssh", *self.options, *words, size=size, env={"TERM": term})

    def shell_env(self) -> dict[str, str]:
        """An environment in which `ssh` is this person's, whatever program calls it."""
        (self.home / "ssh").write_text(f'#!/bin/sh\nexec /usr/bin/ssh -F {self.home}/config "$@"\n')
        (self.home / "ssh").chmod(0o755)
        path = f"{self.home}:{os.environ['PATH']}"
        return {"PATH": path, "HOME": str(self.home), "TERM": "xterm", "LC_ALL": "C.UTF-8"}

    @asynccontextmanager
    async def sitting_at(
        self, *argv: str, env: dict[str, str], size: tuple[int, int] = (24, 80)
    ) -> AsyncIterator[Tty]:
        """Any program on a terminal of its own."""
        ours, theirs = os.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("4H", *size, 0, 0))
        process = await asyncio.create_subprocess_exec(
            *argv, stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0), env={**os.environ, **env},
        )
        os.close(theirs)
        tty = Tty(ours, process)
        os.set_blocking(ours, False)
        asyncio.get_running_loop().add_reader(ours, tty.readable)
        try:
            yield tty
        finally:
            asyncio.get_running_loop().remove_reader(ours)
            os.close(ours)
            if process.returncode is None:
                process.kill()
            await process.wait()


@dataclass
class Tty:
    """What a person types and sees."""

    fd: int
    process: asyncio.subprocess.Process
    seen: str = ""
    all: str = ""
    _news: asyncio.Event = field(default_factory=asyncio.Event)

    def readable(self) -> None:
        try:
            data = os.read(self.fd, 65536).decode(errors="replace")
        except BlockingIOError:
            return
        except OSError:
            data = ""
        if not data:
            asyncio.get_running_loop().remove_reader(self.fd)
        self.seen += data
        self.all += data
        self._news.set()

    def type(self, text: str) -> None:
        os.write(self.fd, text.encode())

    def resize(self, rows: int, cols: int) -> None:
        fcntl.ioctl(self.fd, termios.TIOCSWINSZ, struct.pack("4H", rows, cols, 0, 0))

    async def until(self, pattern: str) -> str:
        """What was shown up to a match of `pattern`; fails with what was shown instead."""
        try:
            async with asyncio.timeout(SECONDS):
                while (found := re.search(pattern, self.seen)) is None:
                    self._news.clear()
                    await self._news.wait()
        except TimeoutError:
            raise AssertionError(f"{pattern!r} did not appear in {self.seen!r}") from None
        shown, self.seen = self.seen[: found.end()], self.seen[found.end() :]
        return shown

    async def ended(self) -> int:
        """Exit status of the client."""
        try:
            return await asyncio.wait_for(self.process.wait(), SECONDS)
        except TimeoutError:
            raise AssertionError(f"still running; it showed {self.seen!r}") from None


@dataclass
class SshWorld:
    """The door, its platform and the people around it."""

    base: World
    app: App
    door: SshDoor
    agent: HostAgent
    port: int
    home: Path
    people: dict[str, Person] = field(default_factory=dict)

    async def stranger(self, name: str, kind: str = "ssh-ed25519") -> Person:
        """Somebody whose key nobody knows."""
        home = self.home / name
        home.mkdir()
        private = asyncssh.generate_private_key(kind)
        private.write_private_key(home / "key")
        (home / "key").chmod(0o600)
        (home / "key.pub").write_bytes(private.export_public_key())
        (home / "config").write_text(
            f"Host *\n  HostName 127.0.0.1\n  Port {self.port}\n  IdentityFile {home}/key\n  IdentitiesOnly yes\n"
            f"  UserKnownHostsFile {home}/known\n  StrictHostKeyChecking accept-new\n  LogLevel ERROR\n"
            f"  User {name}\n  PreferredAuthentications publickey\n"
        )
        key = read_public_key(private.export_public_key().decode())
        made = self.people[name] = Person(self, name, home, key)
        return made

    async def member(self, name: str) -> Person:
        """Somebody with an account."""
        person = await self.stranger(name)
        await identity.register(self.app, person.key, name, name)
        return person

    async def vm(self, owner: Person, name: str) -> None:
        """A running VM of theirs."""
        done = await owner.ssh("lobby@host", "new", "--name", name)
        assert done.status == 0, done


@asynccontextmanager
async def ssh_world(
    program: Path, home: Path, driver: FakeDriver | None = None, **options: str
) -> AsyncIterator[SshWorld]:
    """A platform whose VMs are the guest `program`; `options` are settings as text."""
    agent = await start_configured(program, home / "guest")
    listening = socket.create_server(("127.0.0.1", 0))
    port = listening.getsockname()[1]
    try:
        async with world(driver, ssh_port=str(port), **options) as base:
            link = LocalLink(OneGuest(agent))
            key = asyncssh.generate_private_key("ssh-ed25519")
            images = RootImages((base.app.config.default_image,))
            app = dataclasses.replace(base.app, link=link, images=images, host_key=public_line(key))
            door = SshDoor(app, [key])
            base.app.db.listen(door.heard)
            serving = asyncio.create_task(door.serve([listening]))
            try:
                yield SshWorld(base, app, door, agent, port, home)
            finally:
                await door.close()
                serving.cancel()
                await asyncio.wait({serving})
    finally:
        await agent.stop()
