"""What a client may say in a request head, and what of it goes on to a VM."""
from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ussycode.doors.edge.fields import CHUNKED, Refused, trailer_allowed
from ussycode.doors.edge.head import outgoing, parse


def head(*lines: str, first: str = "GET / HTTP/1.1", host: str = "Host: demo.localhost") -> bytes:
    return "\r\n".join([first, *([host] if host else []), *lines]).encode("latin-1")


def sent_on(*lines: str, first: str = "GET / HTTP/1.1") -> str:
    return outgoing(parse(head(*lines, first=first)), b"X-Ussycode-Email: real@example.org\r\n\r\n", False).decode()


SPOOFED = [
    "X-Ussycode-Email", "x-ussycode-email", "X_Ussycode_Email", "X-Ussycode_Email", "X-USSYCODE-USERID",
    "X-Ussycode-Anything", "X-ExeDev-Email", "x_exedev_userid", "X.Ussycode.Email", "X-Forwarded-For",
    "X-Forwarded-Email", "X_Forwarded_For", "Forwarded", "X-Real-IP", "X_Real_Ip", "Proxy", "Proxy-Authorization",
    "X-Request-Id", "X-Original-URL", "X-Rewrite-URL",
]


@pytest.mark.parametrize("name", SPOOFED)
def test_nobody_can_claim_an_identity_or_a_route(name: str) -> None:
    assert "evil" not in sent_on(f"{name}: evil")


def test_naming_our_header_in_connection_does_not_remove_it() -> None:
    out = sent_on("Connection: X-Ussycode-Email, close, Cookie, Host", "Cookie: a=1")
    assert "X-Ussycode-Email: real@example.org" in out
    assert "Connection" not in out and "Host: demo.localhost" in out


def test_headers_named_in_connection_stay_here() -> None:
    assert "secret" not in sent_on("X-Hop: secret", "Connection: close, x-hop")


def test_hop_by_hop_headers_stay_here() -> None:
    out = sent_on("Keep-Alive: timeout=5", "TE: trailers", "Proxy-Connection: keep-alive", "HTTP2-Settings: AAA")
    assert out.split("\r\n")[:2] == ["GET / HTTP/1.1", "Host: demo.localhost"]
    assert "Keep-Alive" not in out and "TE:" not in out and "HTTP2" not in out


def test_other_headers_travel_as_they_are() -> None:
    assert "x-Custom:  spaced  value\r\n" in sent_on("x-Custom:  spaced  value")


@pytest.mark.parametrize(("sent", "kept"), [
    ("__Host-ussycode=abcdefghijklmnop", ""),
    ("a=1; __Host-ussycode=abcdefghijklmnop; b=2", "Cookie: a=1; b=2"),
    ("__Host-ussycode=abcdefghijklmnop; b=2", "Cookie: b=2"),
    ("a=1;__Host-ussycode=abcdefghijklmnop", "Cookie: a=1"),
    ("__Host-ussycode=x; __Host-ussycode=abcdefghijklmnop", ""),
    ("my__Host-ussycode=kept", "Cookie: my__Host-ussycode=kept"),
])
def test_the_session_never_reaches_a_vm(sent: str, kept: str) -> None:
    out = sent_on(f"Cookie: {sent}")
    assert [line for line in out.split("\r\n") if line.startswith("Cookie")] == ([kept] if kept else [])


def test_the_platform_itself_sees_the_session() -> None:
    request = parse(head("Cookie: __Host-ussycode=abcdefghijklmnop"))
    assert b"__Host-ussycode=abcdefghijklmnop" in outgoing(request, b"\r\n", True)
    assert request.session == b"abcdefghijklmnop"


def test_two_cookie_headers_become_one() -> None:
    assert "Cookie: a=1; b=2\r\n" in sent_on("Cookie: a=1", "Cookie: __Host-ussycode=abcdefghijklmnop; b=2")


