"""What hostile or broken apps answer. The visitor behind the same connection must not be touched by it."""
from __future__ import annotations

from dataclasses import dataclass

OK = "HTTP/1.1 200 OK"


@dataclass(frozen=True)
class Trick:
    """Raw bytes that an app answers with, and what the visitor must see of them.

    `status` is what the visitor reads. When it is `whole`, the body is `body` and the next request on the visitor's
    connection, to another VM, is answered by that VM. Otherwise the connection ends inside the body, so that the
    visitor can tell.
    """

    name: str
    raw: bytes
    status: int = 502
    body: bytes | None = None
    whole: bool = True
    method: str = "GET"
    hangs_up: bool = False
    """The app closes behind it; otherwise it keeps the connection and its mouth shut."""
    lacks: tuple[bytes, ...] = ()
    """What the visitor must not get, in lower case."""

    @property
    def is_refused(self) -> bool:
        """The visitor hears of the app's mistake instead of its words."""
        return self.status == 502


def text(first: str, *lines: str, body: str = "") -> bytes:
    """A response; characters up to U+00FF stand for their byte."""
    return "\r\n".join([first, *lines, "", body]).encode("latin-1")


def bad(name: str, *lines: str, first: str = OK, body: str = "ok", hangs_up: bool = False) -> Trick:
    """One that is answered with 502."""
    return Trick(name, text(first, *lines, body=body), hangs_up=hangs_up)


def good(name: str, *lines: str, first: str = OK, status: int = 200, body: str = "ok", reads: str = "ok",
         lacks: tuple[str, ...] = (), method: str = "GET", hangs_up: bool = False) -> Trick:
    """One of which something sound can be made."""
    sent = text(first, *lines, body=body)
    return Trick(name, sent, status, reads.encode(), True, method, hangs_up, tuple(n.encode() for n in lacks))


def short(name: str, *lines: str, body: str, hangs_up: bool = False) -> Trick:
    """One whose body breaks."""
    return Trick(name, text(OK, *lines, body=body), 200, None, False, hangs_up=hangs_up)


EARLY = "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"
FORGED = "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nforged"
CHUNKS = "2\r\nok\r\n0\r\n\r\n"

