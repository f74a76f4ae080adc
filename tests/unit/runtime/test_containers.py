"""What runc is told, whose disks root mounts, and which uids belong to whom; no container runs here."""
from __future__ import annotations

import os
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from ussycode.runtime.instance import FIRST_NUMBER, LAST_CONTAINER, LAST_NUMBER, SLOTS, Instance, claim
from ussycode.runtime.kernel import BootFiles
from ussycode.runtime.privileged import container_disks, image_bases
from ussycode.runtime.privileged.cgroups import Cgroups
from ussycode.runtime.privileged.container_bundle import UIDS, Container, config
from ussycode.runtime.privileged.container_calls import ALLOWED, profile
from ussycode.runtime.privileged.container_disks import Base
from ussycode.runtime.privileged.helper import Helper
from ussycode.runtime.privileged.image_bases import base_disk
from ussycode.runtime.privileged.protocol import ContainerDisk, ContainerMake, Disk, Refused, decode_request, encode

BOX = Container(
    hostname="demo", guest=Path("/guest"), init="tiny", uids=1 << 31, vcpus=2, memory_mib=256, cgroup="/ussycode-1/vm-2"
)
DIGEST = "ab" * 32


@pytest.fixture
def instance(tmp_path: Path) -> Instance:
    data = tmp_path / "data"
    data.mkdir()
    return claim(data, run_root=tmp_path / "run")


def helper(instance: Instance, *, containers: bool) -> Helper:
    (instance.run / "vm").mkdir(parents=True, exist_ok=True)
    nothing = BootFiles(Path("/"), Path("/"), "", "")
    return Helper(instance, nothing, 0, Cgroups(0, "ussycode-test"), with_containers=containers)


def image(instance: Instance, owner: int, content: bytes = b"") -> Base:
    """A published image whose files belong to `owner`; a real, empty file system unless `content` is given."""
    folder = instance.data / "images" / "mine" / DIGEST
    folder.mkdir(parents=True)
    disk = folder / "disk.raw"
    if content:
        disk.write_bytes(content)
    else:
        subprocess.run(["mkfs.ext4", "-q", "-F", str(disk), "8M"], check=True, capture_output=True, timeout=30)
    for path in (disk, folder, folder.parent):
        os.chown(path, owner, owner)
    return Base("mine", DIGEST)


def test_uid_ranges_of_containers_never_meet(instance: Instance) -> None:
    numbers = (FIRST_NUMBER, LAST_CONTAINER)
    first = [replace(instance, slot=slot).container_uids(n) for slot in (0, SLOTS - 1) for n in numbers]
    assert first == sorted(first)
    assert first[0] > replace(instance, slot=SLOTS - 1).uid(LAST_NUMBER), "nor those of QEMU"
    assert first[1] + UIDS <= (1 << 31) + (1 << 25), "the next instance begins behind"
    assert first[-1] + UIDS < (1 << 32) - 1, "the last uid means nobody to the kernel"
    with pytest.raises(ValueError, match="above"):
        instance.container_uids(LAST_CONTAINER + 1)


def test_the_bundle_gives_away_nothing() -> None:
    made = config(BOX)
    text = encode(made).decode()
    for name in ("SYS_ADMIN", "SYS_PTRACE", "NET_ADMIN", "MKNOD", "SYS_MODULE", "SYS_TIME", "SYS_RAWIO"):
        assert f"CAP_{name}" not in text
    linux = made["linux"]
    assert isinstance(linux, dict)
    kinds = {space["type"] for space in linux["namespaces"]}
    assert kinds == {"pid", "mount", "ipc", "uts", "cgroup", "network", "user"}
    assert linux["uidMappings"] == linux["gidMappings"] == [{"containerID": 0, "hostID": 1 << 31, "size": 65536}]
    assert linux["resources"]["memory"] == {"limit": 256 << 20}
    assert linux["resources"]["devices"] == [{"allow": False, "access": "rwm"}]
    sources = [m["source"] for m in made["mounts"] if m["type"] == "bind"]  # type: ignore[attr-defined]
    assert sources == ["/guest"], "one file of the host, read-only"


def test_calls_that_reach_deep_into_the_kernel_are_not_allowed() -> None:
    deep = {"mount", "umount2", "unshare", "setns", "pivot_root", "bpf", "perf_event_open", "keyctl", "add_key",
            "request_key", "io_uring_setup", "userfaultfd", "init_module", "finit_module", "kexec_load", "open_tree",
            "move_mount", "fsopen", "mount_setattr", "open_by_handle_at", "settimeofday", "swapon", "iopl", "ioperm"}
    assert deep.isdisjoint(ALLOWED)
    assert profile()["defaultAction"] == "SCMP_ACT_ERRNO"
    assert len(ALLOWED) == len(set(ALLOWED))


