"""The host may come and go in the middle of a word; the guest may lie, flood or fall silent."""
from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import os
import random
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from host_agent import IDENTITY, HostAgent, start_agent

from ussycode.base.clock import ManualClock
from ussycode.base.errors import Failure
from ussycode.runtime.guest import errors, host_keys, protocol
from ussycode.runtime.guest.channel import ControlChannel, Hello
from ussycode.runtime.guest.protocol import Kind

NAME = "ussycode.sock"


async def until(condition: object, seconds: float = 5) -> None:
    async with asyncio.timeout(seconds):
        while not condition():  # type: ignore[operator]
            await asyncio.sleep(0.005)


async def test_configure_makes_the_guest_the_vm_it_is_told_to_be(agent: HostAgent) -> None:
    etc, run = agent.root / "etc", agent.root / "run/ussycode"
    assert (etc / "hostname").read_text() == "demo\n"
    assert (etc / "hosts").read_text().splitlines()[-1] == "127.0.1.1 demo # ussycode"
    assert (etc / "machine-id").read_text() == "ab" * 16 + "\n"
    assert "nameserver 10.0.0.53\n" in (etc / "resolv.conf").read_text()
    assert (run / "authorized_keys").read_text() == "ssh-ed25519 AAAA alice@laptop\n"
    assert (run / "environment").read_text() == "GREETING=hello 'you' \"100%\"\nEMPTY=\n"


async def test_the_environment_survives_a_real_shell(agent: HostAgent) -> None:
    script = f'. {agent.root}/run/ussycode/env; printf "%s|%s|%s" "$GREETING" "$LINES2" "${{EMPTY-unset}}"'
    said = subprocess.run(["sh", "-c", script], capture_output=True, text=True, check=True).stdout
    assert said == "hello 'you' \"100%\"|one\ntwo|"


async def test_systemd_reads_the_environment_as_it_was_meant(agent: HostAgent) -> None:
    lines = (agent.root / "run/systemd/system.conf.d/50-ussycode.conf").read_text().splitlines()
    assert lines[0] == "[Manager]"
    assert lines[1] == r'''DefaultEnvironment="GREETING=hello 'you' \"100%%\""'''
    assert lines[2] == r'DefaultEnvironment="LINES2=one\ntwo"'


async def test_configure_may_be_repeated_and_a_rename_replaces_the_old_name(agent: HostAgent) -> None:
    await agent.channel.configure(dataclasses.replace(IDENTITY, hostname="renamed"))
    await agent.channel.configure(dataclasses.replace(IDENTITY, hostname="renamed"))
    hosts = (agent.root / "etc/hosts").read_text()
    assert hosts.count("renamed") == 1 and "demo" not in hosts


async def test_what_a_person_wrote_is_left_alone(guest_program: Path, tmp_path: Path) -> None:
    running = await start_agent(guest_program, tmp_path / "root")
    etc = running.root / "etc"
    (etc / "resolv.conf").write_text("nameserver 9.9.9.9\n")
    (etc / "machine-id").write_text("cd" * 16 + "\n")
    (etc / "hosts").write_text("10.1.1.1 printer\n")
    await running.channel.ready(5)
    await running.channel.configure(IDENTITY)
    assert (etc / "resolv.conf").read_text() == "nameserver 9.9.9.9\n"
    assert (etc / "machine-id").read_text() == "cd" * 16 + "\n"
    assert (etc / "hosts").read_text() == "10.1.1.1 printer\n127.0.1.1 demo # ussycode\n"
    await running.stop()


@pytest.mark.parametrize("links_to", ["../run/nowhere/resolv.conf", ""])
async def test_a_dangling_or_empty_resolver_is_replaced(guest_program: Path, tmp_path: Path, links_to: str) -> None:
    running = await start_agent(guest_program, tmp_path / "root")
    resolver = running.root / "etc/resolv.conf"
    resolver.symlink_to(links_to) if links_to else resolver.write_text("")
    await running.channel.ready(5)
    await running.channel.configure(IDENTITY)
    assert "nameserver 169.254.1.1" in resolver.read_text() and not resolver.is_symlink()
    await running.stop()


async def test_host_keys_are_private_and_stay_in_their_folder(agent: HostAgent) -> None:
    keys = (("ssh_host_ed25519_key", "private\n"), ("ssh_host_ed25519_key.pub", "public\n"))
    await agent.channel.configure(dataclasses.replace(IDENTITY, host_keys=keys))
    assert (agent.root / "etc/ssh/ssh_host_ed25519_key").stat().st_mode & 0o777 == 0o600
    assert (agent.root / "etc/ssh/ssh_host_ed25519_key.pub").read_text() == "public\n"
    with pytest.raises(Failure):
        await agent.channel.configure(dataclasses.replace(IDENTITY, host_keys=(("ssh_host_/../../x", "y"),)))
    assert not (agent.root / "x").exists()


