"""A disk is downloaded over SSH and over /exec, and never onto a terminal."""
from __future__ import annotations

import subprocess
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.product.ssh_world import ssh_world
from tests.product.web_world import WebWorld, web_world


@pytest.fixture
async def place(guest_program: Path, tmp_path: Path) -> AsyncIterator[WebWorld]:
    async with web_world(tmp_path, guest_program) as made:
        await made.base.does(made.caller, "new --name demo")
        yield made


def sound(file: Path) -> bool:
    return subprocess.run(["qemu-img", "check", "-q", "-f", "qcow2", file], timeout=30, check=False).returncode == 0


async def test_exec_answers_with_the_file(place: WebWorld, tmp_path: Path) -> None:
    got = await place.exec("export demo")
    assert (got.status, got.headers["Content-Disposition"]) == (200, 'attachment; filename="demo.qcow2"')
    assert int(got.headers["Content-Length"]) == len(got.body)
    (tmp_path / "got").write_bytes(got.body)
    assert sound(tmp_path / "got")
    assert (await place.exec("export nothere")).status == 422


async def test_ssh_sends_the_file_but_not_to_a_terminal(guest_program: Path, tmp_path: Path) -> None:
    async with ssh_world(guest_program, tmp_path) as world:
        olive = await world.member("olive")
        await world.vm(olive, "demo")
        got = await olive.ssh("host", "export", "demo")
        assert got.status == 0
        (tmp_path / "got").write_bytes(got.out)
        assert sound(tmp_path / "got")
        async with olive.terminal("-t", "host", "export", "demo") as tty:
            await tty.until("a disk is not for a terminal")
            assert await tty.ended() == 2
