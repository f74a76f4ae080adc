"""How a new key becomes an account."""
from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from tests.product.ssh_world import SshWorld, ssh_world
from ussycode.identity import ops as identity


async def test_a_stranger_at_a_terminal_picks_a_handle_and_lands_in_the_lobby(place: SshWorld) -> None:
    sam = await place.stranger("sam")
    await place.member("olive")
    async with sam.terminal("host") as tty:
        assert "your ssh key is your account" in await tty.until("  > handle: ")
        tty.type("\r")
        await tty.until("nothing is not enough")
        tty.type("9lives!\r")
        await tty.until("2 to 20 of a-z")
        await tty.until("begin with a letter")
        tty.type("admin\r")
        await tty.until('"admin" is kept for the platform')
        tty.type("olive\r")
        await tty.until('"olive" is taken. try another.')
        tty.type(" Sam-1 \r")
        await tty.until("welcome, .*sam-1.*. you're in.")
        await tty.until("▶ ")
        tty.type("whoami\r")
        await tty.until(r"sam-1\S* \(newbie\)")


async def test_five_tries_are_enough(place: SshWorld) -> None:
    sam = await place.stranger("sam")
    async with sam.terminal("host") as tty:
        for _ in range(5):
            await tty.until("  > handle: ")
            tty.type("no_good\r")
        await tty.until("goodbye")
        assert await tty.ended() == 1


@pytest.mark.parametrize("key", ["\x03", "\x04"])
async def test_ctrl_c_and_ctrl_d_leave_without_an_account(place: SshWorld, key: str) -> None:
    sam = await place.stranger("sam")
    async with sam.terminal("host") as tty:
        await tty.until("  > handle: ")
        tty.type(key)
        await tty.until("goodbye.")
        assert await tty.ended() == 1
    assert await identity.recognise(place.app, sam.key.fingerprint) is None


async def test_registration_goes_on_with_the_command_that_was_asked_for(place: SshWorld) -> None:
    sam = await place.stranger("sam")
    async with sam.terminal("-t", "host", "whoami") as tty:
        await tty.until("  > handle: ")
        tty.type("sam\r")
        await tty.until(r"sam\S* \(newbie\)")
        assert await tty.ended() == 0


async def test_registration_goes_on_into_the_vm_that_was_asked_for(place: SshWorld) -> None:
    sam = await place.stranger("sam")
    async with sam.terminal("vm+demo@host") as tty:
        await tty.until("  > handle: ")
        tty.type("sam\r")
        await tty.until("no VM named demo")
        assert await tty.ended() == 1
    found = await identity.recognise(place.app, sam.key.fingerprint)
    assert found is not None and found[1].login_name == ""


async def test_a_stranger_without_a_terminal_is_told_how_to_register(place: SshWorld) -> None:
    sam = await place.stranger("sam")
    done = await sam.ssh("host", "new")
    assert (done.status, done.text) == (1, "")
    assert "not registered" in done.said and f"ssh -p {place.port} localhost" in done.said
    assert await identity.recognise(place.app, sam.key.fingerprint) is None


async def test_an_approved_admin_works_at_once_and_picks_a_handle_later(place: SshWorld) -> None:
    root = await place.stranger("root")
    await identity.approve_admins(place.app, [root.key])
    who = json.loads((await root.ssh("host", "whoami --json")).out)
    assert (who["handle"], who["trust_level"]) == ("owner", "admin")  # root is no handle
    async with root.terminal("host") as tty:
        await tty.until("  > handle: ")
        tty.type("olive\r")
        await tty.until("welcome, .*olive")
    assert json.loads((await root.ssh("host", "whoami --json")).out)["handle"] == "olive"
    async with root.terminal("host") as tty:
        await tty.until("hello, .*olive")


async def test_two_first_scripts_at_once_make_one_account(place: SshWorld) -> None:
    dana = await place.stranger("dana")
    await identity.approve_admins(place.app, [dana.key])
    done = await asyncio.gather(*(dana.ssh("host", "whoami --json") for _ in range(6)))
    assert len({json.loads(d.out)["user_id"] for d in done}) == 1


async def test_where_registration_is_closed_unknown_keys_do_not_sign_in(guest_program: Path, tmp_path: Path) -> None:
    async with ssh_world(guest_program, tmp_path, registration="closed") as place:
        sam, olive = await place.stranger("sam"), await place.stranger("olive")
        assert (await sam.ssh("host", "whoami")).status == 255
        await identity.approve_admins(place.app, [olive.key])
        # The unknown key is refused, so the client goes on to the one that is known.
        both = [*olive.options, "-i", str(sam.home / "key"), "-i", str(olive.home / "key")]
        assert (await olive.run("ssh", *both, "host", "whoami")).status == 0


@pytest.mark.parametrize("kind", ["ssh-rsa", "ecdsa-sha2-nistp256", "ecdsa-sha2-nistp521"])
async def test_other_kinds_of_keys_register_too(place: SshWorld, kind: str) -> None:
    person = await place.stranger("rita", kind)
    await identity.register(place.app, person.key, person.name, person.name)
    assert (await person.ssh("host", "whoami")).status == 0