def test_an_image_that_only_root_could_write_is_mounted_as_it_lies(instance: Instance) -> None:
    base = image(instance, owner=0)
    assert base_disk(instance, base) == instance.data / "images/mine" / DIGEST / "disk.raw"


def test_an_image_of_anybody_else_is_copied_out_of_reach_and_checked(instance: Instance) -> None:
    base = image(instance, owner=instance.control_uid)
    sealed = base_disk(instance, base)
    assert sealed == instance.data / "containers/images" / f"{DIGEST}.raw"
    assert sealed.stat().st_uid == 0
    (instance.data / "images/mine" / DIGEST / "disk.raw").write_bytes(b"changed later")
    assert base_disk(instance, base) == sealed


def test_a_copy_of_an_image_goes_when_no_container_stands_on_it(instance: Instance) -> None:
    """Else whoever pulls images and tries them fills the host."""
    sealed = base_disk(instance, image(instance, owner=instance.control_uid))
    note = instance.container("vm_standsonitaaaaaa") / "base"
    note.parent.mkdir(parents=True)
    note.write_text(f"mine {DIGEST}")
    os.utime(sealed, (0, 0))
    image_bases.sweep(instance)
    assert sealed.exists(), "somebody stands on it"
    note.unlink()
    os.utime(sealed)
    image_bases.sweep(instance)
    assert sealed.exists(), "somebody may be about to"
    os.utime(sealed, (0, 0))
    image_bases.sweep(instance)
    assert not sealed.exists()


def test_nothing_is_copied_that_would_fill_the_host(
    instance: Instance, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(container_disks, "SPARE", 1 << 60)
    base = image(instance, owner=instance.control_uid)
    with pytest.raises(OSError, match=r"the host's disk is too full: a copy takes \d+ MiB"):
        base_disk(instance, base)
    source = tmp_path / "source"
    source.write_bytes(b"x" * 4096)
    with pytest.raises(OSError, match="too full"):
        container_disks.copy(source, tmp_path / "target")
    assert not (tmp_path / "target").exists() and not list((instance.data / "containers/images").iterdir())


@pytest.mark.parametrize("content", [b"no file system at all", b"\0" * (1 << 20)])
def test_a_damaged_image_is_never_mounted(instance: Instance, content: bytes) -> None:
    with pytest.raises(PermissionError, match="damaged"):
        base_disk(instance, image(instance, instance.control_uid, content))
    assert not list((instance.data / "containers/images").glob("*.raw"))


def test_a_link_in_place_of_an_image_is_not_followed(instance: Instance) -> None:
    base = image(instance, instance.control_uid)
    disk = instance.data / "images/mine" / DIGEST / "disk.raw"
    disk.rename(disk.with_name("elsewhere"))
    disk.symlink_to("elsewhere")
    with pytest.raises(OSError, match="symbolic links"):
        base_disk(instance, base)


def test_every_verb_is_refused_until_the_operator_enables_them(instance: Instance) -> None:
    asked = ContainerDisk("vm_nobodyaaaaaaaaaa")
    assert helper(instance, containers=False).do(asked) == Refused("containers are not enabled on this node")
    assert helper(instance, containers=True).do(asked) == Disk(-1, 0, ())


@pytest.mark.parametrize("change", [
    {"image": "../../etc"}, {"image": ".hidden"}, {"digest": "xyz"}, {"disk_gib": 0}, {"disk_gib": 1 << 40},
    {"vm": "../x"}, {"source": "a/b"}, {"snapshot": "../x"}, {"source_number": 511},
])
def test_what_is_asked_names_no_path(change: dict[str, object]) -> None:
    plain = {"type": "ContainerMake", "vm": "vm_fineaaaaaaaaaaaa", "image": "mine", "digest": DIGEST, "disk_gib": 5}
    assert isinstance(decode_request(encode(plain)), ContainerMake)
    with pytest.raises(ValueError, match=r"\$"):
        decode_request(encode(plain | change))


def test_a_copied_disk_has_the_holes_of_its_source(tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    with source.open("wb") as file:
        file.truncate(64 << 20)
        os.pwrite(file.fileno(), b"x" * 4096, 32 << 20)
    container_disks.copy(source, target)
    assert target.read_bytes() == source.read_bytes()
    assert target.stat().st_blocks * 512 < 1 << 20
