"""The kernel unpacks what we wrote: names, modes, contents, and the same bytes every time."""
from __future__ import annotations

import stat
from pathlib import Path

from ussycode.runtime.guest.initrd import make_initrd


def unpack(archive: bytes) -> dict[str, tuple[int, bytes]]:
    entries, at = {}, 0
    while True:
        assert archive[at : at + 6] == b"070701"
        numbers = [int(archive[at + 6 + 8 * i : at + 14 + 8 * i], 16) for i in range(13)]
        mode, size, name_size = numbers[1], numbers[6], numbers[11]
        name = archive[at + 110 : at + 110 + name_size - 1].decode()
        at += (110 + name_size + 3) & ~3
        data, at = archive[at : at + size], at + ((size + 3) & ~3)
        if name == "TRAILER!!!":
            return entries
        entries[name] = (mode, data)


def test_init_and_modules_are_where_pid_1_looks(tmp_path: Path) -> None:
    (tmp_path / "init").write_bytes(b"\x7fELF!")
    out = make_initrd(tmp_path / "init", {"virtio-rng": b"rng", "virtio": b"bus"}, tmp_path / "initrd")
    entries = unpack(out.read_bytes())
    assert entries["init"] == (stat.S_IFREG | 0o755, b"\x7fELF!")
    assert entries["mod/virtio-rng.ko"] == (stat.S_IFREG | 0o644, b"rng")
    assert entries["root"][0] == stat.S_IFDIR | 0o755
    assert stat.S_ISCHR(entries["dev/console"][0])


def test_the_same_contents_give_the_same_bytes(tmp_path: Path) -> None:
    (tmp_path / "init").write_bytes(b"x")
    one = make_initrd(tmp_path / "init", {"a": b"1", "b": b"2"}, tmp_path / "one").read_bytes()
    two = make_initrd(tmp_path / "init", {"b": b"2", "a": b"1"}, tmp_path / "two").read_bytes()
    assert one == two
    assert sorted(p.name for p in tmp_path.iterdir()) == ["init", "one", "two"]
