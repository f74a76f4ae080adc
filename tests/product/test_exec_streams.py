"""`ssh VM COMMAND` over `/exec`: output as it arrives, the exit code, and nothing left running behind."""
from __future__ import annotations

import asyncio
import base64
import json
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.product.signing import Signer
from tests.product.web_world import ALL, Answer, WebWorld, web_world
from ussycode.identity import ops as identity
from ussycode.runtime.drivers.fake import FakeDriver

FRAMES = "application/json, application/x-ndjson"


@pytest.fixture
async def place(guest_program: Path, tmp_path: Path) -> AsyncIterator[WebWorld]:
    async with web_world(tmp_path, guest_program) as made:
        await made.base.does(made.caller, "new --name demo")
        yield made


def outputs(got: Answer) -> tuple[bytes, bytes, object]:
    """stdout, stderr and the last line."""
    out, err, last = b"", b"", None
    for line in got.body.splitlines():
        frame = json.loads(line)
        assert len(frame) == 1 and last is None
        out += base64.b64decode(frame.get("stdout", ""))
        err += base64.b64decode(frame.get("stderr", ""))
        last = None if "stdout" in frame or "stderr" in frame else frame
    return out, err, last


async def test_frames_carry_both_outputs_and_the_exit_code(place: WebWorld) -> None:
    got = await place.exec("ssh demo 'echo out; echo err >&2; exit 7'", Accept=FRAMES)
    assert (got.status, got.headers["Content-Type"]) == (200, "application/x-ndjson")
    assert outputs(got) == (b"out\n", b"err\n", {"exit_code": 7})


async def test_megabytes_arrive_whole_in_frames_under_a_megabyte(place: WebWorld) -> None:
    got = await place.exec("ssh demo head -c 5000000 /dev/zero", Accept=FRAMES)
    out, _, last = outputs(got)
    assert (len(out), last) == (5_000_000, {"exit_code": 0})
    assert max(len(line) for line in got.body.splitlines()) < 1 << 20


async def test_a_short_command_has_its_code_in_a_header(place: WebWorld) -> None:
    got = await place.exec("ssh demo 'echo one; echo two >&2; exit 3'")
    assert sorted(got.body.split()) == [b"one", b"two"]
    assert (got.headers["X-Ussycode-Exit"], got.headers["X-Exe-Exit"]) == ("3", "3")


async def test_a_long_one_has_it_in_a_trailer(place: WebWorld) -> None:
    reader, writer = await asyncio.open_unix_connection(str(place.path))
    line = "ssh demo 'head -c 400000 /dev/zero; exit 5'"
    writer.write(
        f"POST /exec HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {place.alice.token(ALL)}\r\n"
        f"Connection: close\r\nContent-Length: {len(line)}\r\n\r\n{line}".encode()
    )
    got = await asyncio.wait_for(reader.read(), 20)
    writer.close()
    assert b"\r\ntrailer: x-ussycode-exit, x-exe-exit\r\n" in got
    assert got.endswith(b"\r\n0\r\nx-ussycode-exit: 5\r\nx-exe-exit: 5\r\n\r\n")
    assert got.count(b"\0") == 400_000


async def test_a_shell_needs_a_command(place: WebWorld) -> None:
    got = await place.exec("ssh demo", Accept="application/vnd.ussycode+json")
    assert (got.status, got.json["code"]) == (422, "exec.no_command")
    assert got.json["hint"] == "add a command: ssh demo uname -a"


async def test_closing_the_connection_ends_all_the_command_started(place: WebWorld) -> None:
    line = "ssh demo 'sleep 300 & setsid sleep 300 & echo $! $$; wait'"
    head = {"Authorization": f"Bearer {place.alice.token(ALL)}", "X-Forwarded-Host": "localhost", "Accept": FRAMES}
    got = await place.client.post("http://control/exec", data=line, headers=head)
    frame = json.loads(await asyncio.wait_for(got.content.readline(), 10))
    started = [int(pid) for pid in base64.b64decode(frame["stdout"]).split()]
    assert all(running(pid) for pid in started)
    got.close()
    async with asyncio.timeout(10):
        while any(running(pid) for pid in started):
            await asyncio.sleep(0.02)


def running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (ProcessLookupError, FileNotFoundError):
        return False


async def test_an_unknown_login_user_is_a_sentence(place: WebWorld) -> None:
    got = await place.exec("ssh nobody-here@demo true")
    assert (got.status, got.json) == (422, {"error": "the VM has no such login user"})


async def test_many_commands_at_once(place: WebWorld) -> None:
    token = place.alice.token(ALL)
    got = await asyncio.gather(*(place.exec(f"ssh demo echo {n}", token, Accept=FRAMES) for n in range(40)))
    assert [outputs(one)[0] for one in got] == [b"%d\n" % n for n in range(40)]


async def test_a_vm_that_cannot_be_reached_yet_says_so_in_words_that_clients_retry_on(tmp_path: Path) -> None:
    async with web_world(tmp_path) as place:
        await place.base.does(place.caller, "new --name demo")
        got = await place.exec("ssh demo true", Accept=FRAMES)
        assert got.status == 422
        assert got.json["error"].startswith('failed to connect to VM "demo":')


async def test_a_stopped_vm_says_that(tmp_path: Path) -> None:
    driver = FakeDriver()
    async with web_world(tmp_path, driver=driver) as place:
        await place.base.does(place.caller, "new --name demo")
        driver.power_off(next(iter(driver.vms)))
        async with asyncio.timeout(5):
            while (await place.exec("ls")).json["vms"][0]["status"] == "running":
                pass
        got = await place.exec("ssh demo true", Accept=FRAMES)
        assert got.status == 422
        assert got.json["error"].startswith('VM "demo" is not running')


async def test_a_token_for_one_vm_opens_only_that_one(place: WebWorld) -> None:
    await place.base.does(place.caller, "new --name other")
    token = place.alice.token('{"cmds":["ssh demo"]}')
    assert (await place.exec("ssh demo true", token)).status == 200
    assert (await place.exec("ssh other true", token)).status == 403
    assert (await place.exec("whoami", token)).status == 403


async def test_a_command_ends_with_what_allowed_it(place: WebWorld) -> None:
    """A token revoked, a share taken back: whoever lost the VM is out of it within two seconds."""
    folder = place.path.parent / "bob"
    folder.mkdir()
    bob = Signer.make(folder)
    await identity.register(place.app, bob.public, "bob", "bob")
    for line, token in (
        ("share remove demo bob", bob.token('{"cmds":["ssh"]}')),
        ("share remove demo bob --root", bob.token('{"cmds":["ssh"],"ctx":1}')),
        ("TOKEN", place.alice.token('{"cmds":["ssh"],"ctx":2}')),
    ):
        await place.base.does(place.caller, "share add demo bob --root")
        reader, writer = await asyncio.open_unix_connection(str(place.path))
        command = b"ssh demo 'echo up; sleep 100'"
        head = (
            f"POST /exec HTTP/1.1\r\nHost: localhost\r\nX-Forwarded-Host: localhost:8443\r\nAccept: {FRAMES}\r\n"
            f"Authorization: Bearer {token}\r\nContent-Length: {len(command)}\r\n\r\n"
        )
        writer.write(head.encode() + command)
        await reader.readuntil(b"stdout")
        await place.base.does(place.caller, f"ssh-key revoke-token {token}" if line == "TOKEN" else line)
        async with asyncio.timeout(2):
            rest = await reader.readuntil(b"may no longer be in this VM")
        assert b'{"error":"this command was ended: ' in rest
        writer.close()
