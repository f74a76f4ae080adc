"""Inside a VM through the door: every route, streams, files, agents and forwards."""
from __future__ import annotations

import asyncio
import hashlib
import os
from pathlib import Path

import pytest

from tests.product.ssh_world import SshWorld

ROUTES = [("demo@host",), ("vm+demo@host",), ("root@demo@host",), ("host", "ssh", "demo"), ("host", "ssh", "root@demo")]


@pytest.mark.parametrize("route", ROUTES)
async def test_every_route_runs_commands_with_their_real_status(place: SshWorld, route: tuple[str, ...]) -> None:
    olive = await place.member("olive")
    await place.vm(olive, "demo")
    done = await olive.ssh(*route, "echo out; echo err >&2; exit 3")
    assert (done.status, done.text, done.said) == (3, "out\n", "err\n")
    done = await olive.ssh(*route, "cat", stdin=b"\x00piped\xff")
    assert done.out == b"\x00piped\xff" and done.status == 0


async def test_a_signal_that_ends_a_command_is_passed_on(place: SshWorld) -> None:
    olive = await place.member("olive")
    await place.vm(olive, "demo")
    assert (await olive.ssh("demo@host", "kill -TERM $$")).status == 255


async def test_fifty_megabytes_of_stdin_arrive_byte_for_byte(place: SshWorld) -> None:
    olive = await place.member("olive")
    await place.vm(olive, "demo")
    data = os.urandom(1 << 20) * 50
    done = await olive.ssh("demo@host", "sha256sum", stdin=data)
    assert done.text.split()[0] == hashlib.sha256(data).hexdigest()
    done = await olive.ssh("demo@host", "head -c 50000000 /dev/zero")
    assert len(done.out) == 50_000_000


async def test_a_shell_on_a_terminal_with_its_size_keys_and_status(place: SshWorld) -> None:
    olive = await place.member("olive")
    await place.vm(olive, "demo")
    async with olive.terminal("-t", "demo@host", "PS1='now> ' exec bash --norc -i", size=(30, 100)) as tty:
        await tty.until("now> ")
        tty.type("stty size; echo $TERM\r")
        await tty.until(r"30 100\s+xterm")
        await tty.until("now> ")
        tty.resize(40, 120)
        await tty.until(r"\x1b\[K\s*now> ")  # readline draws its line again once it knows
        tty.type("stty size\r")
        await tty.until("40 120")
        await tty.until("now> ")
        tty.type("echo rea''dy; cat\r")
        await tty.until(r"ready\s")
        tty.type("mew\r")
        await tty.until(r"mew\s+mew")
        tty.type("\x03")
        await tty.until(r"\^C[\s\S]*now> ")
        tty.type("exit 5\r")
        assert await tty.ended() == 5


async def test_a_shell_from_the_prompt_comes_back_to_the_prompt(place: SshWorld) -> None:
    olive = await place.member("olive")
    await place.vm(olive, "demo")
    async with olive.terminal("host") as tty:
        await tty.until("▶ ")
        tty.type("ssh demo stty size\r")
        await tty.until("24 80")
        await tty.until("▶ ")
        tty.type("ssh demo \"PS1='now> ' exec bash --norc -i\"\r")
        await tty.until("now> ")
        tty.type("echo in-$((40+2))\t\r")
        await tty.until("in-42")
        tty.type("exit\r")
        await tty.until("▶ ")
        tty.type("whoami\r")
        await tty.until(r"olive\S* \(newbie\)")


async def test_variables_of_the_client_arrive_within_bounds(place: SshWorld) -> None:
    olive = await place.member("olive")
    await place.vm(olive, "demo")
    options = ("-o", "SetEnv LC_ALL=C.UTF-8 COLOUR=blue SSH_AUTH_SOCK=/evil")
    done = await olive.ssh(*options, "demo@host", "echo $LC_ALL $COLOUR $SSH_AUTH_SOCK")
    assert done.text == "C.UTF-8 blue\n"