AMBIGUOUS = {
    "length and chunks": head("Content-Length: 3", "Transfer-Encoding: chunked"),
    "chunks and length": head("Transfer-Encoding: chunked", "Content-Length: 3"),
    "two lengths": head("Content-Length: 3", "Content-Length: 4"),
    "two equal lengths": head("Content-Length: 3", "Content-Length: 3"),
    "list of lengths": head("Content-Length: 3, 3"),
    "signed length": head("Content-Length: +3"),
    "hex length": head("Content-Length: 0x3"),
    "endless length": head("Content-Length: 99999999999999999999"),
    "superscript length": head("Content-Length: \xb2"),
    "two hosts": head("Host: other.localhost"),
    "no host": head(host=""),
    "empty host": head(host="Host:"),
    "host with path": head(host="Host: demo.localhost/x"),
    "host with user": head(host="Host: a@demo.localhost"),
    "host list": head(host="Host: demo.localhost, evil"),
    "folded header": head("A: b", " c"),
    "space before colon": head("Content-Length : 3"),
    "no colon": head("nonsense"),
    "empty name": head(": x"),
    "nul": head("A: b\0c"),
    "bare cr": head("A: b\rc"),
    "bare lf": head("A: b\nContent-Length: 3"),
    "delete": head("A: \x7f"),
    "two codings": head("Transfer-Encoding: chunked", "Transfer-Encoding: chunked"),
    "unknown coding": head("Transfer-Encoding: gzip, chunked"),
    "vertical tab coding": head("Transfer-Encoding: \x0bchunked"),
    "chunks in 1.0": head("Transfer-Encoding: chunked", first="POST / HTTP/1.0"),
    "absolute form": head(first="GET https://demo.localhost/ HTTP/1.1"),
    "authority form": head(first="GET demo.localhost:80 HTTP/1.1"),
    "star": head(first="GET * HTTP/1.1"),
    "two spaces": head(first="GET  / HTTP/1.1"),
    "tab": head(first="GET\t/ HTTP/1.1"),
    "space in target": head(first="GET /a b HTTP/1.1"),
    "control in target": head(first="GET /\x01 HTTP/1.1"),
    "http 2": head(first="GET / HTTP/2.0"),
    "http 1.2": head(first="GET / HTTP/1.2"),
    "no version": head(first="GET /"),
    "empty": b"",
    "leading line": b"\r\n" + head(),
}


@pytest.mark.parametrize("raw", AMBIGUOUS.values(), ids=AMBIGUOUS.keys())
def test_what_could_be_read_in_two_ways_is_refused(raw: bytes) -> None:
    with pytest.raises(Refused) as refused:
        parse(raw)
    assert refused.value.status == 400


@pytest.mark.parametrize(("raw", "status"), [
    (head(*[f"A{i}: b" for i in range(100)]), 431),
    (head(first="TRACE / HTTP/1.1"), 405),
    (head("Expect: 200-ok"), 417),
])
def test_what_is_not_served_says_so(raw: bytes, status: int) -> None:
    with pytest.raises(Refused) as refused:
        parse(raw)
    assert refused.value.status == status


def test_underscored_framing_is_dropped_not_believed() -> None:
    request = parse(head("Content_Length: 5", "Transfer_Encoding: chunked"))
    assert request.length is None and b"ontent" not in outgoing(request, b"\r\n", False)


def test_lengths_and_chunks() -> None:
    assert parse(head("Content-Length: 5")).length == 5
    assert parse(head("transfer-encoding: Chunked")).length == CHUNKED


@pytest.mark.parametrize("upgrade", ["h2c", "H2C", "HTTP/2.0", "TLS/1.3", "websocket, h2c"])
def test_no_tunnel_that_could_carry_requests_past_the_edge(upgrade: str) -> None:
    assert "Upgrade" not in sent_on("Connection: Upgrade", f"Upgrade: {upgrade}")


def test_a_websocket_is_asked_for_in_full() -> None:
    out = sent_on("Connection: keep-alive, Upgrade", "Upgrade: websocket", "Sec-WebSocket-Key: x")
    assert "Connection: Upgrade\r\nUpgrade: websocket" in out and "Sec-WebSocket-Key: x" in out


def test_no_tunnel_with_a_body_or_without_asking() -> None:
    assert "Upgrade" not in sent_on("Connection: Upgrade", "Upgrade: websocket", "Content-Length: 3")
    assert "Upgrade" not in sent_on("Upgrade: websocket")


@pytest.mark.parametrize(("line", "allowed"), [
    (b"X-Checksum: 1", True), (b"X-Ussycode-Email: evil", False), (b"Content-Length: 1", False),
    (b"Cookie: a=1", False), (b"X_Ussycode_Email: evil", False),
])
def test_trailers_obey_the_same_rule(line: bytes, allowed: bool) -> None:
    assert trailer_allowed(line) is allowed


@given(st.binary(max_size=300))
def test_no_bytes_do_anything_but_be_read_or_refused(raw: bytes) -> None:
    try:
        request = parse(raw)
    except Refused:
        return
    assert request.target.startswith((b"/", b"*"))
