"""Edge, SSH door and the pure decision agree for whatever is shared, and none gives more than a naive reading of it.

If they disagreed, a door would stand open that the others hold shut.
"""
from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ussycode.access.actions import Action
from ussycode.access.decide import decide
from ussycode.access.facts import NOBODY, PRIMARY, Caller, Facts, Level, Role, Via
from ussycode.app import NamedImages
from ussycode.base import schema
from ussycode.base.clock import ManualClock, SystemClock
from ussycode.base.db import Database, Tx
from ussycode.domains import store as domains
from ussycode.domains.model import Covers, VmDomain
from ussycode.doors.edge.bearer import Tokens
from ussycode.doors.edge.domains import Domains
from ussycode.doors.edge.facts import Judgement, Known, Outcome
from ussycode.doors.edge.feed import Questions
from ussycode.doors.edge.hosts import Hosts
from ussycode.identity import addresses
from ussycode.identity import store as accounts
from ussycode.runtime.driver import Phase, Power
from ussycode.sharing import facts, standing, store
from ussycode.sharing.model import Share
from ussycode.vms import ports
from ussycode.vms import store as vms
from ussycode.vms.model import Vm
from ussycode.wire.edge import EdgeSession, Snapshot

NOW = ManualClock().at
PEOPLE = ("olive", "ann", "bob", "carl")
PORTS = (3000, 4000, 8000)
CUSTOM = "shop.test"
IMAGES = NamedImages(("debian-min",))


@dataclass(frozen=True)
class Given:
    """One thing that Olive gave: to an account, or to an address that an account may have proven."""

    who: str
    by_address: bool
    level: Level
    port: int
    expires: float
    link: bool


GIVEN = st.builds(
    Given, st.sampled_from(PEOPLE[1:]), st.booleans(), st.sampled_from(Level), st.sampled_from((PRIMARY, *PORTS)),
    st.sampled_from((0.0, NOW - 1, NOW, NOW + 1)), st.booleans(),
)
WORLD = st.tuples(
    st.lists(GIVEN, max_size=8, unique_by=lambda g: (g.who, g.by_address, g.port)),
    st.frozensets(st.sampled_from(PORTS)), st.sampled_from(PORTS), st.frozensets(st.sampled_from(PEOPLE[1:])),
    st.booleans(),
)
"""What was given, which ports are public, which is the primary one, who has proven their address, and whether the
VM's domain is served."""


@dataclass(frozen=True)
class Edge:
    """What an edge knows after the same facts went over the feed."""

    known: Known
    hosts: Hosts

    def judge(self, name: str, host: str, listener: int) -> Judgement:
        """What it makes of a request by `name`, to an alternate port or to 0."""
        return self.known.judge(self.hosts.target(host, listener), _cookie(name, host), NOW, False)


@pytest.fixture(scope="module")
def db() -> Iterator[Database]:
    made = Database(None, ManualClock())
    schema.migrate(made.engine)
    yield made
    made.close()


@settings(max_examples=100, deadline=None)
@given(world=WORLD)
def test_everybody_who_judges_says_the_same(
    db: Database, world: tuple[list[Given], frozenset[int], int, frozenset[str], bool],
) -> None:
    given_out, public, primary, proven, served = world
    with undone(db) as tx:
        ids = {name: accounts.insert_user(tx, name, Role.NEWBIE, "", True).id for name in PEOPLE}
        for name, user in ids.items():
            accounts.insert_key(tx, user, f"SHA256:{name}", f"ssh-ed25519 {name}", name)
        _fill(tx, ids, given_out, public, primary, proven)
        _own_domain(tx, ids["olive"], served)
        edge = _edge(tx, ids)
        for name in (*PEOPLE, "nobody"):
            caller = NOBODY if name == "nobody" else Caller(ids[name], name, via=Via.SESSION)
            found = facts.of_vm(tx, IMAGES, "demo")
            for port in PORTS:
                made = decide(Action.VM_OPEN, Facts(caller, found, port, now=NOW))
                assert made.allowed is _may_open(name, port, given_out, public, primary, proven), (name, port)
                for host, listener in _addresses(port, primary):
                    seen = edge.judge(name, host, listener)
                    there = (made.allowed, made.reason) if host != CUSTOM or served else (False, "no_host")
                    assert (seen.outcome is Outcome.PROXY, seen.reason) == there, (name, port, host, listener)
            shell = standing._judge(tx, _App(), f"SHA256:{name}", "vm_demo")  # type: ignore[arg-type]
            asked = decide(Action.VM_SHELL, Facts(caller, found, now=NOW))
            assert shell == asked and asked.allowed is _may_enter(name, given_out, proven), name


