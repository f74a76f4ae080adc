"""What a stolen or lost key must not be able to do once its owner has removed it."""
from __future__ import annotations

import pytest

from tests.world import World, world
from ussycode.access.facts import Caller, Role
from ussycode.base.errors import Failure
from ussycode.config import load
from ussycode.identity import links, ops, sessions
from ussycode.identity.keys import PublicKey, read_public_key

BLOB = "AAAAC3NzaC1lZDI1NTE5AAAAI" + "G" * 42 + "A"
LINE = f"ssh-ed25519 {BLOB} laptop"


async def signed_in(w: World, owner: Caller) -> str:
    """A browser session of the owner: its cookie."""
    outcome = await w.does(owner, "browser")
    code = str(outcome["url"]).rpartition("/")[2]
    return (await links.redeem(w.app, code, "localhost")).cookie


async def test_removing_a_key_ends_browsers_and_unused_links() -> None:
    async with world() as w:
        owner = await w.person("olive")
        await w.does(owner, f"ssh-key add {LINE}")
        cookie, unused = await signed_in(w, owner), str((await w.does(owner, "browser"))["url"]).rpartition("/")[2]
        assert await ops.session_of(w.app, cookie, "localhost") is not None
        await w.does(owner, "ssh-key remove laptop")
        assert await ops.session_of(w.app, cookie, "localhost") is None
        with pytest.raises(Failure, match="used up"):
            await links.redeem(w.app, unused, "localhost")


async def test_a_removed_admin_key_cannot_register_again_even_after_a_restart() -> None:
    async with world() as w:
        key = read_public_key(LINE)
        await ops.approve_admins(w.app, [key])
        owner = await w.person("olive", Role.ADMIN)
        await w.does(owner, f"ssh-key add {LINE}")
        await w.does(owner, "ssh-key remove laptop")
        await ops.approve_admins(w.app, [key])
        assert await ops.may_register(w.app, key.fingerprint) is not Role.ADMIN


async def test_nobody_can_put_the_operators_waiting_key_on_their_account() -> None:
    async with world() as w:
        await ops.approve_admins(w.app, [read_public_key(LINE)])
        assert (await w.fails(await w.person("mallory"), f"ssh-key add {LINE}"))[0] == "key.taken"


async def test_an_account_keeps_a_bounded_number_of_sessions() -> None:
    async with world() as w:
        owner = await w.person("olive")
        cookies = []
        for _ in range(sessions.MAX_SESSIONS + 3):
            w.clock.advance(1)
            cookies.append(await signed_in(w, owner))
        alive = [await ops.session_of(w.app, c, "localhost") is not None for c in cookies]
        assert alive == [False] * 3 + [True] * sessions.MAX_SESSIONS


async def test_a_listener_that_fails_hides_neither_the_commit_nor_the_others() -> None:
    async with world() as w:
        heard = []

        async def broken(events: object) -> None:
            raise RuntimeError("broken")

        async def sound(events: object) -> None:
            heard.append(events)

        w.app.db.listen(broken)
        w.app.db.listen(sound)
        await w.person("olive")
        assert heard


@pytest.mark.parametrize("line", [
    "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5", f"ssh-ed25519 {BLOB[:-4]}", f"ssh-ed25519 {BLOB}AAAA",
    "ssh-rsa AAAAB3NzaC1yc2E=",
    "-----BEGIN OPENSSH PRIVATE KEY-----", "", "ssh-dss AAAA",
])
def test_half_a_key_is_not_a_key(line: str) -> None:
    with pytest.raises(ValueError):
        read_public_key(line)
    assert isinstance(read_public_key(LINE), PublicKey)


def test_a_public_name_behind_a_local_proxy_is_not_open_to_strangers() -> None:
    assert load({"domain": "vm.example.org", "listen": "127.0.0.1,::1"}, {}).registration == "invite"
    assert load({"listen": "127.0.0.1"}, {}).registration == "open"
