"""The isolation rules as text, and what is said of other firewalls. Real packets are in tests/live."""
from __future__ import annotations

import ipaddress
import json
from pathlib import Path

from ussycode.runtime.instance import Instance
from ussycode.runtime.net import rules, wall
from ussycode.runtime.net.blockers import forward_blockers
from ussycode.runtime.net.policy import USUAL, Surroundings

SEVEN = Instance(7, Path("/var/lib/ussycode"), ipaddress.IPv4Network("10.199.0.0/16"))


def test_every_drop_is_about_taps_of_this_instance() -> None:
    text = rules.table(SEVEN)
    assert "policy drop" not in text, "what else the operator's machine forwards goes on"
    text = text.replace(" \\\n", " ")
    for line in text.splitlines():
        if " drop" in line and "device" not in line:
            assert '"uy7-*"' in line, line


def test_the_table_replaces_itself_in_one_transaction() -> None:
    text = rules.table(SEVEN, (2, 300))
    assert text.index("delete table inet ussycode_7") < text.index("chain from_guest")
    assert '"uy7-2" . 10.199.0.2, "uy7-300" . 10.199.1.44' in text


def test_guests_have_ipv6_only_where_the_host_has() -> None:
    for ipv6 in (False, True):
        text = rules.table(SEVEN, (2,), around=Surroundings(ipv6=ipv6))
        assert ('meta nfproto ipv6 counter drop comment "no ipv6"' in text) is not ipv6
        assert (f"ip6 saddr {SEVEN.address6(2)} accept" in text) is ipv6, "in its own wall"
        assert ("icmpv6 type" in wall.build(SEVEN, 2, USUAL, ipv6)) is ipv6


def test_instances_do_not_match_each_others_taps() -> None:
    assert not SEVEN.tap(2).startswith(Instance(0, SEVEN.data, SEVEN.pool).tap_prefix)
    assert not Instance(17, SEVEN.data, SEVEN.pool).tap(2).startswith(Instance(1, SEVEN.data, SEVEN.pool).tap_prefix)


def test_expelling_a_stranger_is_no_error() -> None:
    text = rules.expel(SEVEN, 9).splitlines()
    deleted = [line.removeprefix("delete ") for line in text if line.startswith("delete ")]
    added = [line.removeprefix("add ").removesuffix(" { }") for line in text[: len(text)] if "delete" not in line]
    assert deleted != [], "something is removed"
    assert all(what in added for what in deleted), "and only what was made just before"


def chains(*listed: dict[str, str]) -> bytes:
    return json.dumps({"nftables": [{"metainfo": {}}, *({"chain": one} for one in listed)]}).encode()


FORWARD = {"family": "ip", "table": "filter", "name": "FORWARD", "hook": "forward", "policy": "drop"}


def test_docker_and_ufw_are_recognised() -> None:
    docker = forward_blockers(chains(FORWARD, {"family": "ip", "table": "filter", "name": "DOCKER-USER"}), "uy7-")
    assert [s for s in docker if "DOCKER-USER -i uy7-+" in s] == docker != []
    ufw = forward_blockers(chains(FORWARD, {"family": "ip", "table": "filter", "name": "ufw-user-forward"}), "uy7-")
    assert ufw[0].startswith("ufw drops")
    assert "ip filter FORWARD" in forward_blockers(chains(FORWARD), "uy7-")[0]


def test_a_host_without_drop_policies_has_nothing_in_the_way() -> None:
    assert forward_blockers(chains(FORWARD | {"policy": "accept"}), "uy7-") == []
