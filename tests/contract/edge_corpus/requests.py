"""Requests by hostile clients. Names say what another program might take them for."""
from __future__ import annotations

from tests.contract.edge_corpus.attack import AFTER, HOST, SMUGGLED, Attack, passed, refused, text

GET = "GET / HTTP/1.1"
CHUNKS = "5\r\nhello\r\n0\r\n\r\n"

LENGTH_AND_CHUNKS = (
    refused("CL.TE", "Content-Length: 6", "Transfer-Encoding: chunked", body="0\r\n\r\nX"),
    refused("TE.CL", "Transfer-Encoding: chunked", "Content-Length: 4", body="5c\r\nGET /smuggled HTTP/1.1\r\n"),
    refused("CL.TE agreeing", "Content-Length: 15", "Transfer-Encoding: chunked", body=CHUNKS),
    refused("CL 0 and TE", "Content-Length: 0", "Transfer-Encoding: chunked", body=CHUNKS),
    refused("TE in HTTP/1.0", "Transfer-Encoding: chunked", first="POST / HTTP/1.0", body=CHUNKS),
    refused("TE in a GET with CL", "Transfer-Encoding: chunked", "Content-Length: 3", first=GET, body="0\r\n\r\n"),
)

ENCODINGS = (
    *(refused(f"TE: {value!r}", f"Transfer-Encoding: {value}", body=CHUNKS) for value in (
        "xchunked", "chunkedx", "chunked, identity", "identity, chunked", "identity", "gzip, chunked",
        "chunked, chunked", "", '"chunked"', "'chunked'", "chunked;q=1", "chunked;", ",chunked", "chunked,",
        "\x0bchunked", "chunked\x0b", "\0chunked", "\x7fchunked", "\xa0chunked", "ch\xfcnked", "cow", "chunk",
        "[chunked]",
        "chunked\tx",
    )),
    refused("TE twice", "Transfer-Encoding: chunked", "Transfer-Encoding: chunked", body=CHUNKS),
    refused("TE twice, one bogus", "Transfer-Encoding: chunked", "Transfer-Encoding: cow", body=CHUNKS),
    refused("TE twice, bogus first", "Transfer-Encoding: cow", "Transfer-Encoding: chunked", body=CHUNKS),
    refused("TE with a space before its colon", "Transfer-Encoding : chunked", body=CHUNKS),
    refused("TE with a tab before its colon", "Transfer-Encoding\t: chunked", body=CHUNKS),
    refused("TE with a line break before its colon", "Transfer-Encoding\r\n: chunked", body=CHUNKS),
    refused("TE behind a space", " Transfer-Encoding: chunked", body=CHUNKS),
    refused("TE behind a tab", "\tTransfer-Encoding: chunked", body=CHUNKS),
    refused("TE folded", "Transfer-Encoding:", " chunked", body=CHUNKS),
    refused("TE folded behind CL", "Content-Length: 5", "Transfer-Encoding:", "\tchunked", body=CHUNKS),
    refused("TE behind a bare line feed", "A: b\nTransfer-Encoding: chunked", body=CHUNKS),
    refused("TE behind a bare carriage return", "A: b\rTransfer-Encoding: chunked", body=CHUNKS),
    refused("TE with a high byte in its name", "Transfer-Encoding\xff: chunked", body=CHUNKS),
    refused("TE with a soft hyphen", "Transfer\xadEncoding: chunked", body=CHUNKS),
    refused("TE in brackets", "[Transfer-Encoding]: chunked", body=CHUNKS),
    refused("TE with a NUL in its name", "Transfer-Encoding\0: chunked", body=CHUNKS),
    passed("TE in odd case", "tRANSFER-eNCODING: cHuNkEd", body=CHUNKS, reads="hello",
           has=("\r\ntransfer-encoding: chunked\r\n",)),
    passed("TE behind a tab in its value", "Transfer-Encoding:\tchunked \t", body=CHUNKS, reads="hello",
           has=("\r\ntransfer-encoding: chunked\r\n",)),
    passed("TE with an underscore, and CL", "Transfer_Encoding: chunked", "Content-Length: 5", body="hello",
           lacks=("chunked", "transfer_")),
    passed("TE with a dot, and CL", "Transfer.Encoding: chunked", "Content-Length: 5", body="hello",
           lacks=("chunked", "transfer.")),
    passed("TE named as a hop header", "Connection: transfer-encoding", "Transfer-Encoding: chunked", body=CHUNKS,
           reads="hello", has=("\r\ntransfer-encoding: chunked\r\n",), lacks=("connection",)),
    passed("TE header of the hop", "TE: chunked", "Content-Length: 5", body="hello", lacks=("te:",)),
    passed("chunked as content coding", "Content-Encoding: chunked", "Content-Length: 5", body="hello",
           has=("content-encoding: chunked",)),
)

