"""Every command gives the same document over SSH and over `/exec`, with the status that belongs to its exit code."""
from __future__ import annotations

import json
import time
from typing import Any

import pytest

from tests.live.rig import Platform
from tests.live.test_main_loop import token
from ussycode.catalog import COMMANDS, TREE
from ussycode.cmdline.lex import split

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGJzDOXvS0ZkB2bq8v1yYkN0Vn5t9h6n8v6mJt0m3s{} {}"
LINES = (
    "help", "help share", "whoami", "ls", "ls -l", "ls 'no-such-*'", "ssh-key list", "browser", "exit",
    "image ls",
    "new --name {}-box --env A=1", "ls {}-box", "share show {}-box", "share port {}-box", "share port {}-box 3000",
    "share set-public {}-box", "share set-private {}-box", "restart {}-box", "rename {}-box {}-bin",
    "ssh {}-bin 'exit 3'",
    "projects", "doctor", "known-hosts",
    "rm {}-bin nothere", "ssh-key add KEY", "ssh-key rename {}-key {}-desk", "ssh-key tag {}-desk prod",
    "ssh-key remove {}-desk",
)
ELSEWHERE = {"image pull", "image rm"}
"""Run in test_any_image, where there is a registry."""
FAILING = (
    ("nosuch", 127, 404), ("new --nmae x", 2, 422), ("new --name 'open", 2, 400), ("rename nothere other", 1, 422),
    ("ssh nothere id", 1, 422), ("ssh-key remove nothing", 1, 422), ("help nosuch", 127, 404),
    ("new --image none", 1, 422),
)
ALLOWED = sorted({c.name for c in COMMANDS})
SHIFTING = ("created_at", "url", "ssh_keys", "public_key", "vms", "current", "uptime", "checks")


def line_for(line: str, side: str) -> str:
    key = KEY.format("QF" if side == "over-ssh" else "QG", f"{side}-key")
    return line.replace("KEY", key).replace("{}", side)


def plain(value: Any, side: str) -> Any:
    """A document without what must differ between the two sides."""
    text = json.dumps(value, sort_keys=True).replace(side, "SIDE")
    found = json.loads(text)
    if isinstance(found, dict):
        return {k: type(v).__name__ if k in SHIFTING else v for k, v in found.items()}
    return found


@pytest.mark.timeout(300)
def test_every_command_answers_alike_over_ssh_and_exec(lived: Platform) -> None:
    bearer = token(lived, "admin", json.dumps({"exp": int(time.time()) + 900, "cmds": ALLOWED}))
    ran = set()
    for line in LINES:
        ran.add(TREE.find(split(line_for(line, "x")))[0].name)
        ssh_line = line_for(line, "over-ssh")
        over_ssh = lived.lobby(ssh_line if line.startswith("ssh {}") else f"{ssh_line} --json", seconds=120)
        headers = ("-H", f"Authorization: Bearer {bearer}", "-H", "Accept: application/json, application/x-ndjson")
        asked = (*headers, "-w", "\n%{http_code}", "-d", line_for(line, "by-exec"))
        over_exec = lived.curl(*asked, lived.url("localhost", "/exec"))
        body, _, status = over_exec.out.rpartition("\n")
        assert status == "200", (line, over_exec.out, over_exec.err)
        if line.startswith("ssh {}"):
            assert (over_ssh.status, json.loads(body.splitlines()[-1])) == (3, {"exit_code": 3})
            continue
        assert over_ssh.status == (1 if "nothere" in line else 0), (line, over_ssh.err)
        assert plain(json.loads(over_ssh.out), "over-ssh") == plain(json.loads(body), "by-exec"), line
    assert ran | ELSEWHERE == {c.name for c in COMMANDS}, "a command was never run"


@pytest.mark.parametrize(("line", "exit_code", "status"), FAILING)
def test_failures_have_the_same_sentence_and_their_statuses(
    lived: Platform, line: str, exit_code: int, status: int
) -> None:
    bearer = token(lived, "admin", json.dumps({"cmds": ALLOWED}))
    over_ssh = lived.lobby(line)
    over_exec = lived.curl("-H", f"Authorization: Bearer {bearer}", "-w", "\n%{http_code}", "-d", line,
                           lived.url("localhost", "/exec"))
    body, _, code = over_exec.out.rpartition("\n")
    document = json.loads(body)
    assert (over_ssh.status, code, set(document)) == (exit_code, str(status), {"error"})
    assert document["error"] in over_ssh.err
