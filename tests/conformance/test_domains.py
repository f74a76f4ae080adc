"""Domains of VMs through the package: what DNS does not say yet is an answer, not an error."""
from __future__ import annotations

import pytest

from tests.conformance.conftest import Desk
from tests.name_server import NameServer

covers = pytest.mark.covers


@covers("VM.domain.add", "VM.domain.remove", "Client.domain.ls")
def test_a_domain_is_added_once_dns_leads_to_the_vm(desk: Desk, names: NameServer) -> None:
    exe, name = desk.client(), f"{desk.flavour}.test"
    names.forgets(name)
    vm = exe.new(name="demo", wait_until="created")
    astray = vm.domain.add(name)
    assert astray["error"].startswith("DNS does not point here") and astray["expected"] == "demo.localhost"
    names.says(name, "CNAME", "demo.localhost")
    assert vm.domain.add(name) == {"vm_name": "demo", "domain": name, "wildcard": False}
    missing = vm.domain.add(f"wild.{name}", wildcard=True)
    assert (missing["wildcard_base"], missing["delegation_name"]) == (f"wild.{name}", f"_acme-challenge.wild.{name}")
    names.says(missing["delegation_name"], "CNAME", missing["delegation_target"])
    assert vm.domain.add(f"*.wild.{name}")["pattern"] is True
    assert {d["status"] for d in exe.domain.ls(all=True)["domains"]} == {"verified", "pending"}
    assert vm.domain.remove(name) == {"vm_name": "demo", "domain": name, "removed": True}
