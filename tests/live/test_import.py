"""A VM leaves as a file and comes back whole: as a disk, as an archive, and as a machine of a stock QEMU."""
from __future__ import annotations

import json
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.live.rig import Platform, platform
from tests.live.test_any_image import hard_link
from tests.live.test_images import cmdline, emulated
from tests.live.test_main_loop import token
from ussycode.runtime.images.store import Image
from ussycode.runtime.kernel import BootFiles

pytestmark = pytest.mark.timeout(600)
HELLO = "#!/bin/sh\necho stock: $(cat /home/ussy/note)\nsleep 1\n"
"""What a machine does as its process 1 that is told to."""


@pytest.fixture(scope="module")
def place(
    live_data: Path, boot: BootFiles, debian_min: Image, tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Platform]:
    """A platform whose uploads no other one cleans away."""
    live = Path(tempfile.mkdtemp(prefix="importing-", dir=live_data))
    live.chmod(0o755)
    for kept in ("cache", "images/debian-min"):
        shutil.copytree(
            live_data / kept, live / kept, copy_function=hard_link,
            ignore=shutil.ignore_patterns("debs", "wheels", ".*", "*.part"),
        )
    try:
        with platform(live / "data", tmp_path_factory.mktemp("home"), live, "--default-image", "debian-min") as made:
            yield made
    finally:
        shutil.rmtree(live, ignore_errors=True)


@pytest.fixture(scope="module")
def files(place: Platform, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A VM that wrote something, in all three forms."""
    folder = tmp_path_factory.mktemp("exported")
    assert place.lobby("new --name mover --env COLOUR=green", seconds=120).status == 0
    wrote = place.ssh("mover@localhost", "head -c 3M /dev/urandom > big; echo precious > note; chmod 600 note; "
                                         "cat > hello; chmod +x hello; sync; sha256sum big", stdin=HELLO.encode())
    assert wrote.status == 0, wrote
    (folder / "sum").write_text(wrote.out)
    for form in ("qcow2", "oci", "tar"):
        line = f"ssh -p {place.ports['ssh']} localhost export mover --format {form} > {folder / form}"
        done = place.program("sh", "-c", line, seconds=200)
        assert done.status == 0, done
        print(f"{form}: {(folder / form).stat().st_size >> 20} MiB")
    assert place.lobby("rm mover --now", seconds=60).status == 0
    return folder


@pytest.mark.parametrize("form", ["qcow2", "oci", "tar"])
def test_what_a_vm_held_is_in_the_vm_that_is_made_of_its_file(place: Platform, files: Path, form: str) -> None:
    line = f"ssh -p {place.ports['ssh']} localhost import back < {files / form}"
    done = place.program("sh", "-c", line, seconds=300)
    assert done.status == 0, done
    user = "root" if form == "tar" else "ussy"
    said = place.ssh("back@localhost", "id -un; cd /home/ussy; sha256sum big; cat note; "
                                     "stat -c '%a %U' note; df -BG / | tail -1")
    lines = said.out.splitlines()
    assert lines[:4] == [user, (files / "sum").read_text().strip(), "precious", "600 ussy"], said
    assert int(lines[4].split()[1].rstrip("G")) >= 4, "it has the size that was asked for, not the file's"
    assert place.lobby("rm back --now", seconds=60).status == 0
    assert place.lobby("image rm localhost/back", seconds=60).status == 0


def test_https_takes_it_too_and_a_hostile_one_is_refused(place: Platform, files: Path, tmp_path: Path) -> None:
    bearer = f"Authorization: Bearer {token(place, 'admin', json.dumps({'cmds': ['import', 'rm']}))}"
    url = place.url("localhost", "/import/posted")
    got = place.curl("-H", bearer, "-T", str(files / "qcow2"), url, seconds=200)
    assert json.loads(got.out)["image"] == "localhost/posted", got
    assert place.ssh("posted@localhost", "cat note").out == "precious\n"
    assert place.lobby("rm posted --now", seconds=60).status == 0
    evil = tmp_path / "evil.qcow2"
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", "-F", "raw", "-b", "/etc/shadow", evil, "8M"],
                   check=True, timeout=30)
    got = place.curl("-H", bearer, "-T", str(evil), place.url("localhost", "/import/evil"), seconds=60)
    assert "stands on another file" in json.loads(got.out)["error"], got


def test_a_stock_qemu_boots_the_exported_disk(files: Path, boot: BootFiles) -> None:
    """With nothing of ours but kernel and initrd: Debian's QEMU, a machine of its own, the disk as the root it is."""
    subprocess.run(["qemu-img", "check", "-q", "-f", "qcow2", files / "qcow2"], check=True, timeout=60)
    done = subprocess.run(
        ["timeout", "150", "qemu-system-x86_64", *emulated(), "-nodefaults", "-no-user-config", "-display", "none",
         "-no-reboot", "-snapshot", "-kernel", boot.kernel, "-initrd", boot.initrd,
         "-append", cmdline("/home/ussy/hello"), "-serial", "stdio",
         "-drive", f"id=d,file={files / 'qcow2'},format=qcow2,if=none", "-device", "virtio-blk-device,drive=d"],
        stdin=subprocess.DEVNULL, capture_output=True, timeout=170, check=False,
    )
    assert b"stock: precious" in done.stdout, (done.stdout + done.stderr)[-2000:].decode(errors="replace")