async def test_a_client_that_leaves_ends_its_command(place: SshWorld, tmp_path: Path) -> None:
    olive = await place.member("olive")
    await place.vm(olive, "demo")
    mark = tmp_path / "ended"
    process = await asyncio.create_subprocess_exec(
        "ssh", *olive.options, "demo@host",
        f"trap 'touch {mark}; exit' HUP; echo up; exec >/dev/null 2>&1; while :; do sleep 0.1; done",
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None and await process.stdout.readline() == b"up\n"
    process.kill()
    await process.wait()
    async with asyncio.timeout(10):
        while not mark.exists():
            await asyncio.sleep(0.05)


async def test_files_travel_by_scp_sftp_and_rsync(place: SshWorld, tmp_path: Path) -> None:
    olive = await place.member("olive")
    await place.vm(olive, "demo")
    there, back = tmp_path / "there", tmp_path / "back"
    source = tmp_path / "source"
    source.write_bytes(os.urandom(3 << 20))
    for tool in (["scp", *olive.options], ["scp", "-O", *olive.options]):
        assert (await olive.run(*tool, str(source), f"demo@host:{there}")).status == 0
        assert (await olive.run(*tool, f"demo@host:{there}", str(back))).status == 0
        assert back.read_bytes() == source.read_bytes()
        there.unlink()
    shell = " ".join(["ssh", *olive.options])
    done = await olive.run("rsync", "-a", "-e", shell, str(source), f"demo@host:{there}")
    assert done.status == 0 and there.read_bytes() == source.read_bytes(), done
    batch = f"mkdir {tmp_path}/d\nrename {there} {tmp_path}/d/x\nls {tmp_path}/d\n".encode()
    done = await olive.run("sftp", *olive.options, "-b", "-", "demo@host", stdin=batch)
    assert done.status == 0 and "d/x" in done.text


async def test_the_clients_key_agent_answers_inside(place: SshWorld, tmp_path: Path) -> None:
    olive = await place.member("olive")
    await place.vm(olive, "demo")
    sock = str(tmp_path / "agent")
    agent = await asyncio.create_subprocess_exec("ssh-agent", "-D", "-a", sock, stdout=asyncio.subprocess.DEVNULL)
    try:
        async with asyncio.timeout(10):
            while not Path(sock).exists():
                await asyncio.sleep(0.02)
        env = {"SSH_AUTH_SOCK": sock}
        assert (await olive.run("ssh-add", str(olive.home / "key"), env=env)).status == 0
        for route in (("demo@host",), ("host", "ssh", "demo")):
            done = await olive.run("ssh", *olive.options, "-A", *route, "ssh-add -l; echo $SSH_AUTH_SOCK", env=env)
            assert olive.key.fingerprint in done.text, done
            assert "/tmp/ussy-" in done.text
        done = await olive.run("ssh", *olive.options, "demo@host", "echo .$SSH_AUTH_SOCK.", env=env)
        assert done.text == "..\n"
    finally:
        agent.kill()
        await agent.wait()


async def _echo() -> tuple[asyncio.Server, int]:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"echo:" + await reader.read())
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    return server, server.sockets[0].getsockname()[1]


def _free_port() -> int:
    import socket

    with socket.create_server(("127.0.0.1", 0)) as one:
        return int(one.getsockname()[1])


async def _say(port: int, said: bytes) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(said)
    writer.write_eof()
    answer = await asyncio.wait_for(reader.read(), 10)
    writer.close()
    return answer


async def test_standard_input_reaches_a_port_in_the_vm(place: SshWorld) -> None:
    olive = await place.member("olive")
    await place.vm(olive, "demo")
    server, port = await _echo()
    for name in ("localhost", "127.0.0.1", "demo", "demo.localhost"):
        done = await olive.ssh("-W", f"{name}:{port}", "demo@host", stdin=b"hi")
        assert done.out == b"echo:hi", (name, done)
    server.close()
    refused = await olive.ssh("-oLogLevel=INFO", "-W", f"localhost:{_free_port()}", "demo@host", stdin=b"")
    assert refused.status != 0 and "nothing listens there" in refused.said


@pytest.mark.parametrize("way", ["L", "R", "D"])
async def test_ports_are_forwarded_both_ways(place: SshWorld, way: str) -> None:
    olive = await place.member("olive")
    await place.vm(olive, "demo")
    server, port = await _echo()
    here = _free_port()
    option = {"L": f"-L{here}:localhost:{port}", "R": f"-R{here}:localhost:{port}", "D": f"-D{here}"}[way]
    client = await asyncio.create_subprocess_exec(
        "ssh", *olive.options, "-o", "ExitOnForwardFailure=yes", option, "demo@host", "echo up; cat",
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
    )
    try:
        assert client.stdout is not None and await client.stdout.readline() == b"up\n"
        # SOCKS 5: no password, then CONNECT to localhost and the port.
        socks = b"\x05\x01\x00\x05\x01\x00\x03\x09localhost" + port.to_bytes(2, "big") if way == "D" else b""
        answer = await _say(here, socks + b"x" * 300_000)
        assert answer.endswith(b"echo:" + b"x" * 300_000)
    finally:
        client.kill()
        await client.wait()
        server.close()


