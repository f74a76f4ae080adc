"""Certificates by name: bounded, limited, and blind to what exists."""
from __future__ import annotations

import ssl
from pathlib import Path

from ussycode.base.clock import ManualClock
from ussycode.base.pki import Authority, Issuer
from ussycode.doors.edge.counters import Counters
from ussycode.doors.edge.hosts import Hosts
from ussycode.doors.edge.tls import MAX_KEPT, MINT_BURST, MINT_RATE, Budget, Given, Minted


def minted(clock: ManualClock) -> tuple[Minted, Counters]:
    counters = Counters()
    issuer = Issuer(Authority.make(clock).intermediate("localhost"), clock)
    return Minted(issuer, Hosts("localhost"), clock, counters, lambda name: None), counters


def handshake(listener: ssl.SSLContext, name: str | None) -> ssl.SSLObject:
    """A handshake in memory by a client that checks nothing; the client's side of it."""
    trusting = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    trusting.check_hostname, trusting.verify_mode = False, ssl.CERT_NONE
    up, down = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = trusting.wrap_bio(down, up, server_hostname=name)
    server = listener.wrap_bio(up, down, server_side=True)
    for _ in range(4):
        for side in (client, server):
            try:
                side.do_handshake()
            except ssl.SSLWantReadError:
                continue
    return client


def served(client: ssl.SSLObject) -> bytes:
    certificate = client.getpeercert(binary_form=True)
    assert certificate is not None
    return certificate


def test_every_well_formed_name_gets_its_own_certificate() -> None:
    listener = minted(ManualClock())[0].context()
    for name in (b"demo.localhost", b"nobody-has-this.localhost", b"3000--demo.localhost"):
        assert name in served(handshake(listener, name.decode()))
    assert b"localhost" in served(handshake(listener, None))


def test_a_name_is_minted_once_and_renewed_in_time() -> None:
    clock = ManualClock()
    source, counters = minted(clock)
    listener = source.context()
    first = served(handshake(listener, "demo.localhost"))
    assert served(handshake(listener, "DEMO.localhost")) == first
    assert counters.values["certificates_minted"] == 1
    clock.advance(21 * 86400)
    assert served(handshake(listener, "demo.localhost")) != first


def test_names_that_no_machine_can_have_are_refused() -> None:
    source, counters = minted(ManualClock())
    for name in ("evil.example", "a.b.localhost", "xn--demo.localhost"):
        assert source._for(name) is None
    assert counters.values["certificates_refused"] == 3


def test_a_flood_of_names_is_limited_and_bounded() -> None:
    clock = ManualClock()
    source, counters = minted(clock)
    for number in range(int(MINT_BURST) + 50):
        source._for(f"host{number}.localhost")
    assert counters.values["certificates_refused"] == 50
    assert source._for("host1.localhost") is not None
    assert len(source._kept) <= MAX_KEPT


def test_the_budget_refills() -> None:
    clock = ManualClock()
    budget = Budget(MINT_RATE, 2, clock)
    assert [budget.spend() for _ in range(3)] == [True, True, False]
    clock.advance(1.5 / MINT_RATE)
    assert [budget.spend() for _ in range(2)] == [True, False]


def test_the_operators_own_certificates_are_chosen_by_name(tmp_path: Path) -> None:
    clock = ManualClock()
    issuer = Issuer(Authority.make(clock).intermediate("ussy.test"), clock)
    pairs = []
    for name in ("ussy.test", "*.ussy.test"):
        leaf = issuer.leaf(name)
        chain, key = tmp_path / f"{len(pairs)}.pem", tmp_path / f"{len(pairs)}.key"
        chain.write_bytes(leaf.chain)
        key.write_bytes(leaf.key)
        pairs.append((str(chain), str(key)))
    listener = Given(pairs, lambda name: None).context()
    assert b"*.ussy.test" in served(handshake(listener, "demo.ussy.test"))
    assert b"*.ussy.test" not in served(handshake(listener, "ussy.test"))
    assert b"*.ussy.test" not in served(handshake(listener, None))