@contextmanager
def undone(db: Database) -> Iterator[Tx]:
    """A transaction of which nothing stays."""
    with db.engine.connect() as connection:
        connection.exec_driver_sql("BEGIN")
        try:
            yield Tx(connection, NOW)
        finally:
            connection.exec_driver_sql("ROLLBACK")


def _may_open(
    name: str, port: int, given_out: list[Given], public: frozenset[int], primary: int, proven: frozenset[str]
) -> bool:
    if name == "olive" or port in public:
        return True
    theirs = [g for g in given_out if _counts(g, name, proven)]
    return any(g.level is Level.SHELL or (g.port or primary) == port for g in theirs)


def _may_enter(name: str, given_out: list[Given], proven: frozenset[str]) -> bool:
    return name == "olive" or any(g.level is Level.SHELL and _counts(g, name, proven) for g in given_out)


def _counts(g: Given, name: str, proven: frozenset[str]) -> bool:
    return g.who == name and g.expires in (0.0, NOW + 1) and (not g.by_address or name in proven)


class _App:
    images = IMAGES


def _fill(
    tx: Tx, ids: dict[str, str], given_out: list[Given], public: frozenset[int], primary: int, proven: frozenset[str]
) -> None:
    vms.insert(tx, Vm(
        "vm_demo", 2, "demo", ids["olive"], "debian-min", (), 1, 512, 5, Power.RUNNING, 1, "a" * 64, Phase.RUNNING, 1,
        "", "", "10.0.0.2", NOW,
    ))
    ports.replace(tx, "vm_demo", {p: (p == primary, p in public) for p in public | {primary}})
    for name in proven:
        addresses.verify(tx, f"{name}@example.org", ids[name])
    number = count()
    for g in given_out:
        user, address = ("", f"{g.who}@example.org") if g.by_address else (ids[g.who], "")
        store.insert(tx, Share(
            f"share_{next(number)}", "vm_demo", g.port, g.level, user, address, "link_1" if g.link else "",
            ids["olive"], g.expires, NOW,
        ))


def _own_domain(tx: Tx, owner: str, served: bool) -> None:
    claimed = VmDomain("domain_1", "vm_demo", owner, CUSTOM, Covers.EXACT, NOW, NOW if served else 0.0)
    domains.insert(tx, claimed)
    if served:
        domains.serve(tx, claimed)


def _addresses(port: int, primary: int) -> list[tuple[str, int]]:
    """Hosts that lead to a port of the VM, each with the alternate port connected to."""
    named = [(f"{port}--demo.localhost", 0), ("demo.localhost", port), (CUSTOM, port)]
    return named + ([("demo.localhost", 0), (CUSTOM, 0)] if port == primary else [])


def _edge(tx: Tx, ids: dict[str, str]) -> Edge:
    made = facts.snapshot(tx, IMAGES, 1)
    hosts = ["demo.localhost", CUSTOM, *(f"{port}--demo.localhost" for port in PORTS)]
    sessions = [
        EdgeSession(hashlib.sha256(_cookie(name, host) or b"").hexdigest(), user, host, NOW + 60)
        for name, user in ids.items() for host in hosts
    ]
    sent = msgspec.msgpack.encode(msgspec.structs.replace(made, sessions=sessions))
    told = msgspec.msgpack.decode(sent, type=Snapshot)
    known = Known(Tokens(Questions(), SystemClock()))
    known.reset(told)
    names = Domains(lambda: known.vms)
    names.reset(told.domains)
    return Edge(known, Hosts("localhost", names.vm_name))


def _cookie(name: str, host: str) -> bytes | None:
    return None if name == "nobody" else f"{name}-{host}".encode()