async def test_unix_sockets_are_forwarded_both_ways(place: SshWorld, tmp_path: Path) -> None:
    olive = await place.member("olive")
    await place.vm(olive, "demo")

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"echo:" + await reader.read())
        writer.close()

    server = await asyncio.start_unix_server(answer, str(tmp_path / "served"))
    for option in ("-L", "-R"):
        here = tmp_path / f"here{option}"
        client = await asyncio.create_subprocess_exec(
            "ssh", *olive.options, "-o", "ExitOnForwardFailure=yes", option, f"{here}:{tmp_path}/served",
            "demo@host", "echo up; cat", stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
        )
        try:
            assert client.stdout is not None and await client.stdout.readline() == b"up\n"
            reader, writer = await asyncio.open_unix_connection(str(here))
            writer.write(b"hi")
            writer.write_eof()
            assert await asyncio.wait_for(reader.read(), 10) == b"echo:hi"
            writer.close()
        finally:
            client.kill()
            await client.wait()
    server.close()


async def test_the_lobby_dials_nothing_but_the_sshd_of_a_vm(place: SshWorld) -> None:
    olive = await place.member("olive")
    await place.vm(olive, "demo")
    server, port = await _echo()
    for target in (f"127.0.0.1:{port}", f"localhost:{port}", f"demo:{port}", "nothere:22", "127.0.0.1:22"):
        done = await olive.ssh("-W", target, "host", stdin=b"hi")
        assert done.status != 0 and not done.out, target
    refused = await olive.ssh("-oLogLevel=INFO", "-W", "nothere:22", "host", stdin=b"")
    assert "no VM named nothere" in refused.said
    server.close()
    done = await olive.ssh("-o", "ExitOnForwardFailure=yes", f"-R{_free_port()}:localhost:1", "host", "whoami")
    assert done.status == 255 and not done.out


@pytest.mark.parametrize("route", [
    ("{}@host", "id"), ("vm+{}@host", "id"), ("host", "ssh", "{}", "id"), ("-s", "{}@host", "sftp"),
    ("-W", "{}:22", "host"), ("-W", "localhost:22", "{}@host"),
    ("-N", "-oExitOnForwardFailure=yes", "-R0:a:1", "{}@host"),
])
async def test_somebody_elses_vm_and_a_missing_one_are_refused_alike(place: SshWorld, route: tuple[str, ...]) -> None:
    olive, mallory = await place.member("olive"), await place.member("mallory")
    await place.vm(olive, "demo")
    assert (await mallory.ssh("host", "whoami")).status == 0
    seen = []
    for name in ("demo", "nope"):
        done = await mallory.ssh("-oLogLevel=INFO", *(word.format(name) for word in route), stdin=b"")
        assert done.status != 0 and not done.out
        seen.append((done.status, done.said.replace(name, "NAME")))
    assert seen[0] == seen[1]


async def test_a_vm_shaped_name_without_a_vm_runs_nothing_in_the_lobby(place: SshWorld) -> None:
    olive = await place.member("olive")
    for user in ("nothere", "vm+nothere", "vm+root", "vm+.."):
        done = await olive.ssh(f"{user}@host", "whoami")
        assert (done.status, done.text) == (1, "")
        assert done.said.startswith(f"error: no VM named {user.removeprefix('vm+')}")
    for user in ("root", "ubuntu", "olive", "ussy"):
        assert (await olive.ssh(f"{user}@host", "whoami")).text.startswith("olive"), user


async def test_removing_a_vm_ends_the_sessions_inside(place: SshWorld) -> None:
    olive = await place.member("olive")
    await place.vm(olive, "demo")
    async with olive.terminal("-t", "demo@host", "echo up; cat") as tty:
        await tty.until("up")
        assert (await olive.ssh("host", "rm demo")).status == 0
        await tty.until("this session was ended: the VM was removed")
        assert await tty.ended() == 1


async def test_a_removed_key_bites_on_the_next_command_and_ends_its_sessions(place: SshWorld) -> None:
    olive, thief = await place.member("olive"), await place.stranger("thief")
    await place.vm(olive, "demo")
    assert (await olive.ssh("host", "ssh-key add", thief.key.line)).status == 0
    async with thief.terminal("olive@host") as lobby, thief.terminal("-t", "demo@host", "echo up; cat") as shell:
        await lobby.until("▶ ")
        await shell.until("up")
        assert (await olive.ssh("host", "ssh-key remove", thief.key.fingerprint)).status == 0
        await shell.until("its key was removed")
        lobby.type("ls\r")
        await lobby.until("no longer registered")
        assert await lobby.ended() != 0