LENGTHS = (
    *(refused(f"CL: {value!r}", f"Content-Length: {value}", body="hello") for value in (
        "+5", "-5", "-0", "5 5", "5,5", "5, 5", "5,6", "5;", "0x5", "5.0", "5e0", "1_0", "", " ", "\xb2", "five",
        "5\x0b", "\x0b5", "5\0", "99999999999999999999", "18446744073709551621", "0" * 16 + "5", "\u00b5",
    )),
    refused("CL twice", "Content-Length: 5", "Content-Length: 0", body="hello"),
    refused("CL twice, zero first", "Content-Length: 0", "Content-Length: 5", body="hello"),
    refused("CL twice, equal", "Content-Length: 5", "Content-Length: 5", body="hello"),
    refused("CL twice, one in odd case", "Content-Length: 5", "cONTENT-lENGTH: 0", body="hello"),
    refused("CL with a space before its colon", "Content-Length : 5", body="hello"),
    refused("CL folded", "Content-Length: 5", " 5", body="hello"),
    refused("CL behind a fold", "A: b", " Content-Length: 5", body="hello"),
    passed("CL with zeros", "Content-Length: 0005", body="hello", has=("\r\ncontent-length: 5\r\n",)),
    passed("CL in white space", "Content-Length: \t 5 \t", body="hello", has=("\r\ncontent-length: 5\r\n",)),
    passed("CL with an underscore", "Content_Length: 3", "Content-Length: 5", body="hello", lacks=("content_length",)),
    passed("CL only with an underscore", "Content_Length: 5", body="", lacks=("length",)),
    passed("CL named as a hop header", "Connection: Content-Length", "Content-Length: 5", body="hello",
           has=("\r\ncontent-length: 5\r\n",), lacks=("connection",)),
    passed("body of a GET", "Content-Length: 5", first=GET, body="hello", has=("content-length: 5",)),
    passed("request in a body", f"Content-Length: {len(SMUGGLED)}", body=SMUGGLED),
    passed("request in a chunk", "Transfer-Encoding: chunked", body=f"{len(SMUGGLED):x}\r\n{SMUGGLED}\r\n0\r\n\r\n",
           reads=SMUGGLED),
    passed("no body", "Content-Length: 0", body=""),
)

