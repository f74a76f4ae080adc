"""Who reaches what with which proof, against the real listeners: the whole matrix is one reviewed file.

A row of `tests/golden/reach.txt` that changes is a change of policy, or a breach.
"""
from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.name_server import NameServer
from tests.product.ssh_world import Person
from tests.product.whole_world import DOMAIN, Whole, whole_world

GOLDEN = Path(__file__).parents[1] / "golden" / "reach.txt"
PRIMARY, PUBLIC, PRIVATE = "demo.localhost", "3000--demo.localhost", "4000--demo.localhost"
CUSTOM, ELSEWHERE = "shop.test", "trap.localhost"
PEOPLE = ("owner", "invited", "port4000", "shell", "link", "ended", "stranger", "mallory")
LINES = ("ssh demo true", "why demo", "share show demo", "share port demo")
MAY = {"cmds": ["ssh", "why", "share show", "share port"]}
SSH = (
    ("demo@host", "true"), ("host", "ssh demo true"), ("-W", "demo:22", "host"), ("-W", "localhost:1", "demo@host"),
    ("-s", "demo@host", "sftp"),
)
"""A shell, a shell through the lobby, ProxyJump, a forwarded port, sftp."""
SAID = {
    "no VM named demo": "no", 'VM "demo" not found': "no", "this key is not registered": "not known",
    "nothing listens there inside the VM": "in",
}
"""What somebody who was refused, or whose port leads to no server, is told."""
DAY = 86_400
Shown = dict[str, tuple[str, str]]
"""Cookie and token by the name of a proof; both are empty for one that somebody cannot get."""


class Address(NamedTuple):
    """Where a request goes: a host, and the alternate port that is connected to, 0 for the ordinary one."""

    host: str
    port: int = 0

    @property
    def means(self) -> int:
        """The port of the VM that it is for."""
        label, ported, _ = self.host.partition("--")
        return self.port or (int(label) if ported else 8000)


def addresses(w: Whole) -> tuple[Address, ...]:
    """Every way to the VM; of the two ports that listen for themselves the first is public."""
    public, private = w.alternate
    return (
        Address(PRIMARY), Address(PUBLIC), Address(PRIVATE), Address(PRIMARY, public), Address(PRIMARY, private),
        Address(CUSTOM), Address(CUSTOM, public), Address(CUSTOM, private),
    )


ON_VMS_HEAD = (
    "primary", "3000--demo", "4000--demo", ":public", ":private", "domain", "domain:public", "domain:private",
)


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
    await w.serve("demo", 8000, 3000, 4000, *w.alternate)
    await w.serve("trap", 8000)
    names.says(CUSTOM, "CNAME", PRIMARY)
    assert "error" not in await w.does(owner, f"domain add demo {CUSTOM}")
    for port in (3000, w.alternate[0]):
        await w.does(owner, f"share set-public demo --port {port}")
    await w.does(owner, "share add demo invited")
    for port in (4000, w.alternate[1]):
        await w.does(owner, f"share add demo port4000 --port {port}")
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
    over = int(clock.now()) - 1
    opaque = await handles(w, person)
    return {
        "cookie": ("HOST", ""), "cookie of demo": (await w.cookie(person, PRIMARY), ""),
        "cookie of its domain": (await w.cookie(person, CUSTOM), ""),
        "cookie of trap": (await w.cookie(person, ELSEWHERE), ""),
        "cookie of the lobby": (await w.cookie(person, DOMAIN), ""), "cookie signed out": (gone, ""),
        "cookie expired": (old, ""), "usy0 of demo": ("", w.token(person, demo)),
        "usy0 of its domain": ("", w.token(person, f"v0@{CUSTOM}")),
        "usy0 of trap": ("", w.token(person, trap)), "usy0 of the API": ("", w.token(person, api, **MAY)),
        "usy0 expired": ("", w.token(person, demo, exp=over)),
        "usy0 of API, expired": ("", w.token(person, api, exp=over, **MAY)),
        "usy0 revoked": ("", await revoked(w, person, "--vm demo", w.token(person, demo, ctx=1))),
        "usy0 of API, revoked": ("", await revoked(w, person, "", w.token(person, api, ctx=1, **MAY))),
        **{name: ("", token) for name, token in opaque.items()},
    }


async def handles(w: Whole, person: Person) -> dict[str, str]:
    """The short tokens of somebody, by name; empty for those that they cannot make."""
    clock, cmds = w.place.base.clock, f"--cmds '{','.join(MAY['cmds'])}'"
    made = {
        "usy1 of demo": await handle(w, person, "--vm demo"), "usy1 of trap": await handle(w, person, "--vm trap"),
        "usy1 of the API": await handle(w, person, cmds),
        "usy1 revoked": await revoked(w, person, "", await handle(w, person, "--vm demo")),
        "usy1 of API, revoked": await revoked(w, person, "", await handle(w, person, cmds)),
    }
    clock.advance(-DAY)
    made["usy1 expired"] = await handle(w, person, "--vm demo --exp 1h")
    made["usy1 of API, expired"] = await handle(w, person, f"{cmds} --exp 1h")
    clock.advance(DAY)
    return made


