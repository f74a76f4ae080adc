"""Whether the file of a paused VM's memory is believed; a wrong yes would run a guest on nonsense."""
from __future__ import annotations

from pathlib import Path

import msgspec

from ussycode.runtime.drivers.qemu import memory

KIND = "QEMU 7.2 tcg 1 vcpus 256 MiB"


def written(folder: Path, data: bytes = b"memory" * 100_000) -> Path:
    (folder / memory.FILE).write_bytes(data)
    about = memory._settled(folder / memory.FILE, KIND)
    (folder / "memory.json").write_bytes(msgspec.json.encode(about))
    return folder


def test_whole_memory_of_the_same_kind_of_machine_is_sound(tmp_path: Path) -> None:
    assert memory.is_sound(written(tmp_path), KIND)


def test_memory_of_another_qemu_or_size_is_not(tmp_path: Path) -> None:
    assert not memory.is_sound(written(tmp_path), KIND.replace("256", "512"))


def test_cut_changed_and_missing_memory_is_not(tmp_path: Path) -> None:
    assert not memory.is_sound(tmp_path, KIND)
    file = written(tmp_path) / memory.FILE
    whole = file.read_bytes()
    file.write_bytes(whole[:-1])
    assert not memory.is_sound(tmp_path, KIND)
    file.write_bytes(whole[:-1] + b"?")
    assert not memory.is_sound(tmp_path, KIND)
    file.write_bytes(whole)
    (tmp_path / "memory.json").write_text("{")
    assert not memory.is_sound(tmp_path, KIND)


def test_memory_given_up_is_gone_whatever_was_there(tmp_path: Path) -> None:
    memory.give_up(tmp_path)
    memory.give_up(written(tmp_path))
    assert list(tmp_path.iterdir()) == []
