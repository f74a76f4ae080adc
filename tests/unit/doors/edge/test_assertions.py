"""Signed statements to apps are kept while they are fresh, and change hands with their key."""
from __future__ import annotations

from joserfc import jws

from ussycode.access.facts import Caller, Role, Via
from ussycode.doors.edge.assertions import MAX_KEPT, RENEW_SECONDS, Assertions
from ussycode.wire.edge import EdgeSigner

ALICE = Caller("usr_alice", "alice", Role.NEWBIE, Via.SESSION, email="alice@example.org")
NOW = 1.9e9


def made(*signers: EdgeSigner) -> Assertions:
    it = Assertions("https://localhost")
    it.take(signers)
    return it


def key_of(line: bytes) -> str:
    return str(jws.extract_compact(line.partition(b": ")[2].strip()).headers()["kid"])


def test_without_a_key_nothing_is_said() -> None:
    assert made().line(ALICE, "demo.localhost", NOW)[0] == b""
    assert made(EdgeSigner("sig_later", b"l" * 32, NOW + 1)).line(ALICE, "demo.localhost", NOW)[0] == b""


def test_none_is_a_minute_old_and_none_is_made_sooner() -> None:
    it = made(EdgeSigner("sig_1", b"1" * 32, 0))
    first, again = it.line(ALICE, "demo.localhost", NOW)
    assert again == NOW + RENEW_SECONDS < NOW + 60
    assert it.line(ALICE, "demo.localhost", again - 1) == (first, again)
    assert it.line(ALICE, "demo.localhost", again)[0] != first


def test_the_next_key_signs_when_its_time_has_come() -> None:
    it = made(EdgeSigner("sig_2", b"2" * 32, NOW + 100), EdgeSigner("sig_1", b"1" * 32, 0))
    assert key_of(it.line(ALICE, "demo.localhost", NOW)[0]) == "sig_1"
    assert key_of(it.line(ALICE, "demo.localhost", NOW + 100)[0]) == "sig_2"


def test_made_up_hosts_do_not_fill_the_memory() -> None:
    it = made(EdgeSigner("sig_1", b"1" * 32, 0))
    for number in range(MAX_KEPT + 10):
        it.line(ALICE, f"host{number}.localhost", NOW)
    assert len(it._kept) <= MAX_KEPT
