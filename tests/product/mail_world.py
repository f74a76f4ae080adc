"""A platform with its SMTP door on loopback, and guests whose login user has a home of their own.

VMs are fake. Each guest is the real guest program, in a mount namespace where its user exists.
"""
from __future__ import annotations

import asyncio
import dataclasses
import os
import signal
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.product.ssh_world import OneGuest
from tests.unit.runtime.guest.host_agent import HostAgent, start_configured
from tests.world import World, world
from ussycode.access.facts import Caller
from ussycode.agent.link import LocalLink
from ussycode.app import NamedImages
from ussycode.base.clock import SystemClock
from ussycode.base.pki import Authority
from ussycode.doors.smtp.door import SmtpDoor
from ussycode.doors.smtp.limits import Patience
from ussycode.doors.smtp.tls import MintedCertificate
from ussycode.ports import App
from ussycode.runtime.guest.streams import GuestAddress
from ussycode.vms import store as vms

SECONDS = 20.0
"""Longest wait for a reply."""
UID = 4242
SOMEBODY = f"root:x:0:0::/:/bin/sh\nsomebody:x:{UID}:{UID}::/mnt:/bin/sh\n"
NAMESPACE = (
    "#!/bin/sh\nexec unshare --mount --propagation private sh -c '"
    'mount --bind {home} /mnt && mount --bind {passwd} /etc/passwd && exec "$@"\' sh {program} "$@"\n'
)


@dataclass(frozen=True)
class Images(NamedImages):
    """Images whose login user is `somebody`."""

    def login_user(self, image: str) -> str:
        return "somebody"


@dataclass(frozen=True)
class Guests(OneGuest):
    """A guest for each VM that was given one; the others cannot be reached."""

    agents: dict[str, HostAgent] = field(default_factory=dict)

    def guest_address(self, vm: str) -> GuestAddress | None:  # type: ignore[override]
        found = self.agents.get(vm)
        return found.addr if found is not None else None


@dataclass
class MailWorld:
    """The door, its platform and its guests."""

    base: World
    app: App
    door: SmtpDoor
    port: int
    tls: ssl.SSLContext
    program: Path
    folder: Path
    guests: Guests
    owner: Caller
    boots: int = 0

    async def vm(self, name: str, on: bool = True, owner: Caller | None = None) -> Path:
        """A VM with a guest; the folder that is its user's home."""
        await self.base.does(owner or self.owner, f"new --name {name}")
        if on:
            await self.base.does(owner or self.owner, f"share receive-email {name} on")
        return await self.boot(name)

    async def boot(self, name: str) -> Path:
        """Start the guest of a VM; its home stays the one it had."""
        found = await self.app.db.read(lambda tx: vms.by_name(tx, name))
        assert found is not None
        self.boots += 1
        folder = self.folder / f"{name}-{self.boots}"
        home, passwd, start = self.folder / f"home-{name}", folder.with_suffix(".passwd"), folder.with_suffix(".sh")
        if not home.exists():
            home.mkdir()
            os.chown(home, UID, UID)
        passwd.write_text(SOMEBODY)
        start.write_text(NAMESPACE.format(home=home, passwd=passwd, program=self.program))
        start.chmod(0o755)
        self.guests.agents[found.id] = await start_configured(start, folder)
        return home

    async def halt(self, name: str) -> None:
        """Its guest is gone without a word; the platform does not know yet."""
        found = await self.app.db.read(lambda tx: vms.by_name(tx, name))
        assert found is not None
        agent = self.guests.agents.pop(found.id)
        agent.process.send_signal(signal.SIGSTOP)  # it accepts nothing more
        for child in Path(f"/proc/{agent.process.pid}/task/{agent.process.pid}/children").read_text().split():
            os.kill(int(child), signal.SIGKILL)
        await agent.stop()

    async def connect(self) -> Smtp:
        """A connection that has been greeted."""
        made = Smtp(*await asyncio.open_connection("127.0.0.1", self.port))
        await made.reply()
        return made

    async def send(
        self, to: str | tuple[str, ...], content: bytes = b"hello\r\n", sender: str = "a@example.org",
    ) -> str:
        """The code of the last reply to one mail on a connection of its own; of the first one that is no 2xx or 3xx."""
        client = await self.connect()
        try:
            return await client.mail((to,) if isinstance(to, str) else to, content, sender)
        finally:
            client.close()


class Smtp:
    """A client that says exactly what it is told to."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    async def say(self, *lines: str) -> str:
        """Send lines at once; the reply to the last one."""
        self.writer.write("".join(f"{line}\r\n" for line in lines).encode())
        found = ""
        for _ in lines:
            found = await self.reply()
        return found

    async def reply(self) -> str:
        """The next reply, all its lines; empty when the connection is over."""
        lines = []
        async with asyncio.timeout(SECONDS):
            while True:
                line = (await self.reader.readline()).decode().rstrip("\r\n")
                lines.append(line)
                if line[3:4] != "-":
                    return "\n".join(lines)

    async def mail(self, to: tuple[str, ...], content: bytes, sender: str = "a@example.org") -> str:
        """The code of the last reply to one mail, or of the first one that is no 2xx or 3xx."""
        for line in ("EHLO client.example", f"MAIL FROM:<{sender}>", *(f"RCPT TO:<{one}>" for one in to), "DATA"):
            found = await self.say(line)
            if found[:1] not in "23":
                return found[:3]
        self.writer.write(content + b".\r\n")
        return (await self.reply())[:3]

    def close(self) -> None:
        """Leave."""
        self.writer.close()


def new(home: Path) -> list[bytes]:
    """Unread mails in a home, in no particular order."""
    folder = home / "Maildir" / "new"
    return [file.read_bytes() for file in folder.iterdir()] if folder.exists() else []


@asynccontextmanager
async def mail_world(
    program: Path, folder: Path, patience: Patience | None = None, announced: bool = True, **options: str,
) -> AsyncIterator[MailWorld]:
    """A platform that takes mail, and knows that it does when `announced`; `options` are settings as text."""
    listening = socket.create_server(("127.0.0.1", 0))
    listening.setblocking(False)
    port = listening.getsockname()[1]
    async with world(mail_port=str(port if announced else 0), default_image="debian-min", **options) as base:
        guests = Guests(None)  # type: ignore[arg-type]
        app = dataclasses.replace(base.app, link=LocalLink(guests), images=Images(("debian-min",)))
        clock = SystemClock()
        authority = Authority.make(clock)
        certificate = MintedCertificate(authority.intermediate("localhost"), "localhost", clock)
        tls = ssl.create_default_context(cadata=authority.root_pem.decode())
        door = SmtpDoor(app, certificate, patience)
        serving = asyncio.create_task(door.serve([listening]))
        made = MailWorld(base, app, door, port, tls, program, folder, guests, await base.person("olive"))
        try:
            yield made
        finally:
            serving.cancel()
            await asyncio.gather(serving, return_exceptions=True)
            for agent in guests.agents.values():
                await agent.stop()
