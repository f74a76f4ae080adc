"""What the guide shows of settings and configurations is what the platform reads and writes."""
from __future__ import annotations

import re
from pathlib import Path

import pytest

from ussycode.cli import caddy, haproxy
from ussycode.cli.front import ADMIN_SOCKET
from ussycode.config import SETTINGS, Config, load
from ussycode.doors.edge.edge import MAX_CONNECTIONS
from ussycode.doors.edge.limits import BURST_SECONDS
from ussycode.doors.edge.websocket import GOING_AWAY, RESTART
from ussycode.doors.web.pace import SIGN_INS_PER_MINUTE
from ussycode.identity.emails import CODES_PER_HOUR

GUIDE = (Path(__file__).parents[2] / "docs" / "guide" / "front.md").read_text()
EDGE = Path("/run/ussycode/7/front/edge.sock")


def blocks(kind: str) -> list[str]:
    return re.findall(rf"```{kind}\n(.*?)```", GUIDE, re.S)


def read(toml: str, folder: Path) -> Config:
    file = folder / "ussycode.toml"
    file.write_text(toml)
    return load({}, {}, file)


@pytest.mark.parametrize("toml", blocks("toml"))
def test_the_settings_are_settings(toml: str, tmp_path: Path) -> None:
    assert read(toml, tmp_path).front in ("caddy", "own")


def test_what_haproxy_is_told_is_what_the_page_shows(tmp_path: Path) -> None:
    config = next(c for t in blocks("toml") if (c := read(t, tmp_path)).front == "own")
    written = haproxy.configuration(config, EDGE)
    assert blocks("haproxy") and all(block in written for block in blocks("haproxy"))
    assert f"server edge unix@{EDGE}" in written and "\n    chroot" not in written
    assert "bind 0.0.0.0:3000-9463 ssl" in written and "9464" not in written.replace("3000-9463", "")


def test_neither_configuration_names_what_runs_here() -> None:
    config = load({"domain": "vms.example.org", "front": "own"}, {})
    sockets = caddy.Sockets.opened(config.listen)
    for text in (
        haproxy.configuration(config, EDGE),
        caddy.caddyfile(config, EDGE, sockets, caddy.Certificates(), admin=ADMIN_SOCKET),
    ):
        assert "vms.example.org" not in text and str(EDGE) in text
        for name in ("For", "Proto", "Port"):
            assert len(re.findall(rf"X-Forwarded-{name} ", text)) == text.count("X-Forwarded-For ")


def test_the_figures_are_the_platforms() -> None:
    defaults = {s.name: s.default for s in SETTINGS}
    rows = re.findall(r"^\| `(\w+)` \| (\d+) \|", GUIDE, re.M)
    assert len(rows) == 5 and all(defaults[name] == value for name, value in rows)
    assert f"`edge_retire` seconds ({defaults['edge_retire']})" in GUIDE
    words = " ".join(GUIDE.split())
    assert f"{SIGN_INS_PER_MINUTE} forms a minute" in words and f"{CODES_PER_HOUR} codes an hour" in words
    assert f"({MAX_CONNECTIONS} connections)" in words and BURST_SECONDS == 5 and "five seconds' worth" in words
    assert f"code {RESTART} ({GOING_AWAY}" in words