CHUNK = (
    *(refused(f"chunk size {size!r}", "Transfer-Encoding: chunked", body=f"{size}\r\nhello\r\n0\r\n\r\n") for size in (
        "+5", "-5", "0x5", "5_", "0_5", "5 ", "5\t", " 5", "", "G", "5h", "5\0", "5\x0b", "5\xa0", "ffffffffffffffff",
        "10000000000000005", "fffffffffffffffffffffffffffffffb", "5\r", "5;a\rb", "5;\0", "5;a\x7f", "5,", "05 5",
    )),
    refused("chunk ended by a line feed", "Transfer-Encoding: chunked", body="5\nhello\r\n0\r\n\r\n"),
    refused("chunk size ended by a line feed in its extension", "Transfer-Encoding: chunked",
            body="5;\nhello\r\n0\r\n\r\n"),
    refused("chunk extension that hides a line feed", "Transfer-Encoding: chunked",
            body="2;\nxx\r\n50\r\n0\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: x\r\n\r\n"),
    refused("chunk data ended by a line feed", "Transfer-Encoding: chunked", body="5\r\nhello\n0\r\n\r\n"),
    refused("chunk data ended by two bytes that are no line end", "Transfer-Encoding: chunked",
            body="5\r\nhelloXX0\r\n\r\n"),
    refused("chunk longer than said", "Transfer-Encoding: chunked", body="4\r\nhello\r\n0\r\n\r\n"),
    refused("chunk shorter than said", "Transfer-Encoding: chunked", body="6\r\nhello\r\n0\r\n\r\n"),
    refused("endless chunk size line", "Transfer-Encoding: chunked", body="5" + "0" * 5000 + "\r\n"),
    refused("endless chunk extension", "Transfer-Encoding: chunked", body="5;" + "a" * 5000 + "\r\nhello\r\n0\r\n\r\n"),
    refused("last chunk without its empty line", "Transfer-Encoding: chunked", body="0\r\n"),
    refused("last chunk with a signed zero", "Transfer-Encoding: chunked", body="-0\r\n\r\n"),
    refused("folded trailer", "Transfer-Encoding: chunked", body="0\r\nA: b\r\n c\r\n\r\n"),
    refused("trailer without a colon", "Transfer-Encoding: chunked", body="0\r\nnonsense\r\n\r\n"),
    refused("trailer with a bare line feed", "Transfer-Encoding: chunked", body="0\r\nA: b\nC: d\r\n\r\n"),
    refused("endless trailers", "Transfer-Encoding: chunked", body="0\r\n" + "A: b\r\n" * 3000 + "\r\n"),
    passed("many zeros as last chunk", "Transfer-Encoding: chunked", body="5\r\nhello\r\n000\r\n\r\n", reads="hello"),
    passed("zeros in front of a size", "Transfer-Encoding: chunked", body="000005\r\nhello\r\n0\r\n\r\n",
           reads="hello"),
    passed("chunk extension", "Transfer-Encoding: chunked", body='5;a="b"\r\nhello\r\n0;x\r\n\r\n', reads="hello"),
    passed("trailers that would frame, route or identify", "Transfer-Encoding: chunked", reads="hello", body=(
        "5\r\nhello\r\n0\r\nContent-Length: 9\r\nTransfer-Encoding: chunked\r\nHost: evil\r\nX-Ussycode-Email: evil\r\n"
        "Cookie: evil=1\r\nAuthorization: evil\r\nX_Ussycode_UserID: evil\r\nConnection: close\r\nX-Sum: kept\r\n\r\n"
    ), has=("x-sum: kept",), lacks=("evil", "content-length")),
)

