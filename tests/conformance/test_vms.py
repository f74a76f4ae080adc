"""VMs through the package, on a control plane with fake machines: names, documents and states."""
from __future__ import annotations

from datetime import datetime

import exedev
import pytest

from tests.conformance.conftest import Desk
from tests.conformance.driven import Driven
from ussycode.vms import samples

covers = pytest.mark.covers
SNAPSHOT = ("name", "status", "ssh_dest", "https_url", "tags", "comment", "region", "egress", "created_at",
            "prompt_error")


@covers("Client.new", "VM.__enter__", "VM.__exit__", *(f"VM.{name}" for name in SNAPSHOT))
def test_a_vm_in_a_with_block_is_gone_after_it(exe: Driven) -> None:
    with exe.new(name="build", comment="a note", tags=["ci", "web"], env={"A": "x 'y'"}, no_pool=True) as vm:
        assert (vm.name, vm.status, vm.comment, vm.tags) == ("build", "running", "a note", ("ci", "web"))
        assert (vm.ssh_dest, vm.https_url) == ("build@localhost", "https://build.localhost:8443/")
        assert (vm.region, vm.egress, vm.prompt_error) == (None, "all", None)
        assert isinstance(vm.created_at, datetime)
    assert exe.vms() == []
    with pytest.raises(exedev.NotFoundError):
        vm.delete()


@covers("Client.vm", "Client.vms", "VM.refresh", "VM.url")
def test_listing_and_finding(exe: Driven) -> None:
    for name in ("web-a", "web-b", "store"):
        exe.new(name=name, wait_until="created")
    assert [vm.name for vm in exe.vms("web-*")] == ["web-a", "web-b"]
    vm = exe.vm("store")
    vm.refresh()
    assert (vm.name, vm.status, vm.region, vm.egress) == ("store", "running", "local", "all")
    assert (vm.comment, vm.tags) == ("", ())
    assert vm.url(3000, "/x") == "https://store.localhost:3000/x"
    assert exe.vms("no_such.*") == []
    for name in ("nothere", "Store"):
        with pytest.raises(exedev.NotFoundError):
            exe.vm(name)
    exe.delete("store")
    with pytest.raises(exedev.NotFoundError):
        vm.refresh()


@covers("Client.delete", "VM.delete")
def test_deleting_several_names_what_was_missing(exe: Driven) -> None:
    vm = exe.new(wait_until="created")
    exe.new(name="other", wait_until="created")
    gone = exe.delete(vm, "nothere", "Other", "other")
    assert gone["deleted"] == [vm.name, "other"]
    assert gone["failed"] == gone["not_found"] == ["nothere", "Other"]
    exe.new(wait_until="created").delete()
    assert exe.vms() == []


@covers("VM.rename", "VM.tag", "VM.untag", "VM.set_comment", "VM.set_egress", "VM.resize", "VM.stats")
def test_changing_a_vm(exe: Driven) -> None:
    vm = exe.new(name="demo", wait_until="created", memory="1G", disk=6, cpu=2)
    vm.rename("shop")
    assert (vm.name, vm.ssh_dest, vm.https_url) == ("shop", "shop@localhost", "https://shop.localhost:8443/")
    assert vm.tag("prod", "web")["tags"] == ["prod", "web"] == vm.untag("old")["tags"]
    assert vm.untag("web")["tags"] == ["prod"] == list(vm.tags)
    note = "-- it's \"quoted\" \\ and ünïcode"
    assert vm.set_comment(note)["comment"] == vm.comment == note
    assert vm.set_comment("")["comment"] == vm.comment == ""
    assert vm.set_egress("integrations")["egress_policy"] == vm.egress == "integrations"
    assert vm.resize(disk="8G") == {"vm_name": "shop", "disk_old_bytes": 6 << 30, "disk_new_bytes": 8 << 30}
    assert vm.resize(cpu=1, memory="2GB") == {
        "vm_name": "shop", "old_memory": 1 << 30, "new_memory": 2 << 30, "old_cpus": 2, "new_cpus": 1,
    }
    assert vm.stats()["points"] is None
    assert (vm.stats(range="7d")["name"], vm.stats(range="7d")["range"]) == ("shop", "7d")


def test_figures_have_the_shape_that_the_package_promises(desk: Desk, exe: Driven) -> None:
    vm = exe.new(name="demo", wait_until="created")
    for _ in range(3):
        desk.loop.run(samples.take(desk.world.base.app))
        desk.world.base.clock.advance(samples.INTERVAL)
    points = vm.stats(range="30d")["points"]
    assert len(points) == 2 and points[0]["vm_name"] == "demo"


@covers("VM.restart", "VM.pause", "VM.resume", "VM.wait_until_ready")
def test_a_vm_is_restarted_paused_and_resumed(desk: Desk, exe: Driven) -> None:
    vm = exe.new(name="demo")
    assert vm.restart()["status"] == "restarted"
    assert vm.pause()["status"] == vm.status == "paused"
    with pytest.raises(exedev.VMNotRunningError):
        vm.run("true")
    assert vm.resume()["cold_booted"] == "false"
    vm.pause(flush=False)
    desk.driver.lose_memory(next(iter(desk.driver.vms)))
    assert vm.resume(wait_until="created")["cold_booted"] == "true"
    vm.wait_until_ready()
    assert vm.status == "running"