HEADS = (
    *(bad(f"status line {first!r}", "Content-Length: 2", first=first) for first in (
        "200 OK", "HTTP/2 200 OK", "HTTP/0.9 200 OK", "HTTP/1.2 200 OK", "ICY 200 OK", "HTTP/1.1  200 OK",
        "HTTP/1.1 20", "HTTP/1.1 2000", "HTTP/1.1 999 No", "HTTP/1.1 600 No", "HTTP/1.1 099 No", "HTTP/1.1 +20 OK",
        "http/1.1 200 OK",
        "\r\nHTTP/1.1 200 OK", "HTTP/1.1 200 OK\0", "HTTP/1.1 200 O\rK", "HTTP/1.1 200OK", " HTTP/1.1 200 OK",
    )),
    *(bad(f"header {line!r}", line, "Content-Length: 2") for line in (
        "A: b\nC: d", "A: b\rC: d", "A: b\0", "A : b", "A: b\r\n c", "nonsense", ": b", "A: \x7f", "A\xe4: b", "(a): b",
        "Set-Cookie: a=1\n__Host-ussycode=x",
    )),
    bad("a banner of SSH", first="SSH-2.0-OpenSSH_9.2"),
    Trick("a banner without an empty line", b"SSH-2.0-OpenSSH_9.2\r\n"),
    Trick("a banner of mail", b"220 mail.example ESMTP\r\n"),
    Trick("bare line feeds only", b"HTTP/1.1 200 OK\nContent-Length: 2\n\nok"),
    Trick("half a head", b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n", hangs_up=True),
    Trick("nothing", b"", hangs_up=True),
    Trick("a head without an end", b"HTTP/1.1 200 OK\r\nA: " + b"a" * 70_000),
    Trick("headers without an end", b"HTTP/1.1 200 OK\r\n" + b"A: b\r\n" * 20_000),
    Trick("HTTP/0.9", b"<html>hello</html>", hangs_up=True),
)

LENGTHS = (
    *(bad(f"CL {value!r}", f"Content-Length: {value}") for value in (
        "-2", "+2", "2, 2", "2,3", "0x2", "2.0", "", "two", "\xb2", "1_0", "9" * 19, "2 2",
    )),
    bad("two lengths", "Content-Length: 2", "Content-Length: 3"),
    bad("CL.TE", "Content-Length: 2", "Transfer-Encoding: chunked", body=CHUNKS),
    bad("TE.CL", "Transfer-Encoding: chunked", "Content-Length: 2", body=CHUNKS),
    *(bad(f"TE {value!r}", f"Transfer-Encoding: {value}", body=CHUNKS) for value in (
        "gzip", "gzip, chunked", "chunked, chunked", "identity", "", "xchunked", "chunked\x0b", '"chunked"',
    )),
    bad("TE twice", "Transfer-Encoding: chunked", "Transfer-Encoding: chunked", body=CHUNKS),
    bad("TE in HTTP/1.0", "Transfer-Encoding: chunked", first="HTTP/1.0 200 OK", body=CHUNKS),
    good("equal lengths twice", "Content-Length: 2", "Content-Length: 2"),
    good("a length named as a hop header", "Content-Length: 2", "Connection: content-length"),
    good("chunks", "Transfer-Encoding: chunked", body=CHUNKS),
    good("more than the length", "Content-Length: 2", body="ok" + FORGED, lacks=("forged",)),
    good("more than the last chunk", "Transfer-Encoding: chunked", body=CHUNKS + FORGED, lacks=("forged",)),
    short("less than the length", "Content-Length: 5", body="ok", hangs_up=True),
    short("no last chunk", "Transfer-Encoding: chunked", body="2\r\nok\r\n", hangs_up=True),
    *(bad(f"chunk size {size!r:.20}", "Transfer-Encoding: chunked", body=f"2\r\nok\r\n{size}\r\nok\r\n0\r\n\r\n")
      for size in ("-2", "0x2", "", "2 ", "+2", "f" * 16, "2;\n", "2;\0", "G", "2;" + "a" * 5000)),
    bad("a chunk longer than said", "Transfer-Encoding: chunked", body="2\r\nok\r\n2\r\nok!\r\n0\r\n\r\n"),
    bad("a bad trailer", "Transfer-Encoding: chunked", body="2\r\nok\r\n0\r\nbad trailer\r\n\r\n"),
    bad("endless trailers", "Transfer-Encoding: chunked", body="2\r\nok\r\n0\r\n" + "A: b\r\n" * 3000 + "\r\n"),
    short("a bad chunk behind a long one", "Transfer-Encoding: chunked", body=f"200000\r\n{'a' * 0x200000}\r\nG\r\n"),
    good("trailers that would sign in or frame", "Transfer-Encoding: chunked", body=(
        "2\r\nok\r\n0\r\nSet-Cookie: __Host-ussycode=evil\r\nContent-Length: 9\r\nX-Request-Id: evil\r\nA: b\r\n\r\n"
    ), lacks=("evil", "content-length")),
)

WITHOUT_BODY = (
    good("204 with a body", "Content-Length: 6", first="HTTP/1.1 204 No Content", status=204, body="forged", reads="",
         lacks=("forged", "content-length")),
    good("204 in chunks", "Transfer-Encoding: chunked", first="HTTP/1.1 204 No Content", status=204, body=CHUNKS,
         reads="", lacks=("transfer-encoding", "ok\r\n0")),
    good("304 with a body", "Content-Length: 6", first="HTTP/1.1 304 Not Modified", status=304, body="forged", reads="",
         lacks=("forged",)),
    good("304 in chunks", "Transfer-Encoding: chunked", first="HTTP/1.1 304 Not Modified", status=304, body=CHUNKS,
         reads="", lacks=("2\r\nok",)),
    good("HEAD with a body", "Content-Length: 6", body="forged", reads="", lacks=("forged",), method="HEAD"),
    good("HEAD in chunks", "Transfer-Encoding: chunked", body=CHUNKS, reads="", lacks=("2\r\nok",), method="HEAD"),
    good("HEAD with a whole response as body", "Content-Length: 9", body=FORGED, reads="", lacks=("forged",),
         method="HEAD"),
)

INTERIM = (
    good("early hints", "Content-Length: 2", first=EARLY + OK),
    good("early hints in chunks", "Content-Length: 2", lacks=("transfer-encoding", "content-length: 9"),
          first="HTTP/1.1 103 E\r\nTransfer-Encoding: chunked\r\n\r\nHTTP/1.1 103 E\r\nContent-Length: 9\r\n\r\n" + OK),
    good("a hundred unasked", "Content-Length: 2", first="HTTP/1.1 100 Continue\r\n\r\n" + OK),
    bad("a flood of early hints", first=EARLY * 17 + OK),
    bad("a change of protocol that nobody asked for", "Upgrade: x", "Connection: upgrade", body=FORGED,
        first="HTTP/1.1 101 Switching Protocols"),
    Trick("early hints and no more", EARLY.encode(), hangs_up=True),
)

HEADERS = (
    good("the session, in many spellings", *(f"{name}: {value}" for name in ("Set-Cookie", "set-cookie", "Set_Cookie")
         for value in ("__Host-ussycode=evil", "__HOST-USSYCODE=evil", "\t__Host-ussycode \t=evil",
                       "=__Host-ussycode=evil", "= \t=__Host-ussycode=evil", "__Host-ussycode; evil")),
         "Content-Length: 2", lacks=("evil",)),
    good("what the edge says itself", "X-Request-Id: evil", "x_request_id: evil", "X-Ussycode-Degraded: evil",
         "Keep-Alive: evil", "Proxy-Authenticate: evil", "Content-Length: 2", lacks=("evil",)),
    good("hop headers", "Connection: X-Hop, close", "X-Hop: evil", "Content-Length: 2", lacks=("evil",)),
    good("cookies of every host cleared", 'Clear-Site-Data: "cache", "cookies"', 'clear-site-data: "*"',
         "Content-Length: 2", lacks=("clear-site-data",)),
    good("an old server's body until the end", first="HTTP/1.0 200 OK", hangs_up=True),
)

TRICKS: tuple[Trick, ...] = (*HEADS, *LENGTHS, *WITHOUT_BODY, *INTERIM, *HEADERS)
assert len({t.name for t in TRICKS}) == len(TRICKS)
