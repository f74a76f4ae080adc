"""The account through the package: who one is, keys, tokens, the manual, and what errors are made of."""
from __future__ import annotations

from datetime import datetime

import exedev
import pytest

from tests.conformance.conftest import Desk
from tests.conformance.driven import Driven
from tests.product.signing import Signer

covers = pytest.mark.covers


@covers("Client.__enter__", "Client.__exit__", "Client.close", "Client.whoami")
def test_whoami_knows_the_key_behind_the_token(desk: Desk) -> None:
    with desk.client() as exe:
        who = exe.whoami()
        assert (who["handle"], who["email"], len(who["ssh_keys"])) == ("alice", "", 1)
        exe.close()


@covers("Client.browser", "Client.doc", "Client.set_region")
def test_small_things_answer_documents(exe: Driven) -> None:
    assert exe.browser()["url"].startswith("https://localhost:8443/login/")
    assert exe.browser(qr=True)["url"]
    assert "first-vm" in [page["slug"] for page in exe.doc()["pages"]]
    assert exe.doc("first-vm")["markdown"].startswith("# ")
    assert exe.set_region("local")["region"] == "local"
    with pytest.raises(exedev.APIError, match="there is no region 'mars' here"):
        exe.set_region("mars")


@covers("Client.ssh_key.list", "Client.ssh_key.add", "Client.ssh_key.rename", "Client.ssh_key.remove")
def test_keys_come_and_go(exe: Driven, tmp_path_factory: pytest.TempPathFactory) -> None:
    line = Signer.make(tmp_path_factory.mktemp("bob")).public.line
    exe.ssh_key.add(line + " laptop", tag="prod")
    assert "laptop" in [k["name"] for k in exe.ssh_key.list()["ssh_keys"]]
    exe.ssh_key.rename("laptop", "desk")
    exe.ssh_key.remove("desk")
    assert "desk" not in [k["name"] for k in exe.ssh_key.list()["ssh_keys"]]
    with pytest.raises(exedev.APIError):
        exe.ssh_key.remove("desk")


@covers("Client.ssh_key.generate_api_key")
def test_a_token_made_by_the_package_is_good_for_what_it_names(desk: Desk, exe: Driven) -> None:
    made = exe.ssh_key.generate_api_key(cmds=["ls", "ssh-key list"], exp="12h", label="ci")
    assert datetime.fromisoformat(made["expires_at"])
    narrow = desk.client(token=made["token"])
    assert narrow.vms() == [] and narrow.ssh_key.list()
    with pytest.raises(exedev.PermissionDeniedError) as refused:
        narrow.whoami()
    assert (refused.value.status, refused.value.operation) == (403, "whoami")
    assert "expires_at" not in exe.ssh_key.generate_api_key(exp="never")


def test_a_key_for_one_vm_alone_is_refused_with_the_way_to_have_it(exe: Driven) -> None:
    for flags in ({"vm": "demo"}, {"vm": "demo", "ssh_user": "root"}):
        with pytest.raises(exedev.APIError, match="is not offered: a key reaches VMs by their tag") as refused:
            exe.ssh_key.add("ssh-ed25519 AAAA laptop", **flags)
        assert refused.value.status == 422
    assert len(exe.ssh_key.list()["ssh_keys"]) == 1


def test_a_platform_that_is_gone_is_a_network_error(desk: Desk) -> None:
    exe = desk.client()
    desk.world.path.rename(desk.world.path.with_suffix(".gone"))
    with pytest.raises(exedev.NetworkError):
        exe.whoami()


def test_a_bad_token_is_an_authentication_error(desk: Desk) -> None:
    for token in ("nonsense", "usy0.e30.AAAA", "usy1.nothing"):
        with pytest.raises(exedev.AuthenticationError):
            desk.client(token=token).whoami()
