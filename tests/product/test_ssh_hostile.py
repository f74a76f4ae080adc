"""Clients that do what OpenSSH never does, and people who change their mind."""
from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import asyncssh
import pytest

from tests.product.ssh_world import Person, SshWorld, ssh_world
from ussycode.doors.ssh import limits
from ussycode.doors.ssh.connection import Connection
from ussycode.runtime.drivers.fake import SlowDriver


async def connect(place: SshWorld, who: Person, user: str) -> asyncssh.SSHClientConnection:
    key = asyncssh.read_private_key(who.home / "key")
    return await asyncssh.connect(
        "127.0.0.1", place.port, username=user, client_keys=[key], known_hosts=None, config=None, agent_path=None,
    )


async def until(check: Callable[[], object], seconds: float = 10) -> None:
    async with asyncio.timeout(seconds):
        while not check():
            await asyncio.sleep(0.02)


def only(place: SshWorld) -> Connection:
    (one,) = place.door._house.connections
    return one


async def test_a_client_with_a_huge_window_that_stops_reading_does_not_fill_memory(place: SshWorld) -> None:
    olive = await place.member("olive")
    await place.vm(olive, "demo")
    await until(lambda: not place.door._house.connections)
    conn = await connect(place, olive, "demo")
    await conn.create_session(asyncssh.SSHClientSession, "cat /dev/zero", window=1 << 30, encoding=None)
    client: Any = conn
    client._transport.pause_reading()
    server: Any = only(place)
    await until(lambda: not server.room._free.is_set())
    await asyncio.sleep(0.5)  # time enough for a gigabyte, were there no bound
    held = server.conn._transport.get_write_buffer_size() + sum(c._send_buf_len for c in server.conn._channels.values())
    assert held < 2 << 20
    conn.abort()
    await until(lambda: not place.door._house.connections)


async def test_a_client_cannot_send_more_than_a_slow_command_takes(place: SshWorld) -> None:
    olive = await place.member("olive")
    await place.vm(olive, "demo")
    await until(lambda: not place.door._house.connections)
    conn = await connect(place, olive, "demo")
    chan, _ = await conn.create_session(asyncssh.SSHClientSession, "sleep 100", encoding=None)
    chan.write(b"x" * (16 << 20))
    await asyncio.sleep(0.5)
    server: Any = only(place)
    (session,) = server._ends
    held = session._held + sum(len(d) for d, _ in session.raw._recv_buf)
    assert held <= 2 * limits.WINDOW + (512 << 10)
    conn.abort()


async def test_other_channels_live_on_when_one_fails(place: SshWorld) -> None:
    olive = await place.member("olive")
    await place.vm(olive, "demo")
    conn = await connect(place, olive, "demo")
    first, _ = await conn.create_session(asyncssh.SSHClientSession, "cat", encoding=None)
    with pytest.raises(asyncssh.ChannelOpenError):
        await conn.open_connection("localhost", 1)
    with pytest.raises(asyncssh.ChannelOpenError):
        await conn.open_unix_connection("/nonexistent\0x")
    for subsystem in ("netconf", "x" * 5000):
        failed = await conn.create_process(subsystem=subsystem)
        assert (await failed.wait()).exit_status == 2
    assert not first.is_closing()
    assert (await conn.run("echo still here")).stdout == "still here\n"
    conn.close()
    await conn.wait_closed()


async def test_channels_of_one_connection_are_bounded(place: SshWorld) -> None:
    olive = await place.member("olive")
    conn = await connect(place, olive, "lobby")
    for _ in range(limits.MAX_CHANNELS):
        await conn.create_session(asyncssh.SSHClientSession, None, encoding=None)
    with pytest.raises(asyncssh.ChannelOpenError):
        await conn.create_session(asyncssh.SSHClientSession, None, encoding=None)
    conn.close()
    await conn.wait_closed()


async def test_connections_that_never_sign_in_leave_room_for_others_once_they_go(place: SshWorld) -> None:
    olive = await place.member("olive")
    idle = [await asyncio.open_connection("127.0.0.1", place.port) for _ in range(limits.MAX_UNPROVEN)]
    await until(lambda: len(place.door._house.connections) == limits.MAX_UNPROVEN)
    refused = await olive.ssh("host", "whoami")
    assert refused.status == 255 and "too many connections" in refused.said
    for _, writer in idle:
        writer.close()
    await until(lambda: not place.door._house.connections)
    assert (await olive.ssh("host", "whoami")).status == 0


