"""OpenSSH's own sftp and scp are content with the agent's SFTP; noise is not."""
from __future__ import annotations

import asyncio
import os
import random
import struct
import sys
from pathlib import Path

from host_agent import HostAgent

from ussycode.runtime.guest.streams import open_sftp

RELAY = Path(__file__).with_name("sftp_relay.py")


async def program(agent: HostAgent, *argv: str, stdin: str = "") -> str:
    env = {**os.environ, "GUEST_STREAM": f"{agent.addr.host} {agent.addr.port} {agent.addr.secret}"}
    process = await asyncio.create_subprocess_exec(
        *argv, env=env, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT)
    out, _ = await asyncio.wait_for(process.communicate(stdin.encode()), 20)
    assert process.returncode == 0, out.decode()
    return out.decode()


async def sftp(agent: HostAgent, *commands: str) -> str:
    return await program(agent, "sftp", "-b", "-", "-D", f"{sys.executable} {RELAY}", stdin="\n".join(commands) + "\n")


async def test_a_file_goes_up_and_comes_back(agent: HostAgent, tmp_path: Path) -> None:
    (tmp_path / "up").write_bytes(os.urandom(5_000_000))
    (tmp_path / "up").chmod(0o640)
    await sftp(agent, f"put -p {tmp_path}/up {tmp_path}/there", f"get -p {tmp_path}/there {tmp_path}/back")
    assert (tmp_path / "back").read_bytes() == (tmp_path / "up").read_bytes()
    assert (tmp_path / "there").stat().st_mode & 0o777 == 0o640
    assert int((tmp_path / "there").stat().st_mtime) == int((tmp_path / "up").stat().st_mtime)


async def test_folders_links_renames_and_space(agent: HostAgent, tmp_path: Path) -> None:
    said = await sftp(
        agent, f"cd {tmp_path}", "mkdir box", "cd box", "pwd", f"put {__file__} a.py", "chmod 600 a.py",
        "ln -s a.py link", "ln a.py hard", "rename a.py b.py", "rename b.py hard2",
        "ls -la", "df", "rm link", "mkdir sub", "rmdir sub")
    assert f"Remote working directory: {tmp_path}/box" in said
    assert "-rw-------" in said and "lrwxrwxrwx" in said
    assert sorted(p.name for p in (tmp_path / "box").iterdir()) == ["hard", "hard2"]


async def test_a_folder_of_many_files_is_listed_whole(agent: HostAgent, tmp_path: Path) -> None:
    (tmp_path / "many").mkdir()
    for number in range(450):
        (tmp_path / "many" / f"file-{number}").touch()
    said = await sftp(agent, f"ls -1 {tmp_path}/many")
    assert len([line for line in said.splitlines() if "file-" in line]) == 450


async def test_a_missing_file_is_said_to_be_missing(agent: HostAgent, tmp_path: Path) -> None:
    said = await sftp(agent, f"-get {tmp_path}/nothing", "pwd")
    assert "not found" in said or "No such file" in said


async def test_scp_copies_trees_both_ways(agent: HostAgent, tmp_path: Path) -> None:
    (tmp_path / "tree/deep").mkdir(parents=True)
    (tmp_path / "tree/deep/f").write_text("x" * 100_000)
    relay = tmp_path / "relay"
    relay.write_text(f"#!/bin/sh\nexec {sys.executable} {RELAY}\n")
    relay.chmod(0o755)
    await program(agent, "scp", "-s", "-q", "-r", "-S", str(relay), f"{tmp_path}/tree", f"vm:{tmp_path}/there")
    await program(agent, "scp", "-s", "-q", "-r", "-S", str(relay), f"vm:{tmp_path}/there", f"{tmp_path}/back")
    assert (tmp_path / "back/deep/f").read_text() == "x" * 100_000


async def test_a_home_relative_path_is_expanded(agent: HostAgent, tmp_path: Path) -> None:
    stream = await open_sftp(agent.addr)
    name = b"expand-path@openssh.com"
    body = struct.pack(">BI", 200, 9) + struct.pack(">I", len(name)) + name + struct.pack(">I", 5) + b"~/new"
    stream.writer.write(struct.pack(">I", len(body)) + body)
    head = await stream.reader.readexactly(4)
    reply = await stream.reader.readexactly(struct.unpack(">I", head)[0])
    assert reply[:5] == struct.pack(">BI", 104, 9)
    assert str(Path.home() / "new").encode() in reply
    await stream.close()


async def test_noise_ends_no_agent_and_every_short_request_is_answered(agent: HostAgent) -> None:
    rng = random.Random(3)
    for kind in [*range(1, 22), 200, 255]:
        stream = await open_sftp(agent.addr)
        for _ in range(20):
            # no path of two or more bytes can come out of this: requests reach nothing that exists
            body = bytes([kind]) + rng.randbytes(4) + bytes(rng.choices(b"\0\0\0\1\2\xff", k=rng.randrange(24)))
            stream.writer.write(struct.pack(">I", len(body)) + body)
        stream.writer.write_eof()
        data = await asyncio.wait_for(stream.reader.read(-1), 5)
        count = 0
        while data:
            data = data[4 + int.from_bytes(data[:4], "big") :]
            count += 1
        assert count == 20
        await stream.close()
    stream = await open_sftp(agent.addr)
    stream.writer.write(b"\xff\xff\xff\xff")
    assert await asyncio.wait_for(stream.reader.read(-1), 5) == b""
    await stream.close()
