"""A domain from the first DNS record to its end, on the running platform: real DNS, real TLS, a real machine."""
from __future__ import annotations

import json

import pytest

from tests.live.rig import Done, Platform, until
from tests.name_server import NameServer

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
