"""A file becomes a VM over SSH and over HTTPS; who sends nothing, or leaves in the middle, gets a sentence."""
from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.product.ssh_world import ssh_world
from tests.product.web_world import HOME, WebWorld, web_world
from tests.schemas import check

DISK = b"disk" * 500_000


@pytest.fixture
async def place(guest_program: Path, tmp_path: Path) -> AsyncIterator[WebWorld]:
    async with web_world(tmp_path, guest_program) as made:
        yield made


async def put(place: WebWorld, path: str, data: bytes, scope: str = '{"cmds":["import","ls"]}') -> tuple[int, object]:
    bearer = {"Authorization": f"Bearer {place.alice.token(scope)}"}
    got = await place.ask("PUT", HOME + path, data=data, headers=bearer)
    return got.status, got.json


async def test_https_takes_a_file_and_the_options_of_the_command(place: WebWorld) -> None:
    status, made = await put(place, "/import/moved?memory=1G&tag=old&wake", DISK)
    assert status == 200, made
    assert isinstance(made, dict)
    check("import", made)
    assert (made["vm_name"], made["tags"], made["image"]) == ("moved", ["old"], "localhost/moved")
    listed = (await place.exec("ls")).json
    assert [vm["vm_name"] for vm in listed["vms"]] == ["moved"]


async def test_https_refuses_as_exec_does(place: WebWorld) -> None:
    for path, status in (("?size=9", 422), ("?disk=900G", 422), ("%20x", 422)):
        got = await put(place, f"/import/moved{path}", DISK)
        assert got[0] == status, (path, got)
    assert (await put(place, "/import/moved", DISK, '{"cmds":["ls"]}'))[0] == 403
    assert (await place.ask("PUT", HOME + "/import/moved", data=DISK)).status == 401
    assert (await place.ask("POST", HOME + "/import/moved", data=DISK)).status == 405
    assert (await place.exec("import moved")).json["error"].startswith("import reads a file")


async def test_ssh_takes_a_file_and_makes_more_vms_of_it(guest_program: Path, tmp_path: Path) -> None:
    async with ssh_world(guest_program, tmp_path) as world:
        olive = await world.member("olive")
        got = await olive.ssh("host", "import", "moved", "--memory", "1G", stdin=DISK)
        assert got.status == 0, got.said
        assert "moved is up" in got.text and "new --image localhost/moved" in got.text
        async with olive.terminal("-t", "host", "import", "other") as tty:
            await tty.until("import reads a file, and none came")
            assert await tty.ended() == 2


async def test_a_sender_that_leaves_makes_no_vm(guest_program: Path, tmp_path: Path) -> None:
    async with ssh_world(guest_program, tmp_path) as world:
        olive = await world.member("olive")
        process = await asyncio.create_subprocess_exec(
            "ssh", *olive.options, "host", "import", "half", stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL,
        )
        assert process.stdin is not None
        process.stdin.write(DISK)
        await process.stdin.drain()
        process.kill()
        await process.wait()
        while world.door._house.connections:
            await asyncio.sleep(0.01)
        assert "half" not in (await olive.ssh("host", "ls")).text
