"""Which user name leads where."""
from __future__ import annotations

import pytest

from ussycode.doors.ssh.routes import Lobby, Refuse, ToVm, inside, jump_target, login_name, route


@pytest.mark.parametrize(("username", "leads"), [
    ("demo", ToVm("demo")), ("vm+demo", ToVm("demo")), ("root@demo", ToVm("demo", "root")),
    ("vm+root@demo", ToVm("demo", "root")),
    ("root", Lobby()), ("ussy", Lobby()), ("git", Lobby()), ("olive", Lobby()), ("olive-laptop", Lobby()),
    ("", Lobby()), ("Olive", Lobby()), ("9lives", Lobby()), ("x" * 60, Lobby()), ("Root@demo", Lobby()),
    ("vm+root", ToVm("root")), ("vm+olive", ToVm("olive")), ("vm+", Refuse("")), ("vm+..", Refuse("..")),
    ("vm+a b", Refuse("a b")), ("vm+$(x)@demo", Refuse("$(x)@demo")),
])
def test_names_lead_to_the_lobby_or_to_a_vm(username: str, leads: object) -> None:
    assert route(username, handle="olive", login_name="olive-laptop") == leads


def test_what_was_asked_for_at_registration_is_no_login_name() -> None:
    assert [login_name(n) for n in ("olive", "vm+demo", "root@demo")] == ["olive", "", ""]


@pytest.mark.parametrize(("host", "vm"), [
    ("demo", "demo"), ("demo.example.org", "demo"), ("DEMO", "demo"), ("127.0.0.1", None), ("localhost.x", None),
    ("demo.other.org", None), ("", None), ("::1", None), ("example.org", None),
])
def test_a_jump_names_a_vm_or_nothing(host: str, vm: str | None) -> None:
    assert jump_target(host, "example.org") == vm


def test_the_vms_own_names_mean_the_vm_itself() -> None:
    own = ("localhost", "127.0.0.1", "::1", "demo", "demo.example.org", "")
    assert {inside(h, "demo", "example.org") for h in own} == {""}
    assert inside("10.0.0.1", "demo", "example.org") == "10.0.0.1"
