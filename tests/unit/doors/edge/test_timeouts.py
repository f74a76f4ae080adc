"""How long anybody may take, with the clock moved by hand: hours pass here in a millisecond."""
from __future__ import annotations

import pytest

from tests.fuzz.table import Table
from ussycode.doors.edge.connection import IDLE_TIMEOUT, LINGER_TIMEOUT, MAX_LINGER, STALL_TIMEOUT
from ussycode.doors.edge.exchange import ANSWER_TIMEOUT

HOST = b"Host: open.localhost\r\n"
GET = b"GET / HTTP/1.1\r\n" + HOST + b"\r\n"
UPGRADE = b"GET / HTTP/1.1\r\n" + HOST + b"Connection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
SWITCH = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n"
EVENTS = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n"
HOUR = 3600.0


def table(*said: bytes) -> Table:
    """A visitor whose app answers so, and never hangs up by itself."""
    made = Table(list(said))
    made.hangs_up = False
    return made


def status(at: Table) -> bytes:
    return at.wire.out.partition(b" ")[2][:3]


def test_who_says_nothing_is_let_go() -> None:
    at = table()
    at.after(9)
    assert not at.wire.closing
    at.after(2)
    assert at.wire.closing and at.wire.out == b""


def test_a_head_has_its_time_however_it_dribbles_in() -> None:
    at = table()
    for byte in GET[:8]:
        at.send(bytes([byte]))
        at.after(1)
    assert status(at) == b""
    at.after(3)
    assert status(at) == b"408"
    at.after(LINGER_TIMEOUT + 1)
    assert at.wire.closing and not at.arms


def test_a_second_head_has_its_own_time() -> None:
    at = table()
    at.send(GET)
    at.after(IDLE_TIMEOUT - 1)
    at.send(GET[:5])
    at.after(9)
    at.send(GET[5:])
    assert at.wire.out.count(b"200 OK") == 2


def test_a_kept_connection_is_let_go_when_nobody_asks() -> None:
    at = table()
    at.send(GET)
    at.after(IDLE_TIMEOUT - 1)
    assert not at.wire.closing
    at.after(2)
    assert at.wire.closing and not at.wire.aborted


def test_a_body_that_stalls_is_ended_on_both_sides() -> None:
    at = table()
    at.send(b"POST / HTTP/1.1\r\n" + HOST + b"Content-Length: 10\r\n\r\nhello")
    at.after(STALL_TIMEOUT - 1)
    at.send(b"o")
    at.after(STALL_TIMEOUT - 1)
    assert not at.wire.out
    at.after(2)
    assert status(at) == b"408" and at.arms[0].wire.aborted


def test_an_app_has_its_time_to_answer() -> None:
    at = table(b"")
    at.send(GET)
    at.after(ANSWER_TIMEOUT - 1)
    assert not at.wire.out
    at.after(2)
    assert status(at) == b"504" and at.arms[0].wire.aborted
    at.send(GET)
    assert at.wire.out.count(b"HTTP/1.1 ") == 2, "the visitor's connection goes on"


@pytest.mark.parametrize(("ask", "said"), [(UPGRADE, SWITCH), (GET, EVENTS)], ids=["WebSocket", "events"])
def test_streams_stay_for_as_long_as_both_sides_like(ask: bytes, said: bytes) -> None:
    at = table(said)
    at.send(ask)
    for _ in range(48):
        at.after(HOUR)
    assert not at.wire.closing and not at.arms[0].wire.closing
    at.arms[0].upstream.data_received(b"2\r\nhi\r\n")
    assert at.wire.out.endswith(b"2\r\nhi\r\n")


@pytest.mark.parametrize(("ask", "said"), [(UPGRADE, SWITCH), (GET, EVENTS)], ids=["WebSocket", "events"])
def test_who_takes_nothing_is_ended_and_so_is_the_app(ask: bytes, said: bytes) -> None:
    at = table(said)
    at.send(ask)
    at.visitor.pause_writing()
    at.after(STALL_TIMEOUT - 1)
    assert at.arms[0].wire.paused and not at.wire.closing
    at.after(2)
    assert at.wire.aborted and at.arms[0].wire.closing


def test_who_takes_again_in_time_goes_on() -> None:
    at = table(EVENTS)
    at.send(GET)
    at.visitor.pause_writing()
    at.after(STALL_TIMEOUT - 1)
    at.visitor.resume_writing()
    at.after(HOUR)
    assert not at.wire.closing and not at.arms[0].wire.paused


def test_an_app_that_takes_nothing_stops_the_visitor() -> None:
    at = table(b"")
    at.send(b"POST / HTTP/1.1\r\n" + HOST + b"Content-Length: 1000000\r\n\r\nhello")
    at.arms[0].upstream.pause_writing()
    assert at.wire.paused
    at.arms[0].upstream.resume_writing()
    assert not at.wire.paused


def test_an_unwanted_body_is_not_read_for_ever() -> None:
    at = table()
    at.send(b"POST / HTTP/1.1\r\nHost: secret.localhost\r\nContent-Length: 99999999\r\n\r\n")
    assert status(at) == b"401" and not at.wire.closing
    for _ in range(MAX_LINGER // 100_000 + 1):
        at.send(b"x" * 100_000)
    assert at.wire.aborted


def test_requests_that_are_sent_ahead_wait_outside() -> None:
    """A visitor that pipelines without end fills its own socket, not our memory."""
    at = table(b"")
    at.send(GET)
    for _ in range(20):
        at.send(GET * 100)
        if at.wire.paused:
            break
    assert at.wire.paused and len(at.visitor._buffer) < 200_000


def test_who_leaves_takes_the_app_s_exchange_along() -> None:
    for said in (b"", EVENTS, SWITCH):
        at = table(said)
        at.send(UPGRADE)
        at.leave()
        assert at.arms[0].wire.closing
        assert not at.edge.deadlines.members
