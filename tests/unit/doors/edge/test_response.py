"""What an app may answer, and what the visitor gets of it."""
from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ussycode.doors.edge.framing import ByChunks, ByLength, Malformed, UntilClose
from ussycode.doors.edge.response import parse


def head(*lines: str, first: str = "HTTP/1.1 200 OK") -> bytes:
    return "\r\n".join([first, *lines]).encode("latin-1")


@pytest.mark.parametrize("raw", [
    head("Content-Length: 3", "Content-Length: 4"), head("Content-Length: -1"), head("Content-Length: 1,1"),
    head("Content-Length: 3", "Transfer-Encoding: chunked"), head("Transfer-Encoding: gzip"),
    head("Transfer-Encoding: chunked", "Transfer-Encoding: chunked"), head("A: b\nC: d"), head("A: b\0"),
    head("Transfer-Encoding: chunked", first="HTTP/1.0 200 OK"), head(first="HTTP/2 200"), head(first="200 OK"),
    head(first="HTTP/1.1 999 No"), head(" folded"), head("bad name: x"), b"",
])
def test_an_app_cannot_confuse_the_visitors_connection(raw: bytes) -> None:
    with pytest.raises(Malformed):
        parse(raw, from_platform=False)


def test_only_the_platform_sets_the_session() -> None:
    raw = head("Set-Cookie: __Host-ussycode=x; Secure", "set-cookie: __host-USSYCODE =y", "Set-Cookie: app=1")
    assert b"ussycode" not in parse(raw, False).outgoing(b"", False).lower()
    assert b"Set-Cookie: app=1" in parse(raw, False).outgoing(b"", False)
    assert b"__Host-ussycode=x" in parse(raw, True).outgoing(b"", False)


def test_matters_of_the_hop_and_of_the_edge_stay_here() -> None:
    raw = head("Connection: keep-alive, X-Hop", "Keep-Alive: timeout=5", "X-Hop: 1", "X-Request-Id: forged",
               "X-Ussycode-Degraded: forged", "Content-Length: 0")
    out = parse(raw, False).outgoing(b"X-Request-Id: ours\r\n", close=True)
    assert out == b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\nX-Request-Id: ours\r\n\r\n"


@pytest.mark.parametrize(("raw", "to_head", "kind"), [
    (head("Content-Length: 3"), False, ByLength), (head("Content-Length: 3"), True, ByLength),
    (head("Transfer-Encoding: chunked"), False, ByChunks), (head(), False, UntilClose),
    (head("Transfer-Encoding: chunked"), True, ByLength), (head(first="HTTP/1.1 304 Not Modified"), False, ByLength),
    (head(first="HTTP/1.0 200 OK"), False, UntilClose),
])
def test_where_the_body_ends(raw: bytes, to_head: bool, kind: type) -> None:
    assert type(parse(raw, False).framing(to_head)) is kind


def test_http_1_0_closes_unless_it_says_otherwise() -> None:
    assert parse(head(first="HTTP/1.0 200 OK"), False).close
    assert not parse(head("Connection: keep-alive", first="HTTP/1.0 200 OK"), False).close
    assert parse(head("Connection: close"), False).close


@given(st.binary(max_size=300))
def test_any_bytes_are_read_or_refused(raw: bytes) -> None:
    try:
        response = parse(raw, False)
    except Malformed:
        return
    assert 100 <= response.status < 600
