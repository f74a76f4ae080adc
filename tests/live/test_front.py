"""`front = caddy`: the platform runs a terminator that gets certificates by ACME, and comes back when it dies."""
from __future__ import annotations

import json
import os
import re
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.acme_rig import AcmeServer, acme_server
from tests.live.rig import Done, Platform, free_ports, logs, platform, until
from tests.name_server import NameServer
from ussycode.base.clock import SystemClock
from ussycode.base.pki import Issuer, open_authority
from ussycode.runtime import instance as instances

pytestmark = pytest.mark.timeout(240)
DOMAIN = "vms.example"


@pytest.fixture(scope="module")
def place(
    live_data: Path, tmp_path_factory: pytest.TempPathFactory, names: NameServer,
) -> Iterator[tuple[Platform, AcmeServer]]:
    """A platform without VMs behind its own Caddy, before an authority that is really asked."""
    home = tmp_path_factory.mktemp("front")
    data = live_data / f"front-{os.getpid()}"
    ports = free_ports()
    with acme_server(home, ports["http"], ports["https"], f"127.0.0.1:{names.port}") as acme:
        options = (
            "--runtime", "fake", "--front", "caddy", "--domain", DOMAIN, "--listen", "127.0.0.1",
            "--acme-directory", acme.directory, "--acme-root", str(acme.root), "--acme-email", "op@vms.example",
            "--dns-resolver", names.setting, "--dns-port", str(names.front_zone_port),
        )
        with platform(data, home, live_data, *options, ports=ports) as made:
            (home / "root.pem").write_bytes(acme.issued().read_bytes())
            yield made, acme


def ask(place: Platform, host: str, *words: str) -> Done:
    """curl that knows where the domain is."""
    return place.curl("--resolve", f"*:{place.ports['https']}:127.0.0.1", *words, place.url(host), seconds=60)


def test_the_base_domain_gets_its_certificate_when_first_asked(place: tuple[Platform, AcmeServer]) -> None:
    platform, acme = place
    done = ask(platform, DOMAIN, "--http2", "-w", "%{http_version} %{http_code}", "-o", "/dev/null")
    assert done.out.startswith("2 "), done.out + done.err + logs(platform.data)
    assert acme.http.passed + acme.tls.passed > 0


@pytest.mark.parametrize("way", ["http", "tls"])
def test_either_challenge_suffices(place: tuple[Platform, AcmeServer], way: str) -> None:
    platform, acme = place
    assert platform.lobby("new", "--name", f"by{way}").status == 0
    ways = {"http": acme.http, "tls": acme.tls}
    for name, one in ways.items():
        one.opened = name == way
        one.passed = 0
    try:
        done = ask(platform, f"by{way}.{DOMAIN}", "-w", "%{http_code}", "--retry", "5", "--retry-all-errors")
        assert done.out.endswith("401"), done.out + done.err + logs(platform.data)
        assert ways[way].passed > 0 and ways["tls" if way == "http" else "http"].passed == 0
    finally:
        acme.http.opened = acme.tls.opened = True


def test_unknown_names_get_no_certificate_and_trouble_nobody(place: tuple[Platform, AcmeServer]) -> None:
    platform, acme = place
    before = acme.http.came + acme.tls.came
    for host in (f"nobody.{DOMAIN}", "shop.example.org", f"2999--byhttp.{DOMAIN}"):
        done = ask(platform, host)
        assert done.status == 35, f"{host}: {done.out}{done.err}"  # the handshake failed
    assert acme.http.came + acme.tls.came == before
    said = platform.program("curl", "-sS", f"http://127.0.0.1:{platform.ports['metrics']}/metrics").out
    assert 'ussycode_certificate_questions_total{answer="no"}' in said


def test_it_runs_without_rights_and_comes_back(place: tuple[Platform, AcmeServer]) -> None:
    platform, _ = place
    instance = instances.load(platform.data)
    assert instance is not None
    first = front_pid(platform)
    assert f"\nUid:\t{instance.front_uid}\t{instance.front_uid}" in Path(f"/proc/{first}/status").read_text()
    assert "\nCapEff:\t0000000000000000" in Path(f"/proc/{first}/status").read_text()
    os.kill(first, signal.SIGKILL)
    until(lambda: front_pid(platform) not in (0, first), 20, "a new Caddy")
    done = ask(platform, DOMAIN, "-w", "%{http_code}", "-o", "/dev/null", "--retry", "5", "--retry-all-errors")
    assert done.out in ("200", "303"), done.out + done.err


def front_pid(platform: Platform) -> int:
    """The running Caddy; 0 for none."""
    found = json.loads(platform.ussycode("status", "--json").out)["processes"]
    return int(found.get("front", 0))