LINES = (
    refused("bare line feeds only", first=f"GET / HTTP/1.1\nHost: {HOST}\n\nGET /smuggled HTTP/1.1\n", host=""),
    refused("empty line of a bare line feed", "A: b\n", first=GET),
    refused("bare line feed in a value", "A: b\nB: c", first=GET),
    refused("bare carriage return in a value", "A: b\rB: c", first=GET),
    refused("bare carriage returns as line ends", "A: b\r\rGET /smuggled HTTP/1.1\r\r", first=GET),
    refused("NUL in a value", "A: b\0c", first=GET),
    refused("NUL in a name", "A\0: b", first=GET),
    refused("NUL in the target", first="GET /\0 HTTP/1.1"),
    refused("DEL in a value", "A: \x7f", first=GET),
    refused("escape in a value", "A: \x1b[31m", first=GET),
    refused("folded value", "A: b", " c", first=GET),
    refused("first header folded", " A: b", first=GET, host=""),
    refused("space before a colon", "A : b", first=GET),
    refused("no colon", "nonsense", first=GET),
    refused("empty name", ": b", first=GET),
    refused("name with a high byte", "\xc4: b", first=GET),
    refused("name with a slash", "a/b: c", first=GET),
    refused("name in brackets", "(a): b", first=GET),
    refused("empty line first", first="\r\nGET / HTTP/1.1"),
    refused("space first", first=" GET / HTTP/1.1"),
    refused("two spaces", first="GET  / HTTP/1.1"),
    refused("tab", first="GET\t/\tHTTP/1.1"),
    refused("vertical tab", first="GET\x0b/ HTTP/1.1"),
    refused("space behind the version", first="GET / HTTP/1.1 "),
    refused("space in the target", first="GET /a b HTTP/1.1"),
    refused("high byte in the target", first="GET /\xe4 HTTP/1.1"),
    refused("no version", first="GET /"),
    refused("HTTP/0.9", first="GET / HTTP/0.9"),
    refused("HTTP/1.2", first="GET / HTTP/1.2"),
    refused("HTTP/1.10", first="GET / HTTP/1.10"),
    refused("HTTP/01.1", first="GET / HTTP/01.1"),
    refused("http in lower case", first="GET / http/1.1"),
    refused("another protocol", first="GET / ICAP/1.0"),
    refused("preface of HTTP/2", first="PRI * HTTP/2.0", host=""),
    refused("method with a colon", first="GET: / HTTP/1.1"),
    refused("endless method", first="G" * 33 + " / HTTP/1.1"),
    refused("no method", first="/ HTTP/1.1"),
    refused("TLS inside TLS", first="\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", host=""),
    refused("a hundred and one headers", *(f"A{i}: b" for i in range(100)), first=GET, status=431),
    refused("a head without an end", "A: " + "a" * 40_000, first=GET, status=431),
    refused("a target without an end", first="GET /" + "a" * 40_000 + " HTTP/1.1", status=414),
    refused("CONNECT", first=f"CONNECT {HOST}:443 HTTP/1.1"),
    refused("CONNECT to a path", first="CONNECT / HTTP/1.1", status=405),
    refused("TRACE", first="TRACE / HTTP/1.1", status=405),
    refused("an expectation", "Expect: 200-ok", first=GET, status=417),
    refused("two expectations", "Expect: 100-continue, x", first=GET, status=417),
    passed("white space round a value", "A:\t b \t", first=GET, has=("\r\na:\t b \t\r\n",)),
    passed("an empty value", "A:", first=GET, has=("\r\na:\r\n",)),
    passed("a value of high bytes", "A: \xc3\xa4", first=GET),
    passed("expectation stated twice", "Expect: 100-continue", "expect: 100-Continue", "Content-Length: 5",
           body="hello", has=("\r\nexpect: 100-continue\r\n",)),
    passed("a method of one's own", first="PROPFIND / HTTP/1.1"),
)

TARGETS = (
    *(refused(f"target {target}", first=f"GET {target} HTTP/1.1") for target in (
        f"http://{HOST}/", f"https://{HOST}/", "http://secret.localhost/", "https://evil.example/", f"{HOST}:443", HOST,
        "*", "?x", "#x", "%2f", "\\", "http:/x", "javascript:alert(1)", "file:///etc/passwd", ".", "..",
        "@evil.example/",
    )),
    *(passed(f"target {target}", first=f"GET {target} HTTP/1.1", has=(f"get {target} http/1.1\r\n".lower(),))
      for target in (
        "//evil.example/", "/%0d%0aX-Ussycode-Email:%20evil", "/../../etc/passwd", "/%5f%5fussycode/login",
        "/__USSYCODE/login", "/x/__ussycode/login", "/__ussycodex", "/http://secret.localhost/", "/;x", "/?//", "/#x",
        "/%00", '/"<script>',
    )),
    passed("OPTIONS *", first="OPTIONS * HTTP/1.1", has=("options * http/1.1\r\n",)),
)