async def handle(w: Whole, person: Person, options: str) -> str:
    """A short token made with `options`; empty when they may not."""
    done = await w.place.base.run(await w.caller(person), f"ssh-key generate-api-key {options}")
    made = done.view.document() if done.view is not None else {}
    assert isinstance(made, dict)
    return str(made.get("token", ""))


async def revoked(w: Whole, person: Person, options: str, token: str) -> str:
    """The token once it is refused; empty for who may not have that done."""
    done = await w.place.base.run(await w.caller(person), f"ssh-key revoke-token {options} {token}") if token else None
    return token if done is not None and done.failure is None else ""


ON_VMS = (
    "cookie", "cookie of demo", "cookie of its domain", "cookie of trap", "cookie of the lobby", "cookie signed out",
    "cookie expired", "usy0 of demo", "usy0 of its domain", "usy0 of trap", "usy0 of the API", "usy0 expired",
    "usy0 revoked", "usy1 of demo", "usy1 of trap", "usy1 of the API", "usy1 expired", "usy1 revoked",
)
ON_THE_API = (
    "cookie of the lobby", "cookie of demo", "cookie of trap", "usy0 of demo", "usy0 of the API",
    "usy0 of API, expired", "usy0 of API, revoked", "usy1 of demo", "usy1 of the API", "usy1 of API, expired",
    "usy1 of API, revoked",
)


async def over_https(w: Whole, name: str, person: Person, shown: Shown) -> AsyncIterator[str]:
    for proof in ON_VMS:
        cookie, token = shown[proof]
        if cookie or token:
            found = await asyncio.gather(*(one(w, person, at, cookie, token) for at in addresses(w)))
            yield row("https", name, proof, found)
        else:
            yield f"https  {name:9} {proof:20} cannot be made"


def row(door: str, name: str, proof: str, found: Sequence[str], width: int = 14) -> str:
    return f"{door:6} {name:9} {proof:20} " + " ".join(f"{what:{width}}" for what in found).rstrip()


async def one(w: Whole, person: Person, at: Address, cookie: str, token: str) -> str:
    given = await w.cookie(person, at.host) if cookie == "HOST" else cookie
    answer = await w.get(at.host, cookie=given, token=token, port=at.port)
    assert answer.status != 200 or json.loads(answer.body)["app"] == f"demo:{at.means}"
    return w.seen(answer).removeprefix("200 ")


async def over_exec(w: Whole, name: str, shown: Shown) -> AsyncIterator[str]:
    for proof in ON_THE_API:
        cookie, token = shown[proof]
        if cookie or token:
            yield row("exec", name, proof, [str((await w.exec(line, token, cookie)).status) for line in LINES], 10)
        else:
            yield f"exec   {name:9} {proof:20} cannot be made"


async def over_ssh(w: Whole, name: str, person: Person) -> AsyncIterator[str]:
    yield row("ssh", name, "their key", await asyncio.gather(*(through(person, route) for route in SSH)), 10)
    old = await w.place.stranger(f"{name}-before")
    line = (old.home / "key.pub").read_text().strip()
    await w.does(person, f"ssh-key add {line}")
    before = await through(old, SSH[0])
    await w.does(person, f"ssh-key remove '{line}'")
    assert before == await through(person, SSH[0])
    yield row("ssh", name, "a key removed", await asyncio.gather(*(through(old, route) for route in SSH)), 10)


async def through(person: Person, route: tuple[str, ...]) -> str:
    done = await person.ssh("-oLogLevel=INFO", *route, stdin=b"")
    heard = [word for phrase, word in SAID.items() if phrase in done.said]
    assert len(heard) == (done.status != 0), done
    return heard[0] if heard else "in"


async def rows(w: Whole, names: NameServer) -> AsyncIterator[str]:
    made = await people(w, names)
    shown = {name: await proofs(w, person) for name, person in made.items()}
    yield row("", "who", "with", ON_VMS_HEAD)
    nobody = [w.seen(await w.get(at.host, port=at.port)).removeprefix("200 ") for at in addresses(w)]
    yield row("https", "nobody", "nothing", nobody)
    for name, person in made.items():
        async for line in over_https(w, name, person, shown[name]):
            yield line
    yield row("", "who", "with", ("ssh", "why", "share show", "share port"), 10)
    yield row("exec", "nobody", "nothing", [str((await w.exec(line)).status) for line in LINES], 10)
    for name in made:
        async for line in over_exec(w, name, shown[name]):
            yield line
    yield row("", "who", "with", ("shell", "lobby", "jump", "forward", "sftp"), 10)
    nameless = await w.place.stranger("unknown")
    yield row("ssh", "nobody", "an unknown key", [await through(nameless, route) for route in SSH], 10)
    for name, person in made.items():
        async for line in over_ssh(w, name, person):
            yield line


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
