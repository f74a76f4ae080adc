"""Certificates for wildcards from a real ACME server, proven by our own zone through a real name server."""
from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import dns.asyncquery
import dns.flags
import dns.message
import dns.rcode
import pytest
from cryptography import x509

from tests.name_server import HERE, PLATFORM, NameServer
from tests.pebble import Pebble, pebble
from tests.product.test_domain_hosts import names_in
from tests.world import World, world
from ussycode.access.facts import Caller
from ussycode.cli import doctor
from ussycode.config import load
from ussycode.domains import certificates, edges
from ussycode.domains.ordering import AcmeSigner
from ussycode.domains.zone import MAX_QUERY, Zone, ZoneServer


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory, names: NameServer) -> Iterator[Pebble]:
    with pebble(tmp_path_factory.mktemp("pebble"), f"{HERE}:{names.port}") as made:
        yield made


@dataclass
class Place:
    """A platform whose zone the name server asks, and the one person with a VM on it."""

    base: World
    olive: Caller
    zone: Zone
    certifier: certificates.Certifier

    async def wild(self, names: NameServer, domain: str) -> None:
        """Prove a wildcard."""
        asked = await self.base.does(self.olive, f"domain add --wildcard demo {domain}")
        names.says(str(asked["delegation_name"]), "CNAME", str(asked["delegation_target"]))
        assert "error" not in await self.base.does(self.olive, f"domain add --wildcard demo {domain}")


@pytest.fixture
async def place(names: NameServer, authority: Pebble) -> AsyncIterator[Place]:
    options = {"acme_directory": authority.directory, "acme_email": "op@example.org"}
    async with (
        world(domain=PLATFORM, registration="open", dns_resolver=names.setting, **options) as base,
        zone_server(names) as zone,
    ):
        olive = await base.person("olive")
        await base.does(olive, "new --name demo")
        signer = AcmeSigner(base.app, zone, str(authority.root))
        certifier = certificates.Certifier(base.app, certificates.NoSigner(), signer)
        base.app.db.listen(certifier.heard)
        yield Place(base, olive, zone, certifier)


@asynccontextmanager
async def zone_server(names: NameServer) -> AsyncIterator[Zone]:
    """Our zone where the name server asks for it."""
    udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    udp.bind((HERE, names.zone_port))
    udp.setblocking(False)
    tcp = socket.create_server((HERE, names.zone_port))
    zone = Zone.of(f"acme.{PLATFORM}", PLATFORM)
    serving = asyncio.create_task(ZoneServer(zone, [udp], [tcp]).run())
    try:
        yield zone
    finally:
        serving.cancel()
        await asyncio.gather(serving, return_exceptions=True)


async def test_a_wildcard_gets_a_certificate_that_a_browser_trusts_and_another_when_it_is_due(
    place: Place, names: NameServer, authority: Pebble,
) -> None:
    await place.wild(names, "wild.test")
    assert await place.certifier.renew() == 1
    (told,) = await place.base.app.db.read(edges.everything)
    assert set(names_in(told.chain)) == {"wild.test", "*.wild.test"}
    leaf, issuer = x509.load_pem_x509_certificates(told.chain)[:2]
    root = x509.load_pem_x509_certificate(authority.issuing_root().encode())
    leaf.verify_directly_issued_by(issuer)
    issuer.verify_directly_issued_by(root)
    assert await place.certifier.renew() == 0
    kept = await place.base.app.db.read(lambda tx: certificates.of(tx, told.domain))
    assert kept is not None
    place.base.clock.at = kept.renew_at
    assert await place.certifier.renew() == 1  # the account is known by now
    (again,) = await place.base.app.db.read(edges.everything)
    assert again.chain != told.chain and place.zone._texts == {}


async def test_an_order_that_is_refused_says_why_and_waits(place: Place, names: NameServer) -> None:
    await place.wild(names, "gone.test")
    names.forgets("_acme-challenge.gone.test")
    assert await place.certifier.renew() == 1
    (told,) = await place.base.app.db.read(edges.everything)
    kept = await place.base.app.db.read(lambda tx: certificates.of(tx, told.domain))
    assert kept is not None and "TXT record" in kept.why and kept.chain == b""
    assert await place.certifier.renew() == 0
    shown = (await place.base.does(place.olive, "domain ls -a"))["domains"]
    assert "TXT record" in str(shown[0]["certificate"])  # type: ignore[index]


