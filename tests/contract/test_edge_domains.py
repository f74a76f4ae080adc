"""Domains of owners at a real edge: the same judgement as on the VM's own host, and nothing for any other name."""
from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.contract.edge_rig import ALICE, BOB, Answer, Client, Rig, running_edge, vm
from ussycode.base.clock import SystemClock
from ussycode.base.pki import Authority, Issuer
from ussycode.wire.edge import EdgeDomain

SHOP = "shop.example.org"


@pytest.fixture(scope="module")
def issuer() -> tuple[Authority, Issuer]:
    """An authority that a visitor trusts, and control's signer of it."""
    authority = Authority.make(SystemClock())
    return authority, Issuer(authority.foreign_intermediate("localhost"), SystemClock())


@pytest.fixture
async def rig(tmp_path: Path) -> AsyncIterator[Rig]:
    async with running_edge(tmp_path) as made:
        yield made


def domain(issuer: tuple[Authority, Issuer], *patterns: str, vm: str = "vm_demo", name: str = "dom_1") -> EdgeDomain:
    leaf = issuer[1].leaf(*patterns)
    return EdgeDomain(name, vm, patterns, leaf.chain, leaf.key)


async def connect(rig: Rig, issuer: tuple[Authority, Issuer], host: str) -> Client:
    """A TLS connection of a client that trusts the authority and checks the name."""
    trusting = ssl.create_default_context(cadata=issuer[0].root_pem.decode())
    streams = await asyncio.open_connection("127.0.0.1", rig.port, ssl=trusting, server_hostname=host, limit=1 << 20)
    return Client(*streams)


async def get(
    rig: Rig, issuer: tuple[Authority, Issuer], host: str, session: str = "", path: str = "/", accept: str = "",
) -> Answer:
    client = await connect(rig, issuer, host)
    lines = f"Cookie: __Host-ussycode={session}\r\n" if session else ""
    lines += f"Accept: {accept}\r\n" if accept else ""
    await client.send(f"GET {path} HTTP/1.1\r\nHost: {host}:{rig.port}\r\n{lines}\r\n".encode())
    answer = await client.answer()
    client.close()
    return answer


async def test_a_private_vm_stays_private_under_its_domain(rig: Rig, issuer: tuple[Authority, Issuer]) -> None:
    """A domain that skipped the check made private machines public: the predecessor's worst door."""
    app = await rig.app(vm("demo"))
    await rig.feed.change(put_domains=[domain(issuer, SHOP)])
    assert (await get(rig, issuer, SHOP)).status == 401
    asked = await get(rig, issuer, SHOP, path="/a?b=1", accept="text/html")
    assert asked.status == 302 and asked.header("Location") == "/__ussycode/login?redirect=/a%3Fb%3D1"
    own = await rig.sign_in(ALICE, SHOP)
    assert (await get(rig, issuer, SHOP, own)).status == 200
    headers = dict(app.seen[-1].headers)
    assert headers["X-Ussycode-UserID"] == ALICE.user and "__Host-ussycode" not in headers.get("Cookie", "")
    elsewhere = await rig.sign_in(ALICE, "demo.localhost")
    assert (await get(rig, issuer, SHOP, elsewhere)).status == 401
    assert (await get(rig, issuer, SHOP, await rig.sign_in(BOB, SHOP))).status == 404
    assert len(app.seen) == 1


async def test_a_public_vm_is_public_and_special_paths_go_to_the_platform(
    rig: Rig, issuer: tuple[Authority, Issuer],
) -> None:
    app = await rig.app(vm("demo", public_ports=(8000,)))
    await rig.feed.change(put_domains=[domain(issuer, SHOP)])
    assert (await get(rig, issuer, SHOP)).status == 200
    await get(rig, issuer, SHOP, path="/__ussycode/login")
    assert len(app.seen) == 1
    assert dict(rig.control.seen[-1].headers)["X-Forwarded-Host"] == f"{SHOP}:{rig.port}"