async def test_somebody_who_shows_anothers_key_without_its_proof_stays_themselves(place: SshWorld) -> None:
    olive, mallory = await place.member("olive"), await place.member("mallory")
    public = olive.home / "key.pub"
    # A public key alone is offered first; the signature that follows is by the other key.
    options = [*mallory.options, "-i", str(public), "-i", str(mallory.home / "key")]
    done = await mallory.run("ssh", *options, "host", "whoami", env={"SSH_AUTH_SOCK": ""})
    assert done.text.startswith("mallory")


async def test_passwords_and_other_ways_in_are_not_offered(place: SshWorld) -> None:
    olive = await place.member("olive")
    done = await olive.ssh("-v", "-o", "PubkeyAuthentication=no", "-o", "PreferredAuthentications=password,publickey",
                           "-o", "LogLevel=DEBUG1", "host", "whoami")
    assert done.status == 255 and "Permission denied (publickey)" in done.said


async def test_user_text_never_steers_the_terminal(place: SshWorld) -> None:
    olive = await place.member("olive")
    evil = "\x1b]0;owned\x07\x1b[2Jx"
    for line in (f"frob{evil}", f"rm '{evil}'", f"ls {evil}", f"new --name {evil}", f"ssh-key add ssh-ed25519 {evil}"):
        async with olive.terminal("-t", "host", line) as tty:
            assert await tty.ended() != 0
            assert "\x1b]" not in tty.all and "\x1b[2J" not in tty.all, line


async def test_ctrl_c_takes_back_what_new_and_cp_began_and_says_what_else_goes_on(
    guest_program: Path, tmp_path: Path
) -> None:
    driver = SlowDriver()
    async with ssh_world(guest_program, tmp_path, driver) as place:
        olive = await place.member("olive")
        making = asyncio.create_task(olive.ssh("host", "new --name kept"))
        await until(lambda: driver.waiting)
        driver.let_boot(next(iter(driver.waiting)))
        assert (await making).status == 0
        async with olive.terminal("host") as tty:
            await tty.until("▶ ")
            for line, shown in (("new --name demo", "booting demo"), ("cp kept demo", "copying to demo")):
                tty.type(f"{line}\r")
                await tty.until(shown)
                tty.type("\x03")
                await tty.until("stopped; demo is removed again")
                await tty.until("▶ ")
            tty.type("restart kept\r")
            await tty.until("restarting kept")
            tty.type("\x03")
            await tty.until("restart goes on without you")
            await tty.until("▶ ")
            tty.type("ls\r")
            assert "demo" not in await tty.until("kept +starting.*")
        async with olive.terminal("-t", "host", "new", "--name", "demo") as tty:
            await tty.until("booting demo")
            tty.type("\x03")
            await tty.until("stopped; demo is removed again")
            assert await tty.ended() == 130
        assert "demo" not in (await olive.ssh("host", "ls")).text


@pytest.mark.parametrize("terminal", [False, True])
async def test_a_vm_that_is_still_starting_is_waited_for(
    guest_program: Path, tmp_path: Path, terminal: bool
) -> None:
    driver = SlowDriver()
    async with ssh_world(guest_program, tmp_path, driver) as place:
        olive = await place.member("olive")
        making = asyncio.create_task(olive.ssh("host", "new --name demo"))
        await until(lambda: driver.waiting)
        if not terminal:
            going = asyncio.create_task(olive.ssh("demo@host", "echo inside"))
            await until(lambda: any(c.username == "demo" for c in place.door._house.connections))
            driver.let_boot(next(iter(driver.waiting)))
            assert (await going).out == b"inside\n"
        else:
            async with olive.terminal("-t", "demo@host", "echo inside") as tty:
                await tty.until("ssh demo 1 s")
                driver.let_boot(next(iter(driver.waiting)))
                await tty.until("\x1b\\[Kinside")
                assert await tty.ended() == 0
        assert (await making).status == 0


async def test_what_is_typed_while_a_command_runs_is_run_after_it(place: SshWorld) -> None:
    olive = await place.member("olive")
    async with olive.terminal("host") as tty:
        await tty.until("▶ ")
        tty.type("whoami\rls\rexit\r")
        await tty.until(r"olive\S* \(newbie\)")
        await tty.until("no VMs yet")
        assert await tty.ended() == 0