def test_the_operator_may_run_one_of_their_own_instead(place: tuple[Platform, AcmeServer]) -> None:
    platform, _ = place
    for which in ("caddy", "haproxy"):
        done = platform.ussycode("front", which)
        assert done.status == 0 and "/front/edge.sock" in done.out
        assert DOMAIN not in done.out.replace("op@vms.example", "")  # nothing in it is about what runs here


def test_domains_of_owners_get_certificates_when_asked_and_wildcards_in_advance(
    place: tuple[Platform, AcmeServer], names: NameServer,
) -> None:
    platform, acme = place
    assert platform.lobby("new", "--name", "owned").status == 0
    names.says("own.test", "CNAME", f"owned.{DOMAIN}")
    assert ask(platform, "own.test").status == 35  # nobody has proven it
    assert "is served by owned" in platform.lobby("domain", "add", "owned", "own.test").out
    done = ask(platform, "own.test", "-w", "%{http_code}", "--retry", "5", "--retry-all-errors")
    assert done.out.endswith("401"), done.out + done.err + logs(platform.data)

    told = json.loads(platform.lobby("domain", "add", "--wildcard", "owned", "wild.test", "--json").out)
    names.says(told["delegation_name"], "CNAME", told["delegation_target"])
    names.says("*.wild.test", "CNAME", f"owned.{DOMAIN}")
    assert "is served by owned" in platform.lobby("domain", "add", "--wildcard", "owned", "wild.test").out
    until(lambda: "expires_at" in platform.lobby("domain", "ls", "-a", "--json").out, 60, "the certificate")
    before = acme.http.passed + acme.tls.passed
    for host in ("one.wild.test", "two.wild.test"):
        shown = ask(platform, host, "-v", "-w", "%{http_code}")
        assert shown.out.endswith("401") and re.search(r'matched cert\'s "\*\.wild\.test"', shown.err), shown.err
    assert acme.http.passed + acme.tls.passed == before  # one certificate for all of them


def test_what_control_keeps_is_handed_to_who_knows_the_secret_alone(place: tuple[Platform, AcmeServer]) -> None:
    platform, _ = place
    for path in ("/certificate/?server_name=wild.test", "/certificate/x?server_name=wild.test"):
        done = platform.program("curl", "-sS", "-w", "%{http_code}", f"http://127.0.0.1:{platform.ports['metrics']}{path}")
        assert done.out.endswith("404"), done.out


def test_on_one_machine_caddy_serves_what_our_own_authority_signs(live_data: Path, tmp_path: Path) -> None:
    options = ("--runtime", "fake", "--front", "caddy", "--listen", "127.0.0.1")
    with platform(live_data / f"front-own-ca-{os.getpid()}", tmp_path, live_data, *options) as made:
        made.lobby("new", "--name", "demo")
        for host in ("localhost", "demo.localhost"):
            done = made.curl("--http2", "-w", " %{http_version} %{http_code}", "-o", "/dev/null", made.url(host),
                             "--retry", "5", "--retry-all-errors")
            assert done.out.split() in (["2", "200"], ["2", "303"], ["2", "401"]), done.out + done.err + logs(made.data)
        assert "caddy ends TLS" in made.ussycode("doctor", seconds=120).out


def test_an_haproxy_of_the_operators_is_let_in_and_stays_while_edges_are_replaced(
    live_data: Path, tmp_path: Path,
) -> None:
    options = ("--runtime", "fake", "--front", "own", "--listen", "127.0.0.1")
    with platform(live_data / f"front-haproxy-{os.getpid()}", tmp_path, live_data, *options) as made:
        issuer = Issuer(open_authority(made.data / "ca", SystemClock()).intermediate("localhost"), SystemClock())
        leaf = issuer.leaf("localhost")
        (tmp_path / "host.pem").write_bytes(leaf.chain + leaf.key)
        (tmp_path / "root.pem").write_text(made.ussycode("ca").out)
        printed = made.ussycode("front", "haproxy", "--certificates", str(tmp_path / "host.pem"))
        (tmp_path / "haproxy.cfg").write_text(printed.out)
        running = subprocess.Popen(["haproxy", "-db", "-f", tmp_path / "haproxy.cfg"], stderr=subprocess.DEVNULL)
        try:
            ask = ("--http2", "-w", "%{http_code}", "-o", "/dev/null", "--retry", "9", "--retry-all-errors")
            assert made.curl(*ask, made.url("localhost", "/healthz")).out == "200"
            assert made.ussycode("reload").status == 0
            assert made.curl(*ask, made.url("localhost", "/healthz")).out == "200"
        finally:
            running.terminate()
            running.wait(10)
