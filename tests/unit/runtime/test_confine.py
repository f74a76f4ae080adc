"""Walls around the process that unpacks layers."""
from __future__ import annotations

import os
import resource
import socket
from pathlib import Path

from ussycode.runtime.images.confine import MEMORY, confine


def confined(folder: Path, outside: Path) -> str:
    """What a confined child could do, as letters: w writes inside, r reads outside, n reaches the network."""
    ready, told = os.pipe()
    if (child := os.fork()) == 0:
        try:
            walled = confine(folder)
            os.write(told, b"W" if walled else b"-")
            (folder / "inside").write_text("x")
            os.write(told, b"w")
            os.write(told, b"m" if resource.getrlimit(resource.RLIMIT_AS)[1] == MEMORY else b"")
            outside.read_text()
            os.write(told, b"r")
        except OSError:
            pass
        try:
            socket.create_connection(("127.0.0.1", 9), timeout=5)
        except PermissionError:
            pass
        except OSError:
            os.write(told, b"n")
        os._exit(0)
    os.close(told)
    os.waitpid(child, 0)
    with os.fdopen(ready) as said:
        return said.read()


def test_only_its_own_folder_and_bounded_memory(tmp_path: Path) -> None:
    (tmp_path / "own").mkdir()
    secret = tmp_path / "secret"
    secret.write_text("s")
    could = confined(tmp_path / "own", secret)
    assert could[1:3] == "wm"
    if could[0] == "W":  # this kernel has Landlock
        assert "r" not in could
