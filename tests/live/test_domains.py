"""A domain from the first DNS record to its end, on the running platform: real DNS, real TLS, a real machine."""
from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from tests.live.rig import Done, Platform, until
from tests.live.test_guide import DEFAULT_PORTS, GUIDE, steps
from tests.name_server import NameServer
from tests.pebble import Pebble

NAME = "domains.test"
PAGE = "mkdir -p /srv; echo hello > /srv/index.html; cd /srv; setsid -f python3 -m http.server 8000 >/dev/null 2>&1"


def opened(place: Platform, host: str = NAME, *words: str) -> Done:
    """What a browser gets whose DNS leads it here: the status, then the body."""
    to = f"{host}:{place.ports['https']}:127.0.0.1"
    return place.curl("--resolve", to, "-w", "%{http_code}", *words, place.url(host))


def serving(place: Platform, vm: str) -> None:
    assert place.ssh(f"{vm}@localhost", f"sudo sh -c '{PAGE}'").status == 0
    until(lambda: opened(place).out.endswith("200"), 30, "the page")


@pytest.mark.timeout(300)
def test_a_domain_leads_to_its_vm_whatever_happens_to_it(lived: Platform, names: NameServer) -> None:
    names.forgets(NAME)
    assert lived.lobby("new", "--name", "owned", "--isolation", "container", seconds=120).status == 0
    assert opened(lived).status == 35  # no certificate for a name that nobody has proven
    told = json.loads(lived.lobby("domain", "add", "owned", NAME, "--json").out)
    assert told["expected"] == "owned.localhost" and opened(lived).status == 35
    names.says(NAME, "CNAME", told["expected"])
    assert lived.lobby("domain", "add", "owned", NAME).out.startswith(f"{NAME} is served by owned")
    assert opened(lived).out.endswith("401")  # private, as the VM is
    assert opened(lived, NAME, "-H", "Accept: text/html", "-o", "/dev/null").out == "302"
    lived.lobby("share", "set-public", "owned")
    serving(lived, "owned")
    assert lived.lobby("restart", "owned", seconds=120).status == 0
    serving(lived, "owned")
    assert lived.lobby("rename", "owned", "owned-two").status == 0
    assert opened(lived).out.startswith("hello")
    lived.lobby("share", "set-private", "owned-two")
    assert opened(lived).out.endswith("401")
    assert lived.lobby("domain", "rm", "owned-two", NAME).status == 0
    assert opened(lived).status == 35
    lived.lobby("rm", "owned-two")


@pytest.mark.timeout(300)
def test_the_guide_is_what_happens(lived: Platform, names: NameServer, acme: Pebble, tmp_path: Path) -> None:
    (tmp_path / "root.pem").write_text((lived.home / "root.pem").read_text())
    (tmp_path / "acme.pem").write_text(acme.issuing_root())
    hosts = ("app.guide.test", "wild.guide.test", "any.wild.guide.test")
    (tmp_path / ".curlrc").write_text("".join(f"resolve = {h}:{lived.ports['https']}:127.0.0.1\n" for h in hosts))
    page = (GUIDE / "domains.md").read_text()
    for port, name in DEFAULT_PORTS.items():
        page = page.replace(port, str(lived.ports[name]))
    shown, done = "", 0
    for kind, block in re.findall(r"^```(console|zone|certificate)\n(.*?)^```", page, re.S | re.M):
        if kind == "zone":
            delegation = re.search(r"\S+\.acme\.localhost", shown)
            for line in block.splitlines():
                host, record, value = line.replace("DELEGATION", delegation[0] if delegation else "").split()
                names.says(host, record, value)
        elif kind == "certificate":
            until(lambda: certified(lived, block.strip()), 60, "the certificate")  # noqa: B023 - called at once
        for command, expected in steps(f"```console\n{block}```") if kind == "console" else ():
            script = f"cd {tmp_path}; export HOME=$PWD; {{ {command}\n}} 2>&1"
            shown = lived.program("bash", "-c", script, seconds=120).out
            assert expected_of(expected).fullmatch(shown.strip()), f"$ {command}\nshowed {shown!r}\n{expected!r}"
            done += 1
    assert done > 12


def certified(place: Platform, domain: str) -> bool:
    found = json.loads(place.lobby("domain", "ls", "-a", "--json").out)["domains"]
    return any(d["domain"] == domain and "expires_at" in d.get("certificate", {}) for d in found)


def expected_of(text: str) -> re.Pattern[str]:
    """What the page shows, `…` standing for anything; columns may be wider."""
    return re.compile(re.escape(text.strip()).replace("…", ".*"), re.S)
