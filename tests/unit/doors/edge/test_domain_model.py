"""Whatever the feed says in whatever order, a host stands for the VM that a plain reading says, or for nothing."""
from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tests.contract.edge_rig import vm
from ussycode.doors.edge.domains import Domains
from ussycode.doors.edge.hosts import HostKind, Hosts
from ussycode.wire.edge import EdgeDomain

NAMES = ("a.test", "b.a.test", "c.a.test", "d.b.a.test", "demo.localhost", "localhost", "x.demo.localhost")
PATTERNS = tuple(p for name in NAMES for p in (name, f"*.{name}"))
HERE = {f"vm_{name}": vm(name) for name in ("demo", "other")}
CHANGES = st.lists(st.one_of(
    st.tuples(st.sampled_from(("one", "two", "three")), st.sampled_from((*HERE, "vm_gone")),
              st.lists(st.sampled_from(PATTERNS), min_size=1, max_size=3)),
    st.sampled_from(("one", "two", "three")),
), max_size=12)


@given(CHANGES)
def test_a_host_means_what_the_feed_says_last(changes: list[object]) -> None:
    domains = Domains(lambda: HERE)
    hosts = Hosts("localhost", domains.vm_name)
    known: dict[str, tuple[str, list[str]]] = {}
    for change in changes:
        if isinstance(change, str):
            domains.apply((), [change])
            known.pop(change, None)
            continue
        name, machine, patterns = change  # type: ignore[misc]
        # The key of control's table: nobody is told of a name while somebody else has it.
        free = [p for p in patterns if all(p not in have for other, (_, have) in known.items() if other != name)]
        domains.apply([EdgeDomain(name, machine, tuple(free))], ())
        known[name] = machine, free
    for host in NAMES:
        wanted = expected(known, host)
        found = hosts.target(host)
        if host == "localhost":
            assert found.kind is HostKind.PLATFORM
        elif host == "demo.localhost":
            assert (found.kind, found.name) == (HostKind.VM, "demo")  # no domain ever takes a name of ours
        elif host.endswith(".localhost"):
            assert found.kind is HostKind.NOWHERE
        else:
            assert (found.name, found.kind is HostKind.VM) == (wanted, bool(wanted)), (host, known)


def expected(known: dict[str, tuple[str, list[str]]], host: str) -> str:
    for pattern in (host, f"*.{host.partition('.')[2]}"):
        for machine, patterns in known.values():
            if pattern in patterns:
                return HERE[machine].name if machine in HERE else ""
    return ""
