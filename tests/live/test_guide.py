"""Every console block of the guide is executed, in order; what the page shows is what happens."""
from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.live.rig import Platform

GUIDE = Path(__file__).parents[2] / "docs" / "guide"
DEFAULT_PORTS = {"2222": "ssh", "8443": "https", "8080": "http", "2525": "mail"}


def steps(page: str) -> Iterator[tuple[str, str]]:
    """(command, expected output) of every prompt in the console blocks of a page."""
    for block in re.findall(r"```console\n(.*?)```", page, re.S):
        for step in re.split(r"^\$ ", block, flags=re.M)[1:]:
            command, _, expected = step.partition("\n")
            yield command, expected


def pattern(expected: str) -> re.Pattern[str]:
    return re.compile(re.escape(expected.strip()).replace("…", ".*"))


@pytest.mark.timeout(300)
@pytest.mark.parametrize(("page", "least"), [("first-vm", 15), ("agents", 7), ("mail", 4)])
def test_the_guide_is_what_happens(lived: Platform, tmp_path: Path, page: str, least: int) -> None:
    person = lived.person("admin")
    (tmp_path / "root.pem").write_text((lived.home / "root.pem").read_text())
    (tmp_path / "token.sh").write_text((GUIDE / "token.sh").read_text())
    for name in ("key", "key.pub"):
        (tmp_path / name).write_bytes((person / name).read_bytes())
        (tmp_path / name).chmod(0o600)
    shell = subprocess.Popen(
        ["bash"], cwd=tmp_path, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        env={"PATH": f"{person}:/usr/bin:/bin", "LC_ALL": "C.UTF-8", "HOME": str(tmp_path)},
    )
    assert shell.stdin is not None and shell.stdout is not None
    text = (GUIDE / f"{page}.md").read_text()
    for port, name in DEFAULT_PORTS.items():
        text = text.replace(port, str(lived.ports[name]))
    done = 0
    for command, expected in steps(text):
        # Standard input is the page itself: programs get none of it.
        shell.stdin.write(f"{{ {command}\n}} </dev/null\necho; echo :end:\n")
        shell.stdin.flush()
        lines = iter(shell.stdout.readline, ":end:\n")
        shown = "".join(lines).strip()
        assert pattern(expected).fullmatch(shown), f"$ {command}\nshowed {shown!r}\nthe page says {expected!r}"
        done += 1
    shell.stdin.close()
    assert shell.wait(10) == 0 and done > least
