"""Bounds on what clients take."""
from __future__ import annotations

from ussycode.doors.ssh import limits
from ussycode.doors.ssh.connection import source


def test_one_address_cannot_hold_the_door_with_connections_that_never_sign_in() -> None:
    door = limits.Admission()
    assert all(door.enter("10.0.0.1") for _ in range(limits.MAX_UNPROVEN))
    assert not door.enter("10.0.0.1") and door.enter("10.0.0.2")
    door.proven("10.0.0.1")
    assert door.enter("10.0.0.1") and not door.enter("10.0.0.1")


def test_all_connections_together_are_bounded_and_counted_down() -> None:
    door = limits.Admission()
    for n in range(limits.MAX_CONNECTIONS):
        assert door.enter(f"10.0.{n // 250}.{n % 250}")
    assert not door.enter("10.9.9.9")
    for n in range(limits.MAX_CONNECTIONS):
        door.leave(f"10.0.{n // 250}.{n % 250}", proven=False)
    assert (door.open, len(door._unproven)) == (0, 0)


def test_unknown_keys_are_let_through_in_a_burst_and_then_slowly() -> None:
    now = 0.0
    bucket = limits.UnknownKeys(lambda: now)
    assert all(bucket.take("a") for _ in range(limits.UNKNOWN_BURST))
    assert not bucket.take("a") and bucket.take("b")
    now += 1 / limits.UNKNOWN_PER_SECOND
    assert bucket.take("a") and not bucket.take("a")


def test_addresses_watched_are_bounded() -> None:
    bucket = limits.UnknownKeys(lambda: 0.0)
    for n in range(limits.MAX_WATCHED + 10):
        bucket.take(str(n))
    assert len(bucket._seen) == limits.MAX_WATCHED


def test_variables_that_do_not_fit_are_dropped() -> None:
    env = limits.Environment()
    env[b"BIG"] = b"x" * limits.MAX_ENV_BYTES
    assert not env
    for n in range(limits.MAX_ENV + 5):
        env[b"V%d" % n] = b"1"
    assert len(env) == limits.MAX_ENV
    env[b"V0"] = b"2"
    assert env[b"V0"] == b"2"


def test_a_network_of_one_host_counts_as_one_source() -> None:
    assert source(("10.0.0.1", 5)) == "10.0.0.1"
    assert source(("2001:db8:1:2:3:4:5:6", 5, 0, 0)) == source(("2001:db8:1:2::9", 6, 0, 0))
    assert source(("fe80::1%eth0", 5, 0, 0)) == "fe80::/64"
