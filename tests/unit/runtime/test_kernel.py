"""The guest kernel: taken out of a real .deb, kept, and never half there."""
from __future__ import annotations

import argparse
import gzip
import hashlib
import lzma
import struct
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from ussycode import config as settings
from ussycode.base.errors import Failure
from ussycode.cli.image import image
from ussycode.runtime import bzimage, kernel

ELF = b"\x7fELF" + bytes(range(200)) * 20


def bz_image(payload: bytes) -> bytes:
    """A bzImage with just the header fields that say where the payload is."""
    image = bytearray(1024)
    image[0x1F1] = 1
    image[0x202:0x206] = b"HdrS"
    struct.pack_into("<H", image, 0x206, 0x20F)
    struct.pack_into("<II", image, 0x248, 16, len(payload))
    return bytes(image) + bytes(16) + payload + b"what a linker leaves"


def lz4_legacy(data: bytes) -> bytes:
    """One block of literals only, as `lz4 -l` would write for data it cannot shrink."""
    length = len(data) - 15
    block = b"\xf0" + b"\xff" * (length // 255) + bytes([length % 255]) + data
    return b"\x02\x21\x4c\x18" + struct.pack("<I", len(block)) + block


def sized(packed: bytes) -> bytes:
    return packed + struct.pack("<I", len(ELF))


@pytest.mark.parametrize("pack", [gzip.compress, lzma.compress, lz4_legacy], ids=["gzip", "xz", "lz4"])
def test_the_elf_kernel_comes_out_of_every_compression(pack) -> None:
    assert bzimage.vmlinux(bz_image(sized(pack(ELF)))) == ELF


def test_the_elf_kernel_comes_out_of_zstandard() -> None:
    raw_block = struct.pack("<I", len(ELF) << 3 | 1)[:3] + ELF
    frame = b"\x28\xb5\x2f\xfd" + b"\x00" + b"\x58" + raw_block  # no content size, as from a pipe
    assert bzimage.vmlinux(bz_image(sized(frame))) == ELF


@pytest.mark.parametrize(("image", "why"), [
    (b"", "not a bzImage"),
    (b"MZ" + bytes(4000), "not a bzImage"),
    (bz_image(sized(gzip.compress(ELF)))[:1100], "cut short"),
    (bz_image(b"PK\x03\x04 something else"), "compression is unknown"),
    (bz_image(sized(gzip.compress(b"not an ELF file"))), "not an ELF file"),
    (bz_image(b"\x02\x21\x4c\x18" + struct.pack("<I", 9) + b"\xff" * 9 + bytes(4)), "damaged"),
])
def test_anything_else_is_refused_with_the_reason(image: bytes, why: str) -> None:
    with pytest.raises(Failure) as refused:
        bzimage.vmlinux(image)
    assert why in refused.value.sentence


class Archive:
    """A folder of programs that stand in for apt: they serve one real kernel package from a file."""

    def __init__(self, home: Path) -> None:
        self.home, self.bin = home, home / "bin"
        self.bin.mkdir(parents=True)
        self.asked = home / "asked"
        self.asked.write_text("")
        self.publish("6.1.1-1")

    def publish(self, version: str, modules: tuple[str, ...] = kernel.MODULES, promised: str = "") -> None:
        name = "linux-image-6.1.0-1-cloud-amd64"
        deb = self._deb(name, version, modules)
        digest = promised or hashlib.sha256(deb.read_bytes()).hexdigest()
        self._program("apt-cache", f'''case "$*" in
            *linux-image-cloud-amd64) echo "Package: x\nVersion: {version}\nSHA256: 0\nDepends: {name} (= {version})";;
            *) echo "Package: {name}\nVersion: {version}\nSHA256: {digest}";; esac''')
        self._program("apt-get", f'cp {deb} {name}.deb')

    def _program(self, name: str, body: str) -> None:
        path = self.bin / name
        path.write_text(f"#!/bin/sh\necho {name} >> {self.asked}\n{body}\n")
        path.chmod(0o755)

    def _deb(self, name: str, version: str, modules: tuple[str, ...]) -> Path:
        tree = self.home / f"tree-{version}"
        (tree / "DEBIAN").mkdir(parents=True)
        (tree / "DEBIAN/control").write_text(
            f"Package: {name}\nVersion: {version}\nArchitecture: amd64\nMaintainer: Nobody <n@example.org>\n"
            "Description: a kernel for a test\n",
        )
        (tree / "boot").mkdir()
        (tree / "boot/vmlinuz-6.1.0-1-cloud-amd64").write_bytes(bz_image(sized(gzip.compress(ELF))))
        drivers = tree / "lib/modules/6.1.0-1-cloud-amd64/kernel/drivers"
        drivers.mkdir(parents=True)
        for module in modules:
            (drivers / f"{module}.ko.xz").write_bytes(lzma.compress(f"module {module}".encode()))
        (drivers.parent.parent / "modules.builtin").write_text("kernel/fs/ext4/ext4.ko\n")
        deb = self.home / f"{version}.deb"
        subprocess.run(["dpkg-deb", "-Znone", "--build", str(tree), str(deb)], check=True, capture_output=True)
        return deb


@pytest.fixture
def archive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Archive:
    made = Archive(tmp_path / "archive")
    # `strip` would refuse these modules, which are no ELF files; without binutils it is left out
    (made.bin / "strip").write_text("#!/bin/sh\n")
    (made.bin / "strip").chmod(0o755)
    monkeypatch.setenv("PATH", f"{made.bin}:/usr/sbin:/usr/bin:/sbin:/bin")
    return made


def test_the_kernel_is_fetched_once_and_then_needs_nobody(archive: Archive, tmp_path: Path) -> None:
    stages: list[float] = []
    first = kernel.fetch_kernel(tmp_path / "cache", lambda stage, done: stages.append(done))
    archive.asked.write_text("")
    second = kernel.fetch_kernel(tmp_path / "cache")
    assert first == second
    assert first.vmlinux.read_bytes() == ELF
    assert tuple(first.modules) == kernel.MODULES
    assert first.modules["virtio-rng"] == b"module virtio-rng"
    assert stages == sorted(stages) and stages[-1] == 1.0
    assert archive.asked.read_text() == ""


def test_another_kernel_module_or_guest_program_is_another_boot(archive: Archive, tmp_path: Path) -> None:
    """Templates and written memory go by it: what was begun by other code is not gone on with."""
    first = kernel.fetch_kernel(tmp_path)
    other = replace(first, modules={**first.modules, "virtio": b"another"})
    assert len({kernel._digest(first, b"init"), kernel._digest(first, b"other"), kernel._digest(other, b"init"),
                kernel._digest(replace(first, digest="0" * 64), b"init")}) == 4


def test_an_update_moves_to_the_newer_package(archive: Archive, tmp_path: Path) -> None:
    old = kernel.fetch_kernel(tmp_path)
    archive.publish("6.1.2-1")
    assert kernel.fetch_kernel(tmp_path).version == old.version
    assert kernel.fetch_kernel(tmp_path, update=True).version == "6.1.2-1"


def test_the_operator_moves_to_a_newer_kernel(
    archive: Archive, tmp_path: Path, capsys: pytest.CaptureFixture[str],
) -> None:
    """Without a way to it, guests would run the first kernel for ever, with all its holes."""
    asked, config = argparse.Namespace(what="kernel"), settings.load({"data_dir": str(tmp_path)}, {})
    assert image(config, asked) == 0
    assert "6.1.1-1 is the newest" in capsys.readouterr().out
    archive.publish("6.1.2-1")
    assert image(config, asked) == 0
    assert "6.1.1-1 -> 6.1.2-1" in capsys.readouterr().out
    assert kernel.fetch_kernel(tmp_path / "cache").version == "6.1.2-1"
    assert kernel.fetch_kernel(tmp_path).version == "6.1.2-1"


def test_a_package_that_is_not_what_the_archive_promised_is_refused(archive: Archive, tmp_path: Path) -> None:
    archive.publish("6.1.3-1", promised="0" * 64)
    with pytest.raises(Failure) as refused:
        kernel.fetch_kernel(tmp_path / "cache")
    assert refused.value.error is kernel.DAMAGED
    assert list((tmp_path / "cache/kernel").iterdir()) == []


def test_a_kernel_without_a_needed_module_is_refused_and_leaves_nothing(archive: Archive, tmp_path: Path) -> None:
    archive.publish("6.1.4-1", modules=kernel.MODULES[:-1])
    with pytest.raises(Failure) as refused:
        kernel.fetch_kernel(tmp_path / "cache")
    assert "virtio-rng" in refused.value.sentence
    assert list((tmp_path / "cache/kernel").iterdir()) == []


def test_a_host_whose_apt_knows_no_such_kernel_is_told_what_to_do(archive: Archive, tmp_path: Path) -> None:
    archive._program("apt-cache", "echo 'E: No packages found' >&2; exit 100")
    with pytest.raises(Failure) as refused:
        kernel.fetch_kernel(tmp_path)
    assert refused.value.error is kernel.NO_PACKAGE
    assert "apt-get update" in refused.value.hint
