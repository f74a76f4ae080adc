"""What must hold for any bytes: never a crash or a hang, never a wrong allow, one reading only."""
from __future__ import annotations

import base64
import re
from collections.abc import Callable
from urllib.parse import urljoin, urlsplit

import h11

from tests.contract.edge_corpus.recorder import by_h11, by_the_sloppiest
from tests.fuzz import reference
from tests.fuzz.table import SESSION, Reached, Table
from ussycode.access.actions import Action
from ussycode.access.decide import decide
from ussycode.access.facts import NOBODY, Caller, Facts, Role, Via, VmFacts
from ussycode.base.errors import Failure
from ussycode.doors.edge import bearer, framing, pages, response
from ussycode.doors.edge.fields import FOLD, Refused, crumbs, trailer_allowed
from ussycode.doors.edge.head import Request, outgoing, parse
from ussycode.doors.edge.hosts import HostKind, Hosts
from ussycode.doors.web.asked import local_path
from ussycode.tokens import signed

FACTS = (
    b"X-Forwarded-For: 192.0.2.7\r\nX-Forwarded-Host: h\r\nX-Forwarded-Proto: https\r\nX-Request-Id: req_1\r\n"
    b"X-Ussycode-UserID: real\r\n\r\n"
)
OURS = (b"x-ussycode", b"x-exedev", b"x-forwarded", b"forwarded", b"x-real-ip", b"x-request-id", b"proxy",
        b"x-original-", b"x-rewrite-")
"""Folded beginnings of names that no client may put in front of an app."""
REWRITTEN = {
    b"host", b"cookie", b"content-length", b"transfer-encoding", b"authorization", b"connection", b"upgrade", b"expect",
}
"""Names that the edge writes itself, whatever Connection says of them."""
COOKIE = b"__Host-ussycode"
SPLIT = b"\xff\xfe\xff"
"""Between the parts of one input: 0xFF and 0xFE in this order are in no sensible request."""


def head(data: bytes) -> None:
    """A request head: what is served is read the same way by a second reader, and nothing forged goes on."""
    try:
        request = parse(data)
    except Refused as refused:
        assert 400 <= refused.status < 500
        return
    second = reference.head(data)  # raises when the edge serves what it must not
    assert (second.method, second.target, second.minor) == (request.method, request.target, int(request.modern))
    assert second.host == request.hostname
    assert (second.closes, bool(second.all(b"transfer-encoding"))) == (request.close, request.length == -1)
    if request.session is not None:
        assert request.session in second.cookies(COOKIE)
    if request.token is not None:
        request.token.decode("ascii")
    _sent(request, second)


def _sent(request: Request, second: reference.Request) -> None:
    out = outgoing(request, FACTS, for_platform=False)
    again = reference.head(out[:-4])
    assert (again.method, again.target, again.minor) == (second.method, second.target, second.minor)
    assert again.host == second.host
    assert again.all(b"content-length") == [str(int(v)).encode() for v in second.all(b"content-length")]
    assert again.all(b"transfer-encoding") == [v.lower() for v in second.all(b"transfer-encoding")]
    assert not again.cookies(COOKIE)
    assert out.endswith(FACTS)
    names = [line.partition(b":")[0].translate(FOLD) for line in out[: -len(FACTS)].split(b"\r\n")[1:-1]]
    assert not [n for n in names if n.startswith(OURS)], names
    hop = {part.strip(b" \t").translate(FOLD) for v in second.all(b"connection") for part in v.split(b",")}
    assert not [n for n in names if n in hop - REWRITTEN]
    for value in again.all(b"upgrade"):
        assert not value.lower().startswith((b"h2", b"http", b"tls")) and b"," not in value
    by_h11(out)