@covers("VM.copy")
def test_a_copy_has_the_sources_tags_unless_told_otherwise(exe: Driven) -> None:
    vm = exe.new(name="demo", tags=["prod"], comment="the shop", egress="integrations", wait_until="created")
    with vm.copy("shop") as copy:
        assert (copy.name, copy.status, copy.tags, copy.egress) == ("shop", "running", ("prod",), "integrations")
        told = copy.ssh_dest, copy.https_url, copy.created_at, copy.comment
        copy.refresh()
        assert (copy.ssh_dest, copy.https_url, copy.created_at, copy.comment) == told
    plain = vm.copy(copy_tags=False, cpu=2, memory="1G", disk=6, egress="all", wait_until="created")
    assert (plain.tags, plain.egress) == ((), "all")
    assert [found.name for found in exe.vms()] == sorted(["demo", plain.name])


@covers("VM.share.show", "VM.share.port", "VM.share.set_public", "VM.share.set_private")
def test_a_vm_is_shown_to_everybody_and_hidden_again(exe: Driven) -> None:
    vm = exe.new(name="demo", wait_until="created")
    shown = vm.share.show(qr=True)
    assert (shown["status"], shown["url"], shown["users"], shown["links"]) == ("private", vm.https_url, [], [])
    assert vm.share.port(3000)["status"] == "updated"
    assert vm.share.port()["port"] == 3000
    assert vm.share.set_public()["share"] == vm.share.show()["status"] == "public"
    assert vm.share.set_private()["share"] == "private"


@covers("VM.share.receive_email")
def test_a_vm_takes_mail_and_takes_it_no_more(exe: Driven) -> None:
    vm = exe.new(name="demo", wait_until="created")
    assert vm.share.receive_email()["email_enabled"] is False
    made = vm.share.receive_email(True)
    assert (made["status"], made["email_enabled"]) == ("success", True) and made["email_address"].count("@demo.") == 1
    assert vm.share.receive_email()["reply_policy"] == "none"
    assert vm.share.receive_email(False)["email_enabled"] is False
    with pytest.raises(exedev.APIError, match="reply-policy"):
        vm.share.receive_email(True, reply_policy="owner")


@covers("VM.share.add", "VM.share.remove", "VM.share.add_link", "VM.share.remove_link")
def test_sharing_with_people_and_links(exe: Driven) -> None:
    vm = exe.new(name="demo", wait_until="created")
    added = vm.share.add("bob@example.org", message="have a look", qr=True)
    assert (added["shared_with"], added["message"]) == ("bob@example.org", "Invitation sent")
    assert vm.share.add("bob@example.org")["message"] == "Already shared with bob@example.org"
    assert vm.share.add("bob@example.org", root=True)["share_level"] == "root"
    (user,) = vm.share.show()["users"]
    assert (user["email"], user["status"], user["share_level"]) == ("bob@example.org", "pending", "root")
    assert datetime.fromisoformat(user["invited_at"])
    assert vm.share.remove("bob@example.org", root=True)["share_level"] == "web"
    assert vm.share.remove("bob@example.org")["status"] == "success"
    link = vm.share.add_link(qr=True)
    assert link["url"].endswith(link["token"])
    listed, = vm.share.show()["links"]
    assert (listed["use_count"], listed["last_used_at"]) == (0, None) and listed["token"] != link["token"]
    assert vm.share.remove_link(link["token"])["status"] == "success"
    assert vm.share.show()["links"] == vm.share.show()["users"] == []
    for refused in (lambda: vm.share.add("team"), lambda: vm.share.add("team", root=True)):
        with pytest.raises(exedev.APIError, match="not grouped into teams"):
            refused()



def test_what_a_self_hosted_platform_does_not_sell_is_refused_with_the_reason(exe: Driven) -> None:
    for flags in ({"pool": "big"}, {"standalone": True}, {"integrations": ["github"]}):
        with pytest.raises(exedev.APIError, match="is not offered: ") as refused:
            exe.new(**flags)
        assert refused.value.status == 422
    assert exe.vms() == []


def test_a_taken_name_a_bad_image_and_a_bad_size_are_sentences(exe: Driven) -> None:
    exe.new(name="demo", wait_until="created")
    wrong = ({"name": "demo"}, {"image": "no such"}, {"disk": "lots"}, {"comment": "x" * 201}, {"cpu": 99})
    for flags in wrong:
        with pytest.raises(exedev.APIError) as refused:
            exe.new(**flags)
        assert refused.value.status == 422 and ": " in str(refused.value)
    assert len(exe.vms()) == 1


def test_a_token_without_ssh_still_makes_vms_but_cannot_wait_for_them(desk: Desk) -> None:
    exe = desk.client(["new", "ls", "rm"])
    with pytest.raises(exedev.VMReadyError, match="may not run ssh"):
        exe.new(name="demo")
    assert exe.vms() == []
    with pytest.raises(exedev.VMReadyError) as kept:
        exe.new(name="demo", keep_on_failure=True)
    assert kept.value.vm.name == "demo" and len(exe.vms()) == 1


def test_too_many_requests_are_retried_or_said(desk: Desk) -> None:
    patient, hasty = desk.client(), desk.client(max_retries=0)
    limit = desk.world.app.config.exec_rate
    clock = desk.world.base.clock
    with pytest.raises(exedev.RateLimitError):
        for _ in range(limit + 1):
            hasty.whoami()
    clock.advance(60)
    assert patient.whoami()
