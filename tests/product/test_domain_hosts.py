"""A proven domain is a host of the platform: browsers sign in there, it has a certificate, and both end with it."""
from __future__ import annotations

import re
from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import urlencode

import pytest
from cryptography import x509

from tests.name_server import NameServer
from tests.product.test_login_flow import SESSION, link, signed_in
from tests.product.test_requests import ask, person
from tests.product.web_world import HOME, Browser, WebWorld, web_world
from ussycode.base.pki import Authority, Issuer
from ussycode.domains import certificates, checking, edges, policy
from ussycode.domains import ops as domains
from ussycode.identity import addresses
from ussycode.mail import store as mail
from ussycode.sharing import facts
from ussycode.sharing.certificates import PORT_NAMES_AT_ONCE, CertificateRule
from ussycode.wire.edge import EdgeDomain

SHOP = "https://shop.test:8443"


@pytest.fixture
async def place(tmp_path: Path, names: NameServer) -> AsyncIterator[WebWorld]:
    """Alice's VM demo is served at shop.test."""
    async with web_world(tmp_path, dns_resolver=names.setting) as made:
        signer = certificates.LocalSigner(Issuer(
            Authority.make(made.base.clock).foreign_intermediate("localhost"), made.base.clock))
        made.app.db.listen(certificates.Certifier(made.app, signer, signer).heard)
        names.says("shop.test", "CNAME", "demo.localhost")
        names.forgets("claimed.test")
        await made.base.does(made.caller, "new --name demo")
        assert "error" not in await made.base.does(made.caller, "domain add demo shop.test")
        assert "error" in await made.base.does(made.caller, "domain add demo claimed.test")
        yield made


async def told(place: WebWorld) -> list[EdgeDomain]:
    """What edges know of domains."""
    return await place.app.db.read(edges.everything)


async def test_a_browser_signs_in_on_the_domain_and_the_cookie_stays_there(place: WebWorld) -> None:
    browser = Browser(place)
    shown = await browser.get(f"{SHOP}/__ussycode/login?redirect=/cart")
    assert "shop.test" in shown.text
    await browser.post(await link(place))
    assert browser.at == f"{SHOP}/cart" and SESSION in browser.jar["shop.test:8443"]
    assert "Signed out." in (await browser.post(f"{SHOP}/__ussycode/logout")).text


async def test_the_mail_names_it_and_its_code_leads_there(place: WebWorld) -> None:
    await place.app.db.write(lambda tx: addresses.verify(tx, "alice@example.org", place.caller.user))
    browser = Browser(place)
    asked = await browser.form(f"{HOME}/login/mail", email="alice@example.org", host="shop.test", path="/cart")
    assert "<strong>shop.test</strong>" in asked.text
    [letter] = [m for m in await place.app.db.read(mail.every) if m.to == "alice@example.org"]
    assert "sign in at shop.test" in letter.body
    found = re.search(r"https://\S+", letter.body)
    assert found is not None
    await browser.post(found[0])
    assert browser.at == f"{SHOP}/cart" and SESSION in browser.jar["shop.test:8443"]


async def test_somebody_asks_to_be_let_in_there(place: WebWorld) -> None:
    _, browser = await person(place, "bob")
    assert "has been told" in (await ask(browser, SHOP)).text
    listed = (await place.base.does(place.caller, "share requests"))["requests"]
    assert [(r["vm_name"], r["handle"]) for r in listed] == [("demo", "bob")]  # type: ignore[attr-defined]
    await place.base.does(place.caller, "share approve demo bob")
    assert (await ask(browser, SHOP)).location == "/"


async def test_a_domain_that_is_claimed_or_unknown_takes_part_in_nothing(place: WebWorld) -> None:
    browser = await signed_in(place)
    for host in ("claimed.test", "nobody.test"):
        assert (await place.ask("GET", f"https://{host}:8443/__ussycode/login")).status == 404
        query = urlencode({"host": host, "path": "/", "state": "x" * 40})
        led = await browser.get(f"{HOME}/login/to?{query}", follow=False)
        assert led.location == "/"
        assert host not in (await Browser(place).get(f"{HOME}/login?host={host}")).text