HOSTS = (
    *(refused(f"Host: {host!r}", first=GET, host=host) for host in (
        f"{HOST}, secret.localhost", f"a@{HOST}", f"a:b@{HOST}", f"{HOST}/", f"{HOST}/x", f"{HOST}?x", f"{HOST}#x",
        f"{HOST}\\", f"{HOST}:", f"{HOST}:x", f"{HOST}:-1", f"{HOST}:123456", f"{HOST}:1:2", f"{HOST} secret.localhost",
        f"{HOST}\tx", f"{HOST}\0", "op%65n.localhost", "\xf6pen.localhost", f"http://{HOST}", f"[{HOST}]", "[::1",
        f"{HOST};x", "-" * 254, f"{HOST}:\xb3", f"{HOST}:+1", "*.localhost", f"'{HOST}'",
    )),
    refused("no Host", first=GET, host=""),
    refused("no Host in HTTP/1.0", first="GET / HTTP/1.0", host=""),
    refused("empty Host", "Host:", first=GET, host=""),
    refused("two Hosts", f"Host: {HOST}", first=GET),
    refused("two Hosts, one a private VM's", "Host: secret.localhost", first=GET),
    refused("two Hosts, one empty", "Host:", first=GET),
    refused("empty Host first", "Host:", f"Host: {HOST}", first=GET, host=""),
    refused("two Hosts, one in odd case", "hOsT: secret.localhost", first=GET),
    refused("Host with a space before its colon", "Host : secret.localhost", first=GET),
    refused("Host behind a fold", " Host: secret.localhost", first=GET),
    *(Attack(f"Host: {host} is nothing", text(GET, host=host), 404, ends=False) for host in (
        f"{HOST}.", "localhost.", f"a.{HOST}", "127.0.0.1", "[::1]", "[::ffff:127.0.0.1]:443", "evil.example",
        "xn--open-.localhost", "localhost.evil.example", f"{HOST}.evil.example", "_.localhost", "a_b.localhost", "..",
        "2999--open.localhost", "10000--open.localhost", "3000--3001--open.localhost", ".localhost",
    )),
    passed("Host in upper case", "HOST: " + HOST.upper(), first=GET, host="", has=(f"\r\nhost: {HOST}\r\n",)),
    passed("Host without a space", f"Host:{HOST}", first=GET, host="", has=(f"\r\nhost: {HOST}\r\n",)),
    passed("Host with another port", first=GET, host=f"{HOST}:1", has=(f"\r\nhost: {HOST}:1\r\n",)),
    passed("Host with an underscored double", "Host_: secret.localhost", first=GET),
    passed("hosts of other headers", "X-Forwarded-Host: secret.localhost", "X-Host: secret.localhost",
           "X-Original-URL: /__ussycode/login", "X-Rewrite-Url: /x", "Forwarded: host=secret.localhost",
           "X_Forwarded_Host: secret.localhost", "X-Forwarded-Server: secret.localhost",
           first=GET, has=(f"x-forwarded-host: {HOST}\r\n", "x-host: secret.localhost"),
           lacks=("x-original-url", "x-rewrite-url", "\r\nforwarded", "x_forwarded", "x-forwarded-server")),
    passed("Host named as a hop header", "Connection: host", first=GET, has=(f"\r\nhost: {HOST}\r\n",)),
)

HEADERS = (
    passed("hop headers", "Connection: keep-alive, X-Hop, x-other", "X-Hop: secret", "X-OTHER: secret", "Keep-Alive: 5",
           "Proxy-Connection: close", "Proxy-Authorization: secret", "TE: trailers", "HTTP2-Settings: AAAA", first=GET,
           lacks=("secret", "connection", "keep-alive", "te:", "http2")),
    passed("hop headers in other spellings", "Connection: X_Hop", "X-Hop: secret", "X_Hop: secret", first=GET,
           lacks=("secret",)),
    passed("what the edge adds, named as hop headers", "Connection: X-Forwarded-For, X-Forwarded-Host,"
           " X-Forwarded-Proto, X-Request-Id, X-Ussycode-UserID, Cookie", "Cookie: app=1", first=GET,
           lacks=("connection",),
           has=("x-forwarded-for: ", "x-forwarded-host: ", "x-forwarded-proto: https", "x-request-id: req_")),
    passed("what only the edge may say", *(f"{name}: evil" for name in (
        "X-Ussycode-Email", "x-ussycode-userid", "X_Ussycode_Email", "X-Ussycode_Assertion", "X.Ussycode.Email",
        "X-Ussycode-New", "X-Exedev-Email", "x_exedev_userid", "X~Ussycode~Email", "X-Forwarded-For", "X_Forwarded_For",
        "X-Forwarded-Proto", "X-Real-IP", "X_Real_Ip", "X-Request-Id", "X_Request_Id", "Proxy", "Forwarded",
    )), first=GET, lacks=("evil",)),
    passed("the session in many spellings", "Cookie: a=1; __Host-ussycode=abcdefghijklmnopqrst; b=2",
           "cookie: __Host-ussycode=abcdefghijklmnopqrst", "COOKIE:__Host-ussycode=x;__Host-ussycode=y;c=3", first=GET,
           has=("\r\ncookie: a=1; b=2; c=3\r\n",), lacks=("__host",)),
    passed("a cookie header that frameworks fold", "Cookie_: x=1", first=GET),
    passed("a header that ends another in its value", "A: b%0d%0aX-Ussycode-Email: evil", first=GET,
           has=("\r\na: b%0d%0ax-ussycode-email: evil\r\n",)),
    refused("two Authorizations", "Authorization: a", "Authorization: b", first=GET),
)