async def test_a_disk_that_was_another_machines_forgets_which(guest_program: Path, tmp_path: Path) -> None:
    """Two machines with one host key could be taken for each other; a pipe laid in the way stops nobody."""
    running = await start_agent(guest_program, tmp_path / "root")
    etc, bus = running.root / "etc", running.root / "var/lib/dbus"
    bus.mkdir(parents=True)
    for place in (etc / "machine-id", bus / "machine-id"):
        place.write_text("cd" * 16 + "\n")
    for name in ("ssh_host_rsa_key", "ssh_host_ed25519_key", "ssh_host_ed25519_key.pub", "sshd_config"):
        (etc / "ssh" / name).write_text("another's")
    os.mkfifo(etc / "machine-id.ussy~")
    await running.channel.ready(5)
    keys = host_keys.fresh()
    for identity in (dataclasses.replace(IDENTITY, anew=True, host_keys=keys), IDENTITY):
        await running.channel.configure(identity)
        assert (etc / "machine-id").read_text() == "ab" * 16 + "\n" and not (bus / "machine-id").exists()
        assert sorted(p.name for p in (etc / "ssh").iterdir()) == [
            "ssh_host_ed25519_key", "ssh_host_ed25519_key.pub", "sshd_config"]
        read = ["ssh-keygen", "-y", "-f", etc / "ssh/ssh_host_ed25519_key"]
        public = subprocess.run(read, capture_output=True, text=True, check=True).stdout
        assert public == (etc / "ssh/ssh_host_ed25519_key.pub").read_text() == keys[1][1]
    assert host_keys.fresh() != keys
    await running.stop()


async def test_an_image_without_host_keys_gets_none(agent: HostAgent) -> None:
    await agent.channel.configure(dataclasses.replace(IDENTITY, anew=True, host_keys=host_keys.fresh()))
    assert list((agent.root / "etc/ssh").iterdir()) == []


@pytest.mark.parametrize("change", [
    {"secret": "short"}, {"hostname": "a b"}, {"hostname": "x" * 64}, {"hostname": "-x"}, {"machine_id": "xyz"},
    {"login_user": "u" * 64}, {"env": (("BAD-NAME", "1"),)}, {"env": (("", "1"),)},
])
async def test_a_malformed_identity_is_refused_whole(agent: HostAgent, change: dict[str, object]) -> None:
    with pytest.raises(Failure) as refused:
        await agent.channel.configure(dataclasses.replace(IDENTITY, **change))  # type: ignore[arg-type]
    assert refused.value.error is errors.BAD_REQUEST
    assert (agent.root / "etc/hostname").read_text() == "demo\n"


async def test_keys_are_replaced_live(agent: HostAgent) -> None:
    await agent.channel.set_authorized_keys(["ssh-ed25519 BBBB bob", "ssh-rsa CCCC\nssh-rsa INJECTED"])
    assert (agent.root / "run/ussycode/authorized_keys").read_text() == "ssh-ed25519 BBBB bob\n"


