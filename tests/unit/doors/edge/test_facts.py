"""Hosts, judgements and what a change of the facts does to them."""
from __future__ import annotations

import hashlib

import pytest

from ussycode.base.clock import ManualClock, SystemClock
from ussycode.doors.edge.assertions import Assertions
from ussycode.doors.edge.bearer import Tokens
from ussycode.doors.edge.facts import Known, Outcome
from ussycode.doors.edge.feed import Questions
from ussycode.doors.edge.hosts import HostKind, Hosts
from ussycode.doors.edge.verdicts import MAX_KEPT, Verdicts
from ussycode.wire.edge import Change, EdgeGrant, EdgeSession, EdgeUser, EdgeVm, Snapshot

HOSTS = Hosts("localhost")
COOKIE = b"abcdefghijklmnop"


def vm(name: str = "demo", **over: object) -> EdgeVm:
    facts: dict[str, object] = {
        "vm": f"vm_{name}", "name": name, "owner": "usr_alice", "phase": "running", "address": "10.0.0.2",
        "secret": "a" * 64, "primary_port": 8000,
    }
    return EdgeVm(**(facts | over))  # type: ignore[arg-type]


def session(host: str = "demo.localhost", user: str = "usr_alice", expires: float = 2e9) -> EdgeSession:
    return EdgeSession(hashlib.sha256(COOKIE).hexdigest(), user, host, expires)


def known(*vms: EdgeVm, sessions: tuple[EdgeSession, ...] = ()) -> Known:
    facts = Known(Tokens(Questions(), SystemClock()))
    users = [EdgeUser("usr_alice", "alice", "citizen", "a@example.org"), EdgeUser("usr_bob", "bob", "newbie")]
    facts.reset(Snapshot(1, list(vms), users, list(sessions)))
    return facts


def outcome(facts: Known, host: str = "demo.localhost", cookie: bytes | None = COOKIE, closed: bool = False) -> Outcome:
    return facts.judge(HOSTS.target(host), cookie, 1.9e9, closed).outcome


@pytest.mark.parametrize(("host", "kind"), [
    ("localhost", HostKind.PLATFORM), ("demo.localhost", HostKind.VM), ("3000--demo.localhost", HostKind.VM),
    ("9999--demo.localhost", HostKind.VM), ("2999--demo.localhost", HostKind.NOWHERE),
    ("a.b.localhost", HostKind.NOWHERE), ("evil.example", HostKind.NOWHERE), ("demo.localhost.", HostKind.NOWHERE),
    ("localhost.evil", HostKind.NOWHERE), ("demolocalhost", HostKind.NOWHERE), (".localhost", HostKind.NOWHERE),
    ("127.0.0.1", HostKind.NOWHERE), ("[::1]", HostKind.NOWHERE), ("3000--3000--demo.localhost", HostKind.NOWHERE),
    ("xn--a.localhost", HostKind.NOWHERE), ("3000--.localhost", HostKind.NOWHERE),
    ("de_mo.localhost", HostKind.NOWHERE),
])
def test_what_a_host_means(host: str, kind: HostKind) -> None:
    assert HOSTS.target(host).kind is kind


def test_the_owner_reaches_every_port() -> None:
    facts = known(vm(), sessions=(session(), ))
    assert outcome(facts) is Outcome.PROXY
    ported = known(vm(), sessions=(session("3000--demo.localhost"),))
    assert outcome(ported, "3000--demo.localhost") is Outcome.PROXY


def test_a_session_counts_on_its_own_host_only() -> None:
    facts = known(vm(), vm("other"), sessions=(session("other.localhost"),))
    assert outcome(facts) is Outcome.LOGIN
    assert outcome(facts, "3000--other.localhost") is Outcome.LOGIN


def test_a_stranger_sees_what_anybody_sees_of_nothing() -> None:
    facts = known(vm(), sessions=(session(user="usr_bob"),))
    assert outcome(facts) is outcome(known(sessions=(session(user="usr_bob"),))) is Outcome.NOWHERE
    assert outcome(facts, cookie=None) is outcome(known(), cookie=None) is Outcome.LOGIN


def test_public_is_by_port_and_does_not_erase_identity() -> None:
    facts = known(vm(public_ports=(8000,)), sessions=(session(user="usr_bob"),))
    assert outcome(facts, cookie=None) is Outcome.PROXY
    assert outcome(facts, "3000--demo.localhost", None) is Outcome.LOGIN
    assert facts.judge(HOSTS.target("demo.localhost"), COOKIE, 0, False).caller.user == "usr_bob"


def test_sessions_expire() -> None:
    assert outcome(known(vm(), sessions=(session(expires=1.9e9),))) is Outcome.LOGIN


def test_a_user_that_is_gone_is_nobody() -> None:
    facts = known(vm(), sessions=(session(),))
    facts.apply(Change(2, drop_users=["usr_alice"]))
    assert outcome(facts) is Outcome.LOGIN


def test_a_machine_that_does_not_run() -> None:
    stopped = known(vm(phase="stopped", address=""), sessions=(session(),))
    assert outcome(stopped) is Outcome.STOPPED
    assert outcome(stopped, cookie=None) is Outcome.LOGIN


def test_after_the_grace_only_public_ports_are_open() -> None:
    facts = known(vm(), vm("open", public_ports=(8000,)), sessions=(session(),))
    assert outcome(facts, closed=True) is outcome(facts, "missing.localhost", closed=True) is Outcome.CLOSED
    assert outcome(facts, "open.localhost", closed=True) is Outcome.PROXY


