"""Who reaches what with which proof, against the real listeners: the whole matrix is one reviewed file.

A row of `tests/golden/reach.txt` that changes is a change of policy, or a breach.
"""
from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.name_server import NameServer
from tests.product.ssh_world import Person
from tests.product.whole_world import DOMAIN, Whole, whole_world

GOLDEN = Path(__file__).parents[1] / "golden" / "reach.txt"
PRIMARY, PUBLIC, PRIVATE = "demo.localhost", "3000--demo.localhost", "4000--demo.localhost"
CUSTOM, ELSEWHERE = "shop.test", "trap.localhost"
HOSTS = (PRIMARY, PUBLIC, PRIVATE, CUSTOM)
PEOPLE = ("owner", "invited", "port4000", "shell", "link", "ended", "stranger", "mallory")
LINES = ("ssh demo true", "why demo", "share show demo", "share port demo")
MAY = {"cmds": ["ssh", "why", "share show", "share port"]}
SSH = (
    ("demo@host", "true"), ("host", "ssh demo true"), ("-W", "demo:22", "host"), ("-W", "localhost:1", "demo@host"),
    ("-s", "demo@host", "sftp"),
)
"""A shell, a shell through the lobby, ProxyJump, a forwarded port, sftp."""
DAY = 86_400
Shown = dict[str, tuple[str, str]]
"""Cookie and token by the name of a proof; both are empty for one that somebody cannot get."""


@pytest.fixture
async def whole(guest_program: Path, tmp_path: Path, names: NameServer) -> AsyncIterator[Whole]:
    async with whole_world(guest_program, tmp_path, names) as made:
        yield made


async def people(w: Whole, names: NameServer) -> dict[str, Person]:
    """The owner's VM `demo`, shared in every way there is, and Mallory's own called `trap`."""
    made = {name: await w.member(name) for name in PEOPLE}
    owner, mallory = made["owner"], made["mallory"]
    await w.does(owner, "new --name demo")
    await w.does(mallory, "new --name trap")
    await w.serve("demo", 8000, 3000, 4000)
    await w.serve("trap", 8000)
    names.says(CUSTOM, "CNAME", PRIMARY)
    assert "error" not in await w.does(owner, f"domain add demo {CUSTOM}")
    await w.does(owner, "share set-public demo --port 3000")
    await w.does(owner, "share add demo invited")
    await w.does(owner, "share add demo port4000 --port 4000")
    await w.does(owner, "share add demo shell --root")
    link = (await w.does(owner, "share add-link demo"))["url"]
    await redeem(w, made["link"], str(link))
    w.place.base.clock.advance(-DAY)
    await w.does(owner, "share add demo ended --root --expires 1h")
    w.place.base.clock.advance(DAY)
    return made


async def redeem(w: Whole, person: Person, url: str) -> None:
    """Press the button of a link, in a browser that is signed in on the VM's host."""
    cookie = await w.cookie(person, PRIMARY)
    client = await w.connect(PRIMARY)
    path = "/" + url.split("/", 3)[3]
    await client.send(
        f"POST {path} HTTP/1.1\r\nHost: {PRIMARY}:{w.port}\r\nCookie: __Host-ussycode={cookie}\r\n"
        "Content-Length: 0\r\n\r\n".encode()
    )
    assert (await client.answer()).status == 303
    client.close()


async def proofs(w: Whole, person: Person) -> Shown:
    """Everything somebody can show over HTTPS: cookie and token by name; a cookie for `HOST` is made for each host."""
    clock = w.place.base.clock
    gone = await w.cookie(person, PRIMARY)
    await w.does(person, "logout --all")
    clock.advance(-40 * DAY)
    old = await w.cookie(person, PRIMARY)
    clock.advance(40 * DAY)
    demo, trap, api = f"v0@{PRIMARY}", f"v0@{ELSEWHERE}", f"v0@{DOMAIN}"
    revoked = w.token(person, demo, ctx=1)
    done = await w.place.base.run(await w.caller(person), f"ssh-key revoke-token --vm demo {revoked}")
    label = "ssh-key generate-api-key --label"
    handle = await w.place.base.run(await w.caller(person), f"{label} vm --vm demo")
    made = handle.view.document() if handle.view is not None else {}
    over = int(clock.now()) - 1
    return {
        "cookie": ("HOST", ""), "cookie of trap": (await w.cookie(person, ELSEWHERE), ""),
        "cookie of the lobby": (await w.cookie(person, DOMAIN), ""), "cookie signed out": (gone, ""),
        "cookie expired": (old, ""), "usy0 of demo": ("", w.token(person, demo)),
        "usy0 of trap": ("", w.token(person, trap)), "usy0 of the API": ("", w.token(person, api, **MAY)),
        "usy0 expired": ("", w.token(person, demo, exp=over)),
        "usy0 of API, expired": ("", w.token(person, api, exp=over, **MAY)),
        "usy0 revoked": ("", revoked if done.failure is None else ""),
        "usy1 of demo": ("", str(made.get("token", ""))),  # type: ignore[union-attr]
        "usy1 of the API": ("", str((await w.does(person, f"{label} api --cmds '{','.join(MAY['cmds'])}'"))["token"])),
    }


