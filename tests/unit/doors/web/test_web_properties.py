"""Whatever is typed: a redirect stays on its host, a host has one reading, a session never reaches an app."""
from __future__ import annotations

from urllib.parse import urljoin, urlsplit

from hypothesis import given, settings
from hypothesis import strategies as st

from ussycode.doors.edge.fields import Refused
from ussycode.doors.edge.head import outgoing, parse
from ussycode.doors.edge.hosts import HostKind, Hosts
from ussycode.doors.web.asked import local_path

HOSTS = Hosts("localhost")
NASTY = st.text(st.sampled_from("/\\.:@?#%;& \t\r\n\0aé/evil"), max_size=30)
PATHS = st.one_of(NASTY, NASTY.map(lambda text: "/" + text), st.text(max_size=50))
LABELS = st.text(st.sampled_from("abz09-._A é%:/3000"), max_size=20)
NAMES = st.one_of(
    st.text(max_size=40), LABELS.map(lambda label: f"{label}.localhost"),
    st.tuples(st.integers(0, 70_000), LABELS).map(lambda two: f"{two[0]}--{two[1]}.localhost"),
)
COOKIES = st.lists(st.tuples(
    st.sampled_from(["__Host-ussycode", "__Host-ussycode-next", "__host-ussycode", "x__Host-ussycode", "app", "", " "]),
    st.text(st.sampled_from("abcXYZ019_-=, \"\t"), max_size=40),
), max_size=6).map(lambda pairs: "; ".join(f"{name}={value}" for name, value in pairs))


@settings(max_examples=500, deadline=None)
@given(PATHS)
def test_a_redirect_stays_on_its_host(path: str) -> None:
    kept = local_path(path)
    assert kept[0] == "/" and not kept.startswith(("//", "/\\")) and "\\" not in kept
    assert kept.isascii() and kept.isprintable() and kept in (path, "/")
    assert urlsplit(urljoin("https://demo.localhost/x/y", kept)).netloc == "demo.localhost"


@settings(max_examples=500, deadline=None)
@given(COOKIES, COOKIES)
def test_an_app_never_sees_a_session(first: str, second: str) -> None:
    head = f"GET / HTTP/1.1\r\nHost: demo.localhost\r\nCookie: {first}\r\ncookie:{second}"
    request = parse(head.encode())
    sent = outgoing(request, b"", for_platform=False)
    for line in sent.split(b"\r\n"):
        if line[:7].lower() == b"cookie:":
            names = [part.partition(b"=")[0].strip(b" \t") for part in line[7:].split(b";")]
            assert b"__Host-ussycode" not in names
    if request.session is not None:
        assert any(part.strip(" \t").startswith("__Host-ussycode=") for part in (first + ";" + second).split(";"))


@settings(max_examples=500, deadline=None)
@given(st.one_of(st.text(max_size=40), NAMES).map(lambda text: text.encode()))
def test_a_host_is_read_in_one_way_or_not_at_all(host: bytes) -> None:
    try:
        request = parse(b"GET / HTTP/1.1\r\nHost: " + host)
    except Refused as refused:
        assert refused.status == 400
        return
    name = request.hostname.decode("ascii")
    assert name == name.lower() and not set(name) & set("/\\@ ?#%") and HOSTS.target(name).kind in HostKind