async def test_stats_and_ports_are_numbers(agent: HostAgent) -> None:
    server = await asyncio.start_server(lambda r, w: w.close(), "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    stats = await agent.channel.stats()
    assert stats.memory_total > stats.memory_available > 0
    assert stats.disk_total > 0 and stats.uptime > 0
    assert (port, "127.0.0.1") in [(p.port, p.address) for p in await agent.channel.ports()]
    server.close()


async def test_an_unknown_request_is_an_error_and_not_the_end(agent: HostAgent) -> None:
    with pytest.raises(Failure) as refused:
        await agent.channel.request("sing")
    assert refused.value.error is errors.BAD_REQUEST
    await agent.channel.ping()


async def test_a_host_that_left_in_the_middle_of_a_frame_is_understood_when_it_returns(agent: HostAgent) -> None:
    await agent.channel.close()
    whole = protocol.encode_frame(Kind.REQUEST, (("verb", "authorized_keys"), ("authorized_key", "k" * 90)))
    for cut in range(1, len(whole), 7):
        reader, writer = await asyncio.open_unix_connection(str(agent.chardev.path))
        writer.write(protocol.SYNC + b"0" * 16 + whole[:cut])
        await writer.drain()
        await reader.readexactly(30)
        writer.close()
    again = ControlChannel(agent.chardev.path, ManualClock())
    again.start()
    assert (await again.ready(5)).configured
    await again.ping()
    assert "kkk" not in (agent.root / "run/ussycode/authorized_keys").read_text()
    await again.close()


async def test_noise_on_the_control_port_never_ends_the_agent(agent: HostAgent) -> None:
    await agent.channel.close()
    rng = random.Random(7)
    for _ in range(30):
        _, writer = await asyncio.open_unix_connection(str(agent.chardev.path))
        body = rng.randbytes(rng.randrange(400)) if rng.random() < 0.5 else bytes(rng.choices(b"\0averbid=", k=200))
        head = rng.choice([b"", protocol.SYNC, protocol.SYNC + b"a" * 16])
        writer.write(head + rng.choice([b"", len(body).to_bytes(4, "big") + b"\x01"]) + body)
        await writer.drain()
        writer.close()
    again = ControlChannel(agent.chardev.path, ManualClock())
    again.start()
    await again.ready(5)
    await again.ping()
    await again.close()


@contextlib.asynccontextmanager
async def guest_that(says: object, path: Path) -> AsyncIterator[ControlChannel]:
    server = await asyncio.start_unix_server(says, str(path))  # type: ignore[arg-type]
    channel = ControlChannel(path, ManualClock())
    channel.start()
    yield channel
    await channel.close()
    server.close()


def hello(version: int = 1) -> bytes:
    fields = (("version", str(version)), ("build", "x"), ("uptime_ms", "5"), ("configured", "0"))
    return protocol.encode_frame(Kind.HELLO, fields)


async def test_a_guest_that_floods_is_hung_up_on(tmp_path: Path) -> None:
    ended = asyncio.Event()

    async def flood(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(await reader.readexactly(32) + hello())
        with contextlib.suppress(ConnectionError):
            while True:
                writer.write(protocol.encode_frame(Kind.OK, (("id", "no"),)) * 100)
                await writer.drain()
        ended.set()

    async with guest_that(flood, tmp_path / NAME):
        await asyncio.wait_for(ended.wait(), 5)


async def test_a_silent_guest_costs_one_timeout(tmp_path: Path) -> None:
    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(await reader.readexactly(32) + hello())
        await reader.read()
        writer.close()

    async with guest_that(silent, tmp_path / NAME) as channel:
        await channel.ready(5)
        with pytest.raises(Failure) as slow:
            await channel.ping(timeout=0.02)
        assert slow.value.error is errors.TIMEOUT


async def test_a_guest_that_hangs_up_ends_the_request_and_is_called_again(tmp_path: Path) -> None:
    seen: list[Hello] = []

    async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(await reader.readexactly(32) + hello())
        await reader.read(10)
        writer.close()

    async with guest_that(hang_up, tmp_path / NAME) as channel:
        channel.on_hello = seen.append
        await channel.ready(5)
        with pytest.raises(Failure) as gone:
            await channel.ping(timeout=5)
        assert gone.value.error is errors.GONE
        await until(lambda: len(seen) == 2)


async def test_a_guest_of_another_version_is_not_talked_to(tmp_path: Path) -> None:
    async def old(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(await reader.readexactly(32) + hello(version=99))
        await reader.read()
        writer.close()

    async with guest_that(old, tmp_path / NAME) as channel:
        with pytest.raises(Failure) as slow:
            await channel.ready(0.1)
        assert slow.value.error is errors.TIMEOUT
        with pytest.raises(Failure):
            await channel.ping()


async def test_lies_in_stats_are_refused(tmp_path: Path) -> None:
    async def liar(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(await reader.readexactly(32) + hello())
        for number in range(1, 3):
            await reader.read(4096)
            fields = (("id", str(number)), ("load", "nan inf 1e9"), ("memory_total", "9" * 400), ("port", "70000 x"))
            writer.write(protocol.encode_frame(Kind.OK, fields))
        await reader.read()
        writer.close()

    async with guest_that(liar, tmp_path / NAME) as channel:
        await channel.ready(5)
        with pytest.raises(Failure) as refused:
            await channel.stats()
        assert refused.value.error is errors.PROTOCOL
        assert await channel.ports() == []


async def test_an_image_that_is_not_made_for_it_never_starts_without_an_identity(agent: HostAgent) -> None:
    with pytest.raises(Failure):
        await agent.channel.settle()
    with pytest.raises(Failure, match="not asked"):
        await agent.channel.settled()
    await agent.channel.configure(IDENTITY)


async def test_a_request_of_any_length_is_answered(agent: HostAgent) -> None:
    for size in range(200, 530):
        await agent.channel.request("ping", (("filler", "x" * size),), timeout=5)