ON_VMS = frozenset({
    "cookie", "cookie of trap", "cookie of the lobby", "cookie signed out", "cookie expired", "usy0 of demo",
    "usy0 of trap", "usy0 of the API", "usy0 expired", "usy0 revoked", "usy1 of demo", "usy1 of the API",
})
ON_THE_API = frozenset({
    "cookie of the lobby", "usy0 of demo", "usy0 of the API", "usy0 of API, expired", "usy1 of demo", "usy1 of the API",
})
BRIEFLY = frozenset({"cookie", "usy0 of demo", "usy0 of the API"})
"""Of people who differ from others in what is shared with them only, the proofs that count."""


def asked(name: str, proofs: frozenset[str], shown: Shown) -> Shown:
    """The proofs to try for somebody."""
    wanted = proofs & BRIEFLY if name in ("port4000", "ended", "link") else proofs
    return {proof: given for proof, given in shown.items() if proof in wanted}


async def over_https(w: Whole, name: str, person: Person, shown: Shown) -> AsyncIterator[str]:
    for proof, (cookie, token) in shown.items():
        if cookie or token:
            found = await asyncio.gather(*(one(w, person, host, cookie, token) for host in HOSTS))
            yield f"https  {name:9} {proof:20} " + "  ".join(f"{what:16}" for what in found).rstrip()
        else:
            yield f"https  {name:9} {proof:20} cannot be made"


async def one(w: Whole, person: Person, host: str, cookie: str, token: str) -> str:
    given = await w.cookie(person, host) if cookie == "HOST" else cookie
    return w.seen(await w.get(host, cookie=given, token=token))


async def over_exec(w: Whole, name: str, person: Person, shown: Shown) -> AsyncIterator[str]:
    for proof, (cookie, token) in shown.items():
        if cookie or token:
            given = await w.cookie(person, DOMAIN) if cookie == "HOST" else cookie
            found = [str((await w.exec(line, token, given)).status) for line in LINES]
            yield f"exec   {name:9} {proof:20} " + "  ".join(found)


async def over_ssh(name: str, person: Person) -> str:
    found = await asyncio.gather(*(through(person, route) for route in SSH))
    return f"ssh    {name:9} their key            " + "  ".join(f"{what:7}" for what in found).rstrip()


async def through(person: Person, route: tuple[str, ...]) -> str:
    done = await person.ssh("-oLogLevel=INFO", *route, stdin=b"")
    return "no" if "no VM named demo" in done.said or 'VM "demo" not found' in done.said else "in"


async def rows(w: Whole, names: NameServer) -> AsyncIterator[str]:
    made = await people(w, names)
    shown = {name: await proofs(w, person) for name, person in made.items()}
    yield "       who       with                 primary port      public port       another port      custom domain"
    nobody = [w.seen(await w.get(host)) for host in HOSTS]
    yield "https  nobody    nothing              " + "  ".join(f"{what:16}" for what in nobody).rstrip()
    for name, person in made.items():
        async for row in over_https(w, name, person, asked(name, ON_VMS, shown[name])):
            yield row
    yield "       who       with                 ssh  why  show port"
    yield "exec   nobody    nothing              " + "  ".join([str((await w.exec(line)).status) for line in LINES])
    for name, person in made.items():
        async for row in over_exec(w, name, person, asked(name, ON_THE_API, shown[name])):
            yield row
    yield "       who       with                 shell    lobby    jump     forward  sftp"
    for name, person in made.items():
        yield await over_ssh(name, person)


async def test_who_reaches_what(whole: Whole, names: NameServer, request: pytest.FixtureRequest) -> None:
    text = "\n".join([row async for row in rows(whole, names)]) + "\n"
    if request.config.getoption("--write-golden"):
        GOLDEN.write_text(text)
    assert GOLDEN.read_text() == text


async def test_what_is_taken_back_is_over_on_open_connections(whole: Whole, names: NameServer) -> None:
    """One connection kept alive, one page that streams: neither outlives the share by two seconds."""
    made = await people(whole, names)
    owner = made["owner"]
    for name, line in (
        ("invited", "share remove demo invited"), ("link", "share remove demo link"),
        ("shell", "share remove demo shell"),
    ):
        cookie = await whole.cookie(made[name], PRIMARY)
        kept, streaming = await whole.connect(PRIMARY), await whole.connect(PRIMARY)
        assert whole.seen(await whole.get(PRIMARY, cookie=cookie, client=kept)) == f"200 as {name}"
        assert (await whole.get(PRIMARY, "/sse", cookie=cookie, client=streaming)).status == 200
        await whole.does(owner, line)
        assert (await whole.get(PRIMARY, cookie=cookie, client=kept)).status == 404
        async with asyncio.timeout(2):
            await streaming.ended()
        kept.close()


async def test_making_a_port_private_ends_what_the_public_had_open(whole: Whole, names: NameServer) -> None:
    made = await people(whole, names)
    streaming, kept = await whole.connect(PUBLIC), await whole.connect(PUBLIC)
    assert (await whole.get(PUBLIC, "/sse", client=streaming)).status == 200
    assert whole.seen(await whole.get(PUBLIC, client=kept)) == "200 as nobody"
    await whole.does(made["owner"], "share set-private demo --port 3000")
    assert (await whole.get(PUBLIC, client=kept)).status == 401
    async with asyncio.timeout(2):
        await streaming.ended()
