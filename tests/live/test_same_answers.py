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
    "help", "help share", "whoami", "ls", "ls -l", "ls 'no-such-*'", "ssh-key list", "browser", "exit", "doc",
    "doc tokens", "ssh-config", "completion bash", "complete 'ls --'", "quota", "image ls",
    "set-region local", "email ls", "email add {}@example.com", "email rm {}@example.com", "passkey list",
    "share requests", "share mine", "invite {}@example.com",
    "defaults read", "defaults write dev.exe new.cpu 1", "defaults delete dev.exe new.cpu",
    "new --name {}-box --env A=1", "ls {}-box", "share show {}-box", "share port {}-box", "share port {}-box 3000",
    "share set-public {}-box", "share set-private {}-box", "share receive-email {}-box on", "restart {}-box",
    "rename {}-box {}-bin",
    "comment {}-bin 'of {}'", "tag {}-bin blue", "tag -d {}-bin blue", "egress {}-bin all", "wake {}-bin on",
    "resize {}-bin --memory 512MB", "snapshot ls {}-bin", "snapshot schedule {}-bin off", "why {}-bin",
    "stat {}-bin", "ssh {}-bin 'exit 3'",
    "stop {}-bin", "start {}-bin", "rm {}-bin nothere", "trash ls", "trash restore {}-bin", "rm {}-bin",
    "trash empty {}-bin", "ssh-key add KEY", "ssh-key rename {}-key {}-desk", "ssh-key tag {}-desk prod",
    "ssh-key remove {}-desk", "projects", "doctor", "known-hosts",
    "ssh-key generate-api-key --label {} --cmds ls --exp 10m", "logout",
)
ELSEWHERE = {"image pull", "image rm", "export", "import"}
"""Run in test_any_image, where there is a registry, and in test_export and test_import."""
FAILING = (
    ("nosuch", 127, 404), ("new --nmae x", 2, 422), ("new --name 'open", 2, 400), ("rename nothere other", 1, 422),
    ("ssh nothere id", 1, 422), ("ssh-key remove nothing", 1, 422), ("help nosuch", 127, 404),
    ("new --image none", 1, 422), ("email verify nobody@example.com 123456", 1, 401),
    ("email primary nobody@example.com", 1, 422), ("ssh-key revoke-token nothing", 1, 401),
    ("usy0-to-usy1 nothing", 1, 401), ("browser --revoke nothing", 1, 422), ("share port nothere 3000", 1, 422),
    ("snapshot create nothere", 1, 422), ("snapshot rm nothere one", 1, 422), ("pause nothere", 1, 422),
    ("snapshot restore nothere one", 1, 422), ("resume nothere", 1, 422), ("cp nothere", 1, 422),
    ("billing", 1, 422), ("pool", 1, 422), ("grant-support-root", 1, 422), ("shelley", 1, 422),
    ("integrations", 1, 422), ("team", 1, 422), ("share add nothere a@example.com", 1, 422),
    ("share approve nothere bob", 1, 422), ("share decline nothere bob", 1, 422),
    ("share remove nothere a@example.com", 1, 422), ("share add-link nothere", 1, 422),
    ("share who nothere", 1, 422), ("share log nothere", 1, 422),
    ("share remove-link nothere x", 1, 422), ("share access allow nothere", 1, 422),
    ("share receive-email nothere", 1, 422), ("domain add nothere a.example.com", 1, 422),
    ("passkey rename nothing other", 1, 422), ("passkey rm nothing", 1, 422),
    ("domain rm nothere a.example.com", 1, 422), ("domain ls nothere", 1, 422),
)
ALLOWED = sorted({c.name for c in COMMANDS})
SHIFTING = (
    "created_at", "url", "ssh_keys", "public_key", "vms", "current", "uptime", "addresses", "token", "events",
    "console", "trash", "expires_at", "label", "fingerprint", "checks",
)


def line_for(line: str, side: str) -> str:
    key = KEY.format("QF" if side == "over-ssh" else "QG", f"{side}-key")
    return line.replace("KEY", key).replace("{}", side)


def plain(value: Any, side: str) -> Any:
    """A document without what must differ between the two sides."""
    text = json.dumps(value, sort_keys=True).replace(side, "SIDE")
    found = json.loads(text)
    if isinstance(found, dict):
        found.pop("points", None)  # a VM that is a minute old has one
        return {k: type(v).__name__ if k in SHIFTING else v for k, v in found.items()}
    return found


@pytest.mark.timeout(400)
def test_every_command_answers_alike_over_ssh_and_exec(lived: Platform) -> None:
    bearer = token(lived, "admin", json.dumps({"exp": int(time.time()) + 1800, "cmds": ALLOWED}))
    unlike = [found for line in LINES if (found := difference(lived, bearer, line))]
    assert not unlike, "\n".join(map(repr, unlike))
    asked = (*LINES, *(line for line, _, _ in FAILING if not line.startswith(("nosuch", "new --name 'open"))))
    assert {name_of(line) for line in asked} | ELSEWHERE == {c.name for c in COMMANDS}, "a command was never run"


def name_of(line: str) -> str:
    found, _ = TREE.find(split(line_for(line, "x")))
    return found.name


def difference(lived: Platform, bearer: str, line: str) -> tuple[str, object, object] | None:
    """What one line gives over SSH and over `/exec`, when that is not alike."""
    ssh_line = line_for(line, "over-ssh")
    in_guest = line.startswith("ssh {}")
    over_ssh = lived.lobby(ssh_line if in_guest else f"{ssh_line} --json", seconds=120)
    headers = ("-H", f"Authorization: Bearer {bearer}", "-H", "Accept: application/json, application/x-ndjson")
    asked = (*headers, "-w", "\n%{http_code}", "-d", line_for(line, "by-exec"))
    over_exec = lived.curl(*asked, lived.url("localhost", "/exec"))
    body, _, status = over_exec.out.rpartition("\n")
    expected = 3 if in_guest else 1 if "nothere" in line else 0
    if (over_ssh.status, status) != (expected, "200"):
        return line, (over_ssh.status, over_ssh.err), (status, body)
    if in_guest:
        last = json.loads(body.splitlines()[-1])
        return None if last == {"exit_code": 3} else (line, 3, last)
    one, other = plain(json.loads(over_ssh.out), "over-ssh"), plain(json.loads(body), "by-exec")
    return None if one == other else (line, one, other)


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