async def test_the_exact_name_goes_before_the_wildcard_and_a_wildcard_is_one_label(
    rig: Rig, issuer: tuple[Authority, Issuer],
) -> None:
    demo, other = vm("demo", public_ports=(8000,)), vm("other", public_ports=(8000,))
    apps = [await rig.app(demo), await rig.app(other)]
    await rig.feed.change(put_domains=[
        domain(issuer, "example.org", "*.example.org"), domain(issuer, SHOP, vm="vm_other", name="dom_2"),
    ])
    for host in ("example.org", "blog.example.org", SHOP):
        assert (await get(rig, issuer, host)).status == 200
    assert [len(app.seen) for app in apps] == [2, 1]
    with pytest.raises((ssl.SSLError, ConnectionError)):
        await connect(rig, issuer, "a.b.example.org")


async def test_a_name_nobody_has_and_one_that_is_claimed_are_alike(
    rig: Rig, issuer: tuple[Authority, Issuer],
) -> None:
    """A claim is never told to an edge, so all there is to see is a domain whose VM went away."""
    await rig.app(vm("demo", public_ports=(8000,)))
    await rig.feed.change(put_domains=[domain(issuer, SHOP, vm="vm_gone")])
    said = [await rig.get(host) for host in (SHOP, "nobody.example.org")]
    assert said[0].status == said[1].status == 404 and said[0].body == said[1].body
    for host in (SHOP, "nobody.example.org"):
        with pytest.raises((ssl.SSLError, ConnectionError)):
            await connect(rig, issuer, host)


async def test_letting_a_domain_go_bites_on_an_open_connection_and_cuts_what_runs(
    rig: Rig, issuer: tuple[Authority, Issuer],
) -> None:
    demo = vm("demo", public_ports=(8000,))
    more = asyncio.Event()

    async def stream(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\none\r\n")
        await more.wait()
        writer.write(b"3\r\ntwo\r\n")

    await rig.app(demo, serve=stream)
    await rig.feed.change(put_domains=[domain(issuer, SHOP)])
    running, idle = await connect(rig, issuer, SHOP), await connect(rig, issuer, SHOP)
    await running.send(f"GET / HTTP/1.1\r\nHost: {SHOP}\r\n\r\n".encode())
    await running.reader.readuntil(b"one")
    await rig.feed.change(put_vms=[vm("renamed", vm="vm_demo", secret=demo.secret, public_ports=(8000,))])
    more.set()
    await running.reader.readuntil(b"two")  # a rename leaves it alone
    await rig.feed.change(drop_domains=["dom_1"])
    assert b"0\r\n\r\n" not in await running.ended()
    await idle.send(f"GET / HTTP/1.1\r\nHost: {SHOP}\r\n\r\n".encode())
    assert (await idle.answer()).status == 404


async def test_a_new_certificate_is_served_from_the_next_handshake_on(
    rig: Rig, issuer: tuple[Authority, Issuer],
) -> None:
    await rig.app(vm("demo", public_ports=(8000,)))
    shown = []
    for _ in range(2):
        await rig.feed.change(put_domains=[domain(issuer, SHOP)])
        client = await connect(rig, issuer, SHOP)
        shown.append(client.writer.get_extra_info("ssl_object").getpeercert()["serialNumber"])
        client.close()
    assert len(set(shown)) == 2


def test_neither_signer_may_sign_for_the_names_of_the_other(issuer: tuple[Authority, Issuer], tmp_path: Path) -> None:
    authority, foreign = issuer
    ours = Issuer(authority.intermediate("localhost"), SystemClock())
    for signer, good, bad in ((ours, "demo.localhost", SHOP), (foreign, SHOP, "demo.localhost")):
        assert trusted(authority, signer, good, tmp_path) and not trusted(authority, signer, bad, tmp_path)


def trusted(authority: Authority, signer: Issuer, name: str, folder: Path) -> bool:
    """Whether OpenSSL believes a certificate that `signer` made for `name`."""
    leaf = signer.leaf(name)
    (folder / "leaf.pem").write_bytes(leaf.key + leaf.chain)
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(folder / "leaf.pem")
    client = ssl.create_default_context(cadata=authority.root_pem.decode())
    up, down = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = client.wrap_bio(down, up, server_hostname=name), server.wrap_bio(up, down, server_side=True)
    for _ in range(4):
        for end in ends:
            try:
                end.do_handshake()
            except ssl.SSLWantReadError:
                continue
            except ssl.SSLError:
                return False
    return True
