"""`ussycode reload` replaces the edges under load, and alternate ports are the operator's to open."""
from __future__ import annotations

import json
import os
import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tests.live.rig import PROGRAM, Platform, platform

pytestmark = pytest.mark.timeout(180)


def four_ports() -> int:
    """The first of four neighbouring ports, in the range of VMs' ports, that nobody listens on now."""
    for first in range(3600, 9990, 4):
        with suppress(OSError):
            for port in range(first, first + 4):
                socket.create_server(("127.0.0.1", port)).close()
            return first
    raise AssertionError("every port is taken")


@pytest.fixture(scope="module")
def place(live_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Platform, int]]:
    """Two edges without VMs; of four alternate ports another program has the second."""
    home, first = tmp_path_factory.mktemp("edges"), four_ports()
    data = live_data / f"edges-{os.getpid()}"
    words = ("--runtime", "fake", "--edge-processes", "2", "--edge-retire", "20", "--listen", "127.0.0.1",
             "--alternate-ports", f"{first}-{first + 3}")
    with socket.create_server(("127.0.0.1", first + 1)), platform(data, home, live_data, *words) as made:
        yield made, first


def edges(platform: Platform) -> dict[str, int]:
    """Pids of the edges that serve."""
    found = json.loads(platform.ussycode("status", "--json").out)["processes"]
    return {role: pid for role, pid in found.items() if role in ("edge0", "edge1")}


def test_the_edges_are_replaced_and_no_request_is_lost(place: tuple[Platform, int]) -> None:
    platform, _ = place
    before, failed, asked, stop = edges(platform), [], [0], threading.Event()

    def ask() -> None:
        while not stop.is_set():
            done = platform.curl("-w", "%{http_code}", "-o", "/dev/null", platform.url("localhost", "/healthz"))
            asked[0] += 1
            if done.out != "200":
                failed.append(done.out + done.err)

    clients = [threading.Thread(target=ask) for _ in range(3)]
    for one in clients:
        one.start()
    done = platform.ussycode("reload")
    stop.set()
    for one in clients:
        one.join(30)
    assert done.status == 0 and "edges replaced: 2" in done.out, done.err
    assert not failed and asked[0] > 5
    after = edges(platform)
    assert set(after) == {"edge0", "edge1"} and not set(after.values()) & set(before.values())


def test_what_is_replaced_is_still_watched(place: tuple[Platform, int]) -> None:
    platform, _ = place
    before = edges(platform)
    os.kill(before["edge0"], 9)
    done = platform.curl("--retry", "20", "--retry-all-errors", "-w", "%{http_code}", "-o", "/dev/null",
                         platform.url("localhost", "/healthz"))
    assert done.out == "200"
    assert edges(platform)["edge1"] == before["edge1"]


def test_alternate_ports_listen_but_those_of_other_programs(place: tuple[Platform, int]) -> None:
    platform, first = place
    for port in (first, first + 2, first + 3):
        done = platform.curl("-w", "%{http_code}", f"https://demo.localhost:{port}/")
        assert done.out.endswith("401"), done.out + done.err
    said = (platform.data / "log" / "up.log").read_text()
    assert f"alternate ports that other programs have, and keep: {first + 1}\n" in said
    refused = platform.curl(f"https://demo.localhost:{first + 1}/", "--max-time", "2")
    assert refused.status != 0


def test_without_a_platform_there_is_nothing_to_replace(tmp_path: Path) -> None:
    words = [*PROGRAM, "reload", "--data-dir", str(tmp_path)]
    done = subprocess.run(words, capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 1 and "does not run" in done.stderr
