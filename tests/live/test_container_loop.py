"""A container as its owner uses it: the same words, the same doors, and the same answers as for a VM."""
from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.live.rig import Platform, until

pytestmark = pytest.mark.timeout(180)
PAGE = "setsid python3 -m http.server 8000 --bind 127.0.0.1 >/dev/null 2>&1 < /dev/null & echo started"


@pytest.fixture(scope="module")
def box(lived: Platform) -> Iterator[str]:
    """A running container; how long its owner waited is printed."""
    began = time.monotonic()
    made = lived.lobby("new --name box --isolation container --env COLOUR=blue --json")
    assert made.status == 0, made.err
    first = lived.ssh("box@localhost", "echo up")
    print(f"new to first answer over the gateway: {1000 * (time.monotonic() - began):.0f} ms")
    assert first.out == "up\n", first.err
    yield "box"
    assert lived.lobby("rm box").status == 0


def test_ls_says_what_stands_around_it(lived: Platform, box: str) -> None:
    listed = {v["vm_name"]: v for v in json.loads(lived.lobby("ls -l --json").out)["vms"]}
    assert listed["box"]["isolation"] == "container"
    assert "container" in lived.lobby("ls -l box").out


def test_commands_and_files(lived: Platform, box: str, tmp_path: Path) -> None:
    done = lived.ssh("box@localhost", "echo out; echo err >&2; whoami; echo $COLOUR; exit 7")
    assert (done.status, done.out, done.err) == (7, "out\nussy\nblue\n", "err\n")
    (tmp_path / "there").write_bytes(os.urandom(1 << 20))
    port = str(lived.ports["ssh"])
    assert lived.program("scp", "-P", port, str(tmp_path / "there"), "box@localhost:there").status == 0
    assert lived.program("scp", "-P", port, "box@localhost:there", str(tmp_path / "back")).status == 0
    assert (tmp_path / "back").read_bytes() == (tmp_path / "there").read_bytes()


def test_its_page_is_served_and_forwards_lead_in(lived: Platform, box: str) -> None:
    assert lived.ssh("box@localhost", PAGE).out == "started\n"
    assert lived.lobby("share set-public box").status == 0
    until(lambda: "Directory listing" in lived.curl(lived.url("box.localhost")).out, 30, "the page")


def test_it_restarts_and_keeps_its_disk(lived: Platform, box: str) -> None:
    assert lived.ssh("box@localhost", "echo kept > note").status == 0
    assert lived.lobby("restart box").status == 0
    assert lived.ssh("box@localhost", "cat note; hostname").out == "kept\nbox\n"
    assert lived.lobby("rename box crate").status == 0
    until(lambda: lived.ssh("crate@localhost", "hostname").out == "crate\n", 20, "its new name inside")
    assert lived.lobby("rename crate box").status == 0


def test_doctor_says_what_is_weaker(lived: Platform) -> None:
    assert "share this host's kernel" in lived.ussycode("doctor").out