UPGRADES = (
    *(passed(f"Upgrade: {value}", "Connection: Upgrade, HTTP2-Settings", f"Upgrade: {value}",
             "HTTP2-Settings: AAMAAABk", first=GET, lacks=("upgrade", "http2", "connection")) for value in (
        "h2c", "H2C", "h2", "HTTP/2.0", "http/1.1", "TLS/1.0", "websocket, h2c", "h2c, websocket", "h2c/1", "",
    )),
    passed("Upgrade twice", "Connection: upgrade", "Upgrade: websocket", "Upgrade: h2c", first=GET, lacks=("upgrade",)),
    passed("Upgrade without Connection", "Upgrade: websocket", first=GET, lacks=("upgrade",)),
    passed("Upgrade in a POST", "Connection: upgrade", "Upgrade: websocket", "Content-Length: 0", lacks=("upgrade",)),
    passed("Upgrade with a body", "Connection: upgrade", "Upgrade: websocket", "Content-Length: 5", first=GET,
           body="hello", lacks=("upgrade",)),
    # The app refuses: what follows is a request again, judged by itself.
    passed("a WebSocket of the wrong version", "Connection: Upgrade", "Upgrade: websocket",
           "Sec-WebSocket-Version: 777", "Sec-WebSocket-Key: x", first=GET, has=("\r\nupgrade: websocket\r\n",)),
)

PRIVATE = "GET /private HTTP/1.1\r\nHost: secret.localhost\r\n\r\n"
PIPELINES = (
    Attack("two at once", text(GET) * 2, 200, 2, 2, ends=False),
    Attack("a private VM behind a public one", text(GET) + PRIVATE.encode(), 200, 1, 2, ends=False),
    Attack("a private VM behind a refused WebSocket", text(
        "GET /refuses HTTP/1.1", "Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 777",
    ) + PRIVATE.encode(), 426, 1, 2, ends=False),
    Attack("more behind Connection: close", text(GET, "Connection: close"), 200, 1),
    Attack("more behind HTTP/1.0", text("GET / HTTP/1.0"), 200, 1),
    Attack("more behind HTTP/1.0 that wants to stay", text("GET / HTTP/1.0", "Connection: keep-alive"), 200, 1),
    Attack("close among other options", text(GET, "Connection: keep-alive, CLOSE"), 200, 1),
    Attack("a body and a request at once", text("POST / HTTP/1.1", "Content-Length: 5", body="hello") + text(GET),
           200, 2, 2, ends=False, body=b"hello"),
    Attack("a request in what is left of an unwanted body", text("POST /private HTTP/1.1", "Content-Length: 300000",
           host="secret.localhost", body=SMUGGLED), 401),
    Attack("garbage behind a request", text(GET) + b"\0\0\0\0\r\n\r\n", 200, 1, 2),
)

ATTACKS: tuple[Attack, ...] = (
    *LENGTH_AND_CHUNKS, *ENCODINGS, *LENGTHS, *CHUNK, *LINES, *TARGETS, *HOSTS, *HEADERS, *UPGRADES, *PIPELINES,
)
assert AFTER and len({a.name for a in ATTACKS}) == len(ATTACKS)