def answer(data: bytes) -> None:
    """An app's response head: sound for a strict client, and no session in it."""
    try:
        read = response.parse(data, from_platform=False)
    except framing.Malformed:
        return
    out = read.outgoing(b"X-Request-Id: req_1\r\n", close=False)
    assert out.endswith(b"\r\n\r\n") and out.count(b"\r\n\r\n") == 1
    lines = out[:-4].split(b"\r\n")
    for line in lines[1:]:
        name, colon, value = line.partition(b":")
        assert colon and re.fullmatch(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+", name)
        if name.lower() == b"set-cookie":
            crumbs = value.strip(b"= \t").lower()
            assert re.match(rb"__host-ussycode[ \t]*(=|;|$)", crumbs) is None, line
    names = [line.partition(b":")[0].lower() for line in lines[1:]]
    assert names.count(b"content-length") + names.count(b"transfer-encoding") <= 1
    assert names.count(b"x-request-id") == 1
    if read.status < 200 or read.status == 204:
        assert b"content-length" not in names and b"transfer-encoding" not in names


def chunks(data: bytes) -> None:
    """A chunked body cut anywhere ends at the same byte, and as the second reader has it."""
    if not data:
        return
    step, data = data[0] + 1, data[1:]
    whole, cut = _fed(data, len(data) or 1), _fed(data, step)
    assert whole == cut or (isinstance(whole, str) and isinstance(cut, str)), (whole, cut)
    try:
        second = reference.chunks(data)
    except reference.Wrong:
        assert not isinstance(cut, tuple) or not cut[2], data
        return
    if isinstance(cut, tuple) and cut[2]:
        assert second is not None and second[1] == cut[1]
        again = reference.chunks(cut[0])
        assert again is not None and again == (second[0], b"")


def _fed(data: bytes, step: int) -> tuple[bytes, bytes, bool] | str:
    body = framing.ByChunks(trailer_allowed)
    out = b""
    for at in range(0, len(data), step):
        try:
            own, rest = body.feed(data[at : at + step])
        except framing.Malformed:
            return "malformed"
        out += own
        if body.done:
            return out, rest + data[at + step :], True
    return b"", b"", False


def cookie(data: bytes) -> None:
    """A Cookie value: the session is one that a plain reader finds too, and is gone from what an app gets."""
    value = bytes(c for c in data if c >= 32 and c != 127)
    try:
        request = parse(b"GET / HTTP/1.1\r\nHost: h\r\nCookie: " + value)
    except Refused:
        return
    second = reference.head(b"GET / HTTP/1.1\r\nHost: h\r\nCookie: " + value)
    found = second.cookies(COOKIE)
    assert request.session is None or request.session in found
    spared = crumbs(value.strip(b" \t"))[1]
    assert COOKIE not in [pair.partition(b"=")[0].strip(b" \t") for pair in spared.split(b";") if b"=" in pair]
    pairs = [p.strip(b" \t") for p in value.split(b";")]
    others = [p for p in pairs if b"=" not in p or p.partition(b"=")[0].strip(b" \t") != COOKIE]
    kept = [p.strip(b" \t") for p in spared.split(b";")]
    assert [p for p in kept if p] == [p for p in others if p]


def host(data: bytes) -> None:
    """A host name: read in one way, and never taken for the platform or for a VM that it does not name."""
    try:
        request = parse(b"GET / HTTP/1.1\r\nHost: " + data)
    except Refused:
        return
    name = request.hostname.decode("ascii")
    assert name == name.lower() and not set(name) & set("/\\@ ?#%,;")
    target = Hosts("localhost").target(name)
    if target.kind is HostKind.PLATFORM:
        assert name == "localhost"
    elif target.kind is HostKind.VM:
        label = name.removesuffix(".localhost")
        assert "." not in label and label == (f"{target.port}--{target.name}" if target.port else target.name)
        assert re.fullmatch(r"[a-z][a-z0-9-]*", target.name) and (target.port is None or 3000 <= target.port <= 9999)


def token(data: bytes) -> None:
    """An Authorization value, and a token's text: found or not, refused or read, never anything else."""
    found = bearer.token_of(data)
    scheme, _, value = data.partition(b" ")
    if found is not None:
        assert re.match(rb"(usy|exe)[01]\.", found) and len(found) <= 8192
        plain = value.strip(b" \t")
        assert found == plain if scheme.lower() == b"bearer" else found in base64.b64decode(plain)
    for header in (b"Authorization", b"X-Ussycode-Authorization", b"X-ExeDev-Authorization"):
        value = bytes(c for c in data if c >= 32 and c != 127)
        try:
            request = parse(b"GET / HTTP/1.1\r\nHost: h\r\n" + header + b": " + value)
        except Refused:
            continue
        assert request.token is None or request.token.isascii()
        assert request.token is None or b"uthorization" not in outgoing(request, b"", for_platform=False)
    text = data.decode("latin-1")
    try:
        raw, blob = signed.parts(text)
        signed.read(blob, "v0@localhost")
        signed.payload(raw)
    except Failure:
        return


def redirect(data: bytes) -> None:
    """A place to go back to: on the same host, whoever reads the address."""
    text = data.decode("utf-8", "replace")
    for path in (text, "/" + text):
        kept = local_path(path)
        assert kept[0] == "/" and kept.isascii() and kept.isprintable() and "\\" not in kept
        assert urlsplit(urljoin("https://demo.localhost/x/y", kept)).netloc == "demo.localhost"
    target = b"/" + bytes(c for c in data if 33 <= c <= 126)
    sent = pages.login(target, wants_page=True).render(True, b"", False, False).partition(b"\r\n\r\n")[0]
    places = [line[10:] for line in sent.split(b"\r\n") if line.startswith(b"Location: ")]
    assert len(places) == 1
    assert urlsplit(urljoin("https://demo.localhost/", places[0].decode())).netloc == "demo.localhost"


ALICE = Caller("usr_alice", "alice", Role.CITIZEN, Via.SESSION)
FACTS_OF = {
    "open": VmFacts("vm_open", "open", "usr_bob", frozenset({8000}), 8000),
    "demo": VmFacts("vm_demo", "demo", "usr_alice", frozenset(), 8000),
    "secret": VmFacts("vm_secret", "secret", "usr_bob", frozenset(), 8000),
}


def exchange(data: bytes) -> None:
    """A whole connection, with what apps answer on it: nothing reaches an app that a second reader with the pure
    decision would not send there, in the same order, and the visitor gets sound responses or a broken end."""
    if not data:
        return
    step, (sent, *said) = data[0] + 1, data[1:].split(SPLIT)
    table = Table(said[:8])
    size = len(sent) or 1 if step > 200 else step
    for at in range(0, len(sent), size):
        table.send(sent[at : at + size])
    expected, _ = reference.requests(sent)
    wanted = [(_place(r), r) for r in expected]
    _in_order(table.reached, [(place, r) for place, r in wanted if place])
    assert not [arm for arm in table.arms if arm.place == "secret"]
    if not said:
        _sound(table, [r.method for r in expected])
    table.leave()
    assert not table.edge.deadlines.members
    assert not [v for v in table.edge.verdicts._kept.values() if v.flows]
    assert all(arm.wire.closing or arm.upstream._visitor is None for arm in table.arms)


def _place(request: reference.Request) -> str:
    """Where the pure decision sends it: a VM, the platform, or nowhere."""
    name = request.host.decode("latin-1")
    if name == "localhost":
        return "platform"
    name = name.removesuffix(".localhost")
    if re.match(rb"/__(ussycode|exe\.dev)(/|\?|$)", request.target) and re.fullmatch(r"[a-z0-9-]+", name):
        return "platform"
    if name not in FACTS_OF:
        return ""
    session = SESSION in request.cookies(COOKIE) and name == "demo"
    caller = ALICE if session else NOBODY
    return name if decide(Action.VM_OPEN, Facts(caller, FACTS_OF[name], 8000)).allowed else ""


def _in_order(reached: list[Reached], allowed: list[tuple[str, reference.Request]]) -> None:
    """Everything that reached a place is the next of what was allowed there; a repeated one may come twice."""
    at = 0
    for seen in reached:
        second = reference.one(seen.raw)
        assert second is not None and second[1] == b"", seen
        came = second[0]
        assert by_the_sloppiest(seen.raw) == [(came.method.decode(), came.target.decode(), came.body)]
        key = (seen.place, came.method, came.target, came.body)
        back = max(0, at - 1)
        at = next((n + 1 for n in range(back, len(allowed)) if _key(allowed[n]) == key), -1)
        assert at >= 0, (seen, [_key(a) for a in allowed])
        if seen.place == "demo":
            assert came.all(b"x-ussycode-userid") == [b"usr_alice"]
        elif seen.place != "platform":
            assert not came.all(b"x-ussycode-userid")
        assert came.all(b"x-forwarded-for") == [b"192.0.2.7"]
        assert seen.place == "platform" or not came.cookies(COOKIE)


def _key(allowed: tuple[str, reference.Request]) -> tuple[str, bytes, bytes, bytes]:
    place, request = allowed
    return place, request.method, request.target, request.body


def _sound(table: Table, methods: list[bytes]) -> None:
    """What the visitor reads is one response to each request, and one refusal at the end at most."""
    raw = table.wire.out
    for method in [*methods, b"HEAD" if raw.endswith(b"\r\n\r\n") else b"GET"]:
        if not raw:
            return
        said = h11.Connection(h11.CLIENT, max_incomplete_event_size=1 << 20)
        said.send(h11.Request(method=method, target="/", headers=[("Host", "x")]))
        said.send(h11.EndOfMessage())
        said.receive_data(raw)
        while not isinstance(event := said.next_event(), h11.EndOfMessage):
            assert event is not h11.NEED_DATA, raw
        raw = said.trailing_data[0]
    assert not raw, raw


ORACLES: dict[str, Callable[[bytes], None]] = {
    "head": head, "answer": answer, "chunks": chunks, "cookie": cookie, "host": host, "token": token,
    "redirect": redirect, "exchange": exchange,
}
