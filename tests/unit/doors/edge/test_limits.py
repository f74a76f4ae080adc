"""If these failed, one visitor could crowd out all others, or an office behind one address could be shut out."""
from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from ussycode.doors.edge.limits import BURST_SECONDS, MAX_KEPT, Limits, Payer
from ussycode.doors.edge.settings import EdgeSettings


def limits(**over: object) -> Limits:
    return Limits(EdgeSettings(domain="localhost", https_fds=[], control_socket="", feed_socket="", **over))


@given(st.lists(st.floats(0, 5), max_size=40), st.integers(1, 50))
def test_nobody_gets_more_than_the_rate_and_one_burst(pauses: list[float], rate: int) -> None:
    payer, now, got = Payer(rate, 0.0), 0.0, 0
    for pause in pauses:
        now += pause
        got += sum(payer.spend(now) for _ in range(rate * 10))
    assert got <= rate * BURST_SECONDS + rate * now + 1e-6


def test_a_rate_of_nothing_is_no_limit() -> None:
    payer = Payer(0, 0.0)
    assert all(payer.spend(0.0) for _ in range(10_000))


def test_whoever_waits_may_go_on() -> None:
    payer = Payer(2, 0.0)
    assert sum(payer.spend(0.0) for _ in range(50)) == 10
    assert not payer.spend(0.4) and payer.spend(0.6)


def test_an_ipv6_network_is_one_payer_and_addresses_of_ipv4_are_not() -> None:
    made = limits(limit_requests=10)
    one = made.of_requests(b"2001:db8::1", 0)
    assert made.of_requests(b"2001:db8::ffff:1", 0) is one
    assert made.of_requests(b"2001:db8:0:1::1", 0) is not one
    assert made.of_requests(b"192.0.2.1", 0) is not made.of_requests(b"192.0.2.2", 0)


def test_exempt_networks_pay_nothing_but_accounts_always_do() -> None:
    made = limits(limit_requests=1, limit_account=1, limit_exempt=["127.0.0.0/8", "::1/128"])
    for address in (b"127.0.0.1", b"127.9.9.9", b"::1", b""):
        payer = made.of_requests(address, 0)
        assert all(payer.spend(0) for _ in range(1000)) and not made.too_many(payer)
    account = made.of_account("usr_a", 0)
    assert sum(account.spend(0) for _ in range(100)) == BURST_SECONDS
    assert made.known == 0


def test_memory_is_bounded() -> None:
    made = limits(limit_requests=1)
    for number in range(MAX_KEPT + 100):
        made.of_requests(f"10.{number >> 16}.{(number >> 8) & 255}.{number & 255}".encode(), 0)
    assert made.known == MAX_KEPT