def test_renames_move_the_host_even_when_two_swap() -> None:
    facts = known(vm("one"), vm("two"))
    facts.apply(Change(2, put_vms=[vm("two", vm="vm_one"), vm("one", vm="vm_two")]))
    assert facts.judge(HOSTS.target("one.localhost"), None, 0, False).vm == vm("one", vm="vm_two")
    facts.apply(Change(3, put_vms=[vm("three", vm="vm_two")]))
    assert facts.judge(HOSTS.target("one.localhost"), None, 0, False).vm is None


class Flow:
    def __init__(self) -> None:
        self.was_cut = False

    def cut(self) -> None:
        self.was_cut = True


async def live(facts: Known) -> tuple[Verdicts, Flow]:
    verdicts = Verdicts(HOSTS, facts, ManualClock(1.9e9), 1021, Assertions("https://localhost"))
    flow = Flow()
    verdicts.get(b"demo.localhost", COOKIE).flows.add(flow)
    return verdicts, flow


@pytest.mark.parametrize("change", [
    Change(2, drop_sessions=[session().digest]), Change(2, drop_vms=["vm_demo"]), Change(2, drop_users=["usr_alice"]),
    Change(2, put_vms=[vm(secret="b" * 64)]), Change(2, put_vms=[vm(owner="usr_bob")]),
    Change(2, put_vms=[vm("renamed", vm="vm_demo")]), Change(2, put_vms=[vm(phase="stopped", address="")]),
])
async def test_what_ends_the_permission_cuts_what_is_under_way(change: Change) -> None:
    facts = known(vm(), sessions=(session(),))
    verdicts, flow = await live(facts)
    facts.apply(change)
    verdicts.recheck()
    assert flow.was_cut


@pytest.mark.parametrize("change", [
    Change(2, put_vms=[vm("other")]), Change(2, put_vms=[vm(public_ports=(3000,))]), Change(2, drop_vms=["vm_x"]),
    Change(2, put_users=[EdgeUser("usr_alice", "alice", "admin", "new@example.org")]),
])
async def test_other_changes_leave_it_alone(change: Change) -> None:
    facts = known(vm(), sessions=(session(),))
    verdicts, flow = await live(facts)
    facts.apply(change)
    verdicts.recheck()
    assert not flow.was_cut


async def test_the_end_of_a_session_cuts_too() -> None:
    clock = ManualClock(1.9e9)
    verdicts = Verdicts(HOSTS, known(vm(), sessions=(session(expires=1.9e9 + 60),)), clock, 1021, Assertions("https://localhost"))
    flow = Flow()
    verdicts.get(b"demo.localhost", COOKIE).flows.add(flow)
    clock.advance(59)
    verdicts.tick(0)
    assert not flow.was_cut
    clock.advance(1)
    verdicts.tick(1)
    assert flow.was_cut


def to_bob(port: int = 0, level: str = "web", link: bool = False, expires: float = 0.0) -> EdgeGrant:
    return EdgeGrant("usr_bob", level, port, link, expires)


@pytest.mark.parametrize(("grant", "opens"), [
    (to_bob(), (True, False)), (to_bob(3000), (False, True)), (to_bob(8000), (True, False)),
    (to_bob(4000), (False, False)), (to_bob(level="shell"), (True, True)),
    (to_bob(expires=1.9e9), (False, False)), (to_bob(expires=1.9e9 + 1), (True, False)),
])
def test_a_share_opens_its_own_port_and_no_other(grant: EdgeGrant, opens: tuple[bool, bool]) -> None:
    hosts = ("demo.localhost", "3000--demo.localhost")
    found = [
        outcome(known(vm(grants=(grant,)), vm("other"), sessions=(session(host, "usr_bob"),)), host) for host in hosts
    ]
    assert found == [Outcome.PROXY if yes else Outcome.NOWHERE for yes in opens]
    elsewhere = known(vm(grants=(grant,)), vm("other"), sessions=(session("other.localhost", "usr_bob"),))
    assert outcome(elsewhere, "other.localhost") is Outcome.NOWHERE


@pytest.mark.parametrize("after", [(), (to_bob(3000),), (to_bob(expires=1.0),)])
async def test_a_share_taken_back_cuts_what_is_under_way(after: tuple[EdgeGrant, ...]) -> None:
    facts = known(vm(grants=(to_bob(),)), sessions=(session(user="usr_bob"),))
    verdicts, flow = await live(facts)
    facts.apply(Change(2, put_vms=[vm(grants=(to_bob(), to_bob(3000)))]))
    verdicts.recheck()
    assert not flow.was_cut, "another share beside it changes nothing"
    facts.apply(Change(3, put_vms=[vm(grants=after)]))
    verdicts.recheck()
    assert flow.was_cut


async def test_the_end_of_a_share_cuts_too() -> None:
    clock = ManualClock(1.9e9)
    facts = known(vm(grants=(to_bob(expires=1.9e9 + 60),)), sessions=(session(user="usr_bob"),))
    verdicts = Verdicts(HOSTS, facts, clock, 1021, Assertions("https://localhost"))
    flow = Flow()
    verdicts.get(b"demo.localhost", COOKIE).flows.add(flow)
    clock.advance(60)
    verdicts.tick(0)
    assert flow.was_cut
    assert verdicts.get(b"demo.localhost", COOKIE).judgement.reason == "grant_ended"


async def test_made_up_hosts_do_not_fill_the_memory() -> None:
    verdicts = Verdicts(HOSTS, known(vm()), ManualClock(), 1021, Assertions("https://localhost"))
    for number in range(MAX_KEPT + 10):
        verdicts.get(b"host%d.localhost" % number, None)
    assert len(verdicts._kept) <= MAX_KEPT