async def test_nobody_is_signed_in_where_dns_leads_somewhere_else_now(place: WebWorld, names: NameServer) -> None:
    """The code of a sign-in would be carried to whoever has the name now."""
    names.says("shop.test", "A", "192.0.2.99")
    place.base.clock.advance(policy.LOOK_AGAIN)
    await checking.look_at_due(place.app)
    browser = await signed_in(place)
    query = urlencode({"host": "shop.test", "path": "/", "state": "x" * 40})
    assert (await browser.get(f"{HOME}/login/to?{query}", follow=False)).location == "/"


async def test_the_sign_ins_of_a_domain_end_with_it(place: WebWorld) -> None:
    """Whoever has the name next may have collected its cookies."""
    browser = await signed_in(place)
    for host in (SHOP, "https://demo.localhost:8443"):
        await browser.get(f"{host}/__ussycode/login")
    await place.base.does(place.caller, "domain rm demo shop.test")
    left = await place.app.db.read(lambda tx: facts.snapshot(tx, place.app.images, 1))
    assert {s.host for s in left.sessions} == {"localhost", "demo.localhost"} and left.domains == []


async def test_a_proven_domain_has_its_certificate_when_the_command_answers(place: WebWorld) -> None:
    (shop,) = await told(place)
    assert shop.patterns == ("shop.test",) and names_in(shop.chain) == ["shop.test"]
    certifier = certificates.Certifier(place.app, certificates.NoSigner(), certificates.NoSigner())
    assert await certifier.renew() == 0


async def test_a_certificate_is_renewed_in_time_and_kept_when_that_fails(place: WebWorld) -> None:
    (before,) = await told(place)
    place.base.clock.advance(21 * 86_400)  # of 30 days

    class Silent:
        async def sign(self, domain: object) -> None:
            raise certificates.Refused("the authority does not\x1b answer")

    failing = certificates.Certifier(place.app, Silent(), Silent())  # type: ignore[arg-type]
    assert await failing.renew() == 1
    assert await told(place) == [before] and await failing.renew() == 0
    kept = await place.app.db.read(lambda tx: certificates.of(tx, before.domain))
    assert kept is not None and (kept.failures, kept.why) == (1, "the authority does not? answer")
    place.base.clock.advance(certificates.FIRST_WAIT)
    signer = certificates.LocalSigner(Issuer(
        Authority.make(place.base.clock).foreign_intermediate("localhost"), place.base.clock))
    assert await certificates.Certifier(place.app, signer, signer).renew() == 1
    assert (await told(place))[0].chain != before.chain


async def test_another_signer_leaves_nothing_behind_that_visitors_would_not_believe(place: WebWorld) -> None:
    """A front that gets certificates by ACME would be handed the local authority's, which no browser trusts."""
    (before,) = await told(place)
    root = Authority.make(place.base.clock)
    first, second = (certificates.LocalSigner(Issuer(root.foreign_intermediate("localhost"), place.base.clock))
                     for _ in range(2))
    assert await certificates.Certifier(place.app, first, first).settle() == 1  # the root was made anew
    (renewed,) = await told(place)
    assert renewed.chain not in (b"", before.chain)
    assert await certificates.Certifier(place.app, second, second).settle() == 0  # only control was started again
    assert await domains.pem(place.app, "shop.test") == renewed.key + renewed.chain
    nobody = certificates.NoSigner()
    assert await certificates.Certifier(place.app, nobody, nobody).settle() == 1
    assert (await told(place))[0].chain == b"" and await domains.pem(place.app, "shop.test") == b""


async def test_a_terminator_gets_certificates_for_proven_names_alone(place: WebWorld, names: NameServer) -> None:
    rule = CertificateRule(place.app)
    assert [await rule.allows(n) for n in ("shop.test", "claimed.test", "a.shop.test")] == [True, False, False]
    asked = await place.base.does(place.caller, "domain add demo '*.shop.test'")
    names.says("_acme-challenge.shop.test", "CNAME", str(asked["delegation_target"]))
    await place.base.does(place.caller, "domain add demo '*.shop.test'")
    answers = [await rule.allows(f"n{number}.shop.test") for number in range(PORT_NAMES_AT_ONCE + 5)]
    assert answers == [True] * PORT_NAMES_AT_ONCE + [False] * 5
    await place.base.does(place.caller, "rm demo")
    assert not await rule.allows("shop.test")


def names_in(chain: bytes) -> list[str]:
    certificate = x509.load_pem_x509_certificate(chain)
    found = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    return found.value.get_values_for_type(x509.DNSName)