async def test_an_authority_that_is_away_is_asked_again_later(names: NameServer) -> None:
    options = {"acme_directory": "https://127.0.0.1:9/dir"}
    async with world(domain=PLATFORM, registration="open", dns_resolver=names.setting, **options) as base:
        olive = await base.person("olive")
        await base.does(olive, "new --name demo")
        zone = Zone.of(f"acme.{PLATFORM}", PLATFORM)
        certifier = certificates.Certifier(base.app, certificates.NoSigner(), AcmeSigner(base.app, zone))
        await Place(base, olive, zone, certifier).wild(names, "away.test")
        assert await certifier.renew() == 1
        shown = (await base.does(olive, "domain ls -a"))["domains"]
        assert "cannot be reached" in str(shown[0]["certificate"])  # type: ignore[index]


async def asked(names: NameServer, name: str, kind: str, **options: object) -> dns.message.Message:
    question = dns.message.make_query(name, kind, **options)  # type: ignore[arg-type]
    return await dns.asyncquery.udp(question, HERE, port=names.zone_port, timeout=10)


async def test_the_zone_answers_for_itself_and_for_nothing_else(names: NameServer) -> None:
    origin = f"acme.{PLATFORM}"
    async with zone_server(names) as zone:
        with zone.holding(f"abc.{origin}", "first", "second"), zone.holding(f"abc.{origin}", "first"):
            pass
        with zone.holding(f"abc.{origin}", "first"):
            with zone.holding(f"abc.{origin}", "second"):
                found = await asked(names, f"AbC.{origin}", "TXT")
                assert found.flags & dns.flags.AA and len(found.answer[0]) == 2
                assert found.answer[0].name.to_text() == f"AbC.{origin}."
            assert len((await asked(names, f"abc.{origin}", "TXT")).answer[0]) == 1
            assert (await asked(names, f"abc.{origin}", "A")).rcode() == dns.rcode.NOERROR
        for name, kind, code, answers in (
            (origin, "SOA", dns.rcode.NOERROR, 1), (origin, "NS", dns.rcode.NOERROR, 1),
            (origin, "TXT", dns.rcode.NOERROR, 0), (f"abc.{origin}", "TXT", dns.rcode.NXDOMAIN, 0),
            (PLATFORM, "A", dns.rcode.REFUSED, 0), ("example.org", "A", dns.rcode.REFUSED, 0),
        ):
            got = await asked(names, name, kind)
            assert (got.rcode(), len(got.answer)) == (code, answers), (name, kind)
            assert bool(got.authority) == (code is not dns.rcode.REFUSED and not answers)


async def test_large_answers_go_over_tcp_and_nonsense_is_not_answered(names: NameServer) -> None:
    origin = f"acme.{PLATFORM}"
    async with zone_server(names) as zone:
        with zone.holding(f"abc.{origin}", *(f"{n}" * 50 for n in range(1000, 1100))):
            cut = await asked(names, f"abc.{origin}", "TXT", use_edns=0)
            assert cut.flags & dns.flags.TC and len(cut.to_wire()) <= MAX_QUERY
            question = dns.message.make_query(f"abc.{origin}", "TXT")
            whole = await dns.asyncquery.tcp(question, HERE, port=names.zone_port, timeout=10)
            assert len(whole.answer[0]) == 100
        for nonsense in (b"", b"\0", b"\xff" * 40, dns.message.make_response(question).to_wire()):
            assert zone.answer(nonsense) is None
        update = dns.message.make_query(origin, "SOA")
        update.set_opcode(dns.opcode.UPDATE)
        assert dns.message.from_wire(zone.answer(update.to_wire()) or b"").rcode() == dns.rcode.NOTIMP


async def test_the_operators_doctor_asks_for_the_records_that_wildcards_need(names: NameServer) -> None:
    def found(**options: str) -> tuple[bool, str]:
        settings = {"domain": PLATFORM, "dns_resolver": names.setting, "dns_port": str(names.zone_port), **options}
        check = doctor._dns(load(settings, {}))
        return check.ok, check.found

    well = True, f"{PLATFORM} and the names below it have addresses"
    async with zone_server(names):
        assert await asyncio.to_thread(found) == well
    zone = f"acme.{PLATFORM}, for wildcards' certificates, does not lead here"
    assert await asyncio.to_thread(found) == (False, zone)
    assert await asyncio.to_thread(lambda: found(dns_port="0")) == well
    assert await asyncio.to_thread(lambda: found(domain="not.test")) == (False, "not.test has no address")
