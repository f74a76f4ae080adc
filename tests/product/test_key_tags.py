"""A key that is limited to a tag reaches VMs with that tag, by SSH and by its tokens, and changes nothing."""
from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.product.signing import Signer
from tests.product.ssh_world import SshWorld, ssh_world
from tests.product.web_world import WebWorld, web_world
from ussycode.access.facts import Caller
from ussycode.identity import ops as identity
from ussycode.sharing import facts, standing
from ussycode.sharing import ops as sharing
from ussycode.wire.edge import CheckToken

MAY = '{"cmds":["ls","ssh","whoami","restart","new","browser","ssh-key add","rm","share set-public","why"]}'


@pytest.fixture
async def place(tmp_path: Path) -> AsyncIterator[WebWorld]:
    async with web_world(tmp_path) as made:
        await made.base.does(made.caller, "new --name blue --tag prod")
        await made.base.does(made.caller, "new --name grey")
        yield made


async def deploy_key(place: WebWorld, tmp_path: Path) -> tuple[Signer, Caller]:
    """A second key of Alice's that is for `prod` alone, and who comes with it."""
    (tmp_path / "deploy").mkdir()
    made = Signer.make(tmp_path / "deploy")
    await place.base.does(place.caller, f"ssh-key add --tag prod {made.public.line} deploy")
    found = await identity.recognise(place.app, made.public.fingerprint)
    assert found is not None
    return made, found[0]


async def test_it_sees_and_reaches_what_has_the_tag(place: WebWorld, tmp_path: Path) -> None:
    _, deploy = await deploy_key(place, tmp_path)
    assert [v["vm_name"] for v in (await place.base.does(deploy, "ls"))["vms"]] == ["blue"]  # type: ignore[attr-defined]
    assert (await place.base.does(deploy, "why blue"))["vm_name"] == "blue"
    for line in ("why grey", "why nothing"):
        assert (await place.base.fails(deploy, line))[0] == "vm.unknown"
    assert (await place.base.run(deploy, "ssh blue true")).attach is not None
    assert (await place.base.fails(deploy, "ssh grey true"))[0] == "ssh.no_vm"


async def test_it_changes_nothing(place: WebWorld, tmp_path: Path) -> None:
    _, deploy = await deploy_key(place, tmp_path)
    for line in ("restart blue", "new --name more", "browser", "ssh-key tag -d deploy", "ssh-key remove alice",
                 "share set-public blue", "rm blue", "tag blue web", "cp blue copy", "email add a@example.org",
                 "logout --all", "passkey remove x", "ssh-key generate-api-key"):
        code = (await place.base.fails(deploy, line))[0]
        assert code == ("token.wider" if "generate" in line else "key.limited"), line
    assert [v["vm_name"] for v in (await place.base.does(place.caller, "ls"))["vms"]] == ["blue", "grey"]  # type: ignore[attr-defined]
    made = await place.base.does(deploy, "ssh-key generate-api-key --tag prod --cmds ls")
    assert [v["vm_name"] for v in (await place.exec("ls", str(made["token"]))).json["vms"]] == ["blue"]


async def test_its_tokens_reach_no_further_and_a_change_bites_at_once(place: WebWorld, tmp_path: Path) -> None:
    signer, _ = await deploy_key(place, tmp_path)
    token = signer.token(MAY)
    assert [v["vm_name"] for v in (await place.exec("ls", token)).json["vms"]] == ["blue"]
    assert (await place.exec("restart blue", token)).status == 403
    assert (await place.exec("why grey", token)).status == 422
    await place.base.does(place.caller, "ssh-key tag -d deploy")
    assert len((await place.exec("ls", token)).json["vms"]) == 2
    await place.base.does(place.caller, "ssh-key tag deploy other")
    assert (await place.exec("ls", token)).json["vms"] == []


async def test_edges_are_told_the_tag_of_a_token_and_the_tags_of_vms(place: WebWorld, tmp_path: Path) -> None:
    signer, _ = await deploy_key(place, tmp_path)
    found = await sharing.facts_of(place.app, "grey")
    assert found is not None
    said = await place.tokens.for_edge(CheckToken(1, "grey", signer.token("{}", "v0@grey.localhost")), found.vm)
    assert (said.user, said.tag, said.refused) == (place.caller.user, "prod", "")
    snapshot = await sharing.edge_snapshot(place.app, 1)
    assert {vm.name: vm.tags for vm in snapshot.vms} == {"blue": ("prod",), "grey": ()}
    heard = []

    async def listen(events):  # type: ignore[no-untyped-def]
        heard.append(await sharing.edge_change(place.app, 2, events))

    place.app.db.listen(listen)
    await place.base.does(place.caller, "ssh-key tag deploy other")
    assert heard[0].forget_tokens == [place.caller.user]


async def test_it_is_in_no_guest_that_it_may_not_reach(place: WebWorld, tmp_path: Path) -> None:
    signer, _ = await deploy_key(place, tmp_path)
    wants = {w.name: w.authorized_keys for w in await sharing.wants(place.app)}
    assert signer.public.line in wants["blue"] and signer.public.line not in wants["grey"]
    assert all(place.alice.public.line in keys for keys in wants.values())


async def test_the_last_key_without_a_limit_stays(place: WebWorld, tmp_path: Path) -> None:
    await deploy_key(place, tmp_path)
    assert (await place.base.fails(place.caller, f"ssh-key remove {place.alice.public.fingerprint}"))[0] == "key.alone"


async def test_losing_the_tag_ends_the_stay(place: WebWorld, tmp_path: Path) -> None:
    signer, _ = await deploy_key(place, tmp_path)
    ids = {v.name: v.vm for v in (await sharing.edge_snapshot(place.app, 1)).vms}
    stay = (signer.public.fingerprint, ids["blue"])
    assert (await standing.of(place.app, [stay]))[stay].allowed
    await place.base.does(place.caller, "tag -d blue prod")
    assert not (await standing.of(place.app, [stay]))[stay].allowed
    found = await place.app.db.read(lambda tx: facts.of_vm(tx, place.app.images, "blue"))
    assert found is not None and not found.tags


async def test_over_ssh(guest_program: Path, tmp_path: Path) -> None:
    async with ssh_world(guest_program, tmp_path) as lobby:
        await _over_ssh(lobby)


async def _over_ssh(lobby: SshWorld) -> None:
    olive = await lobby.member("olive")
    await olive.ssh("host", "new", "--name", "blue", "--tag", "prod")
    await olive.ssh("host", "new", "--name", "grey")
    ci = await lobby.stranger("ci")
    assert (await olive.ssh("host", "ssh-key", "add", "--tag", "prod", f"'{ci.key.line} ci'")).status == 0
    assert (await ci.ssh("blue@host", "echo", "in")).text == "in\n"
    refused = await ci.ssh("grey@host", "echo", "in")
    assert refused.status != 0 and "no VM named grey" in refused.said
    denied = await ci.ssh("host", "new")
    assert denied.status == 1 and "this key reaches VMs tagged prod" in denied.said


