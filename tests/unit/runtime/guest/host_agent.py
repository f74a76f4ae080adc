"""A guest agent on this machine: the real program, writing only below a folder of the test."""
from __future__ import annotations

import asyncio
import os
import socket
from dataclasses import dataclass, field
from pathlib import Path

from ussycode.base.clock import ManualClock
from ussycode.runtime.guest.channel import ControlChannel
from ussycode.runtime.guest.identity import Identity
from ussycode.runtime.guest.streams import GuestAddress

SECRET = "5e" * 32
IDENTITY = Identity(
    hostname="demo", address="10.7.0.2", secret=SECRET, machine_id="ab" * 16, login_user="root",
    env=(("GREETING", "hello 'you' \"100%\""), ("LINES2", "one\ntwo"), ("EMPTY", "")),
    authorized_keys=("ssh-ed25519 AAAA alice@laptop",), dns=("169.254.1.1", "10.0.0.53"), grow=False,
)


@dataclass
class Chardev:
    """What QEMU puts between a unix socket and the virtio port: one client at a time, bytes kept for nobody."""

    path: Path
    agent: socket.socket
    server: asyncio.Server | None = None
    client: asyncio.StreamWriter | None = None
    tasks: set[asyncio.Task[None]] = field(default_factory=set)

    async def start(self) -> None:
        self.server = await asyncio.start_unix_server(self._serve, str(self.path))
        self.reader, self.writer = await asyncio.open_connection(sock=self.agent)
        task = asyncio.create_task(self._from_agent())
        self.tasks.add(task)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.client = writer
        while data := await reader.read(65536):
            self.writer.write(data)
            await self.writer.drain()
        writer.close()

    async def _from_agent(self) -> None:
        while data := await self.reader.read(65536):
            if self.client is not None and not self.client.is_closing():
                self.client.write(data)

    async def stop(self) -> None:
        for task in self.tasks:
            task.cancel()
        if self.server is not None:
            self.server.close()
        if self.client is not None:
            self.client.transport.abort()
        self.writer.transport.abort()


@dataclass
class HostAgent:
    """A running agent, its control channel and the address of its streams."""

    root: Path
    addr: GuestAddress
    channel: ControlChannel
    chardev: Chardev
    process: asyncio.subprocess.Process

    async def stop(self) -> None:
        await self.channel.close()
        await self.chardev.stop()
        self.process.kill()
        await self.process.wait()


async def start_agent(program: Path, root: Path) -> HostAgent:
    """An agent that waits for its identity."""
    for folder in ("etc/profile.d", "etc/ssh"):
        (root / folder).mkdir(parents=True)
    ours, theirs = socket.socketpair()
    process = await asyncio.create_subprocess_exec(
        str(program), "--serve", str(root), str(theirs.fileno()), pass_fds=(theirs.fileno(),),
        stdout=asyncio.subprocess.PIPE, env={"PATH": os.environ["PATH"]},
    )
    theirs.close()
    assert process.stdout is not None
    port = int(await process.stdout.readline())
    chardev = Chardev(root / "agent.sock", ours)
    await chardev.start()
    channel = ControlChannel(chardev.path, ManualClock())
    channel.start()
    return HostAgent(root, GuestAddress("127.0.0.1", SECRET, port), channel, chardev, process)


async def start_configured(program: Path, root: Path) -> HostAgent:
    """An agent that knows who it is."""
    agent = await start_agent(program, root)
    await agent.channel.ready(5)
    await agent.channel.configure(IDENTITY)
    return agent
