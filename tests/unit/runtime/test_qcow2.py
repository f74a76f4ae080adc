"""Disks read and written by us are what QEMU's own tools read and write."""
from __future__ import annotations

import os
import struct
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

from ussycode.base.errors import Failure
from ussycode.runtime.qcow2.layout import CLUSTER, parse
from ussycode.runtime.qcow2.reader import Foreign, open_layer, open_raw, runs
from ussycode.runtime.qcow2.writer import draw

SIZE = 640 << 20
"""More than one table tells of."""


def tool(*words: object) -> str:
    return subprocess.run([*map(str, words)], check=True, capture_output=True, text=True, timeout=30).stdout


def disk(path: Path, below: Path | None = None, form: str = "qcow2", *, writes: Sequence[str] = ()) -> Path:
    back = () if below is None else ("-F", form, "-b", below)
    tool("qemu-img", "create", "-q", "-f", "qcow2", *back, path, SIZE)
    tool("qemu-io", "-f", "qcow2", *(word for write in writes for word in ("-c", write)), path)
    return path


def raw(path: Path) -> Path:
    with path.open("wb") as file:
        file.truncate(300 << 20)
        os.pwrite(file.fileno(), b"image" * 100_000, 5 * CLUSTER)
    return path


def chain(folder: Path) -> tuple[Path, Path, Path]:
    """An image and two layers: written over each other, across tables, with zeros and a part of a cluster."""
    base = raw(folder / "base.raw")
    low = disk(folder / "low", base, "raw", writes=("write -P 1 0 1M", "write -P 2 510M 6M", "write -P 3 600M 64k"))
    top = disk(folder / "top", low, writes=("write -P 4 512k 1M", "write -z 511M 2M", "write -P 5 630M 4k"))
    return base, low, top


def same(one: Path, other: Path, form: str = "qcow2") -> bool:
    return "identical" in tool("qemu-img", "compare", "-f", "qcow2", "-F", form, one, other)


def test_a_chain_becomes_one_file_that_qemu_finds_whole(tmp_path: Path) -> None:
    base, low, top = chain(tmp_path)
    sources = [open_layer(top), open_layer(low), open_raw(base)]
    drawn = draw(list(runs(sources, SIZE)), SIZE, note=b'{"init":"tiny"}')
    out = tmp_path / "out.qcow2"
    streamed = b"".join(drawn.stream())
    out.write_bytes(streamed)
    assert len(streamed) == drawn.size
    tool("qemu-img", "check", "-q", "-f", "qcow2", out)
    assert same(top, out)
    assert parse(streamed).note == b'{"init":"tiny"}'


def test_layers_are_merged_above_what_stays_below(tmp_path: Path) -> None:
    base, low, top = chain(tmp_path)
    merged = tmp_path / "merged"
    drawn = draw(list(runs([open_layer(top), open_layer(low)], SIZE)), SIZE, str(base), "raw")
    with merged.open("wb") as file:
        drawn.write(file.fileno())
    tool("qemu-img", "check", "-q", "-f", "qcow2", merged)
    assert same(top, merged)
    assert open_layer(merged).header.backing == str(base)


def test_a_disk_from_elsewhere_is_read_whatever_its_clusters_are(tmp_path: Path) -> None:
    _, _, top = chain(tmp_path)
    for options in ((), ("-c",), ("-o", "cluster_size=4k"), ("-c", "-o", "cluster_size=2M"), ("-o", "compat=0.10")):
        other = tmp_path / "other.qcow2"
        tool("qemu-img", "convert", "-O", "qcow2", *options, top, other)
        with other.open("rb") as file, (tmp_path / "mine").open("wb") as mine:
            mine.truncate(SIZE)
            for at, data in Foreign(file.fileno(), parse(os.pread(file.fileno(), 1 << 16, 0))).pieces():
                os.pwrite(mine.fileno(), data, at)
        assert same(top, tmp_path / "mine", "raw"), options


def test_hostile_headers_are_refused(tmp_path: Path) -> None:
    good = disk(tmp_path / "good").read_bytes()
    spoilt = {
        "no magic": (0, b"QFI\0"), "version 9": (4, struct.pack(">I", 9)), "clusters of 2^60": (20, b"\0\0\0\x3c"),
        "larger than all": (24, b"\x7f" + bytes(7)), "no size": (24, bytes(8)), "encrypted": (32, b"\0\0\0\1"),
        "tables without end": (36, b"\xff\xff\xff\xff"), "tables outside": (40, b"\x00\xff" + bytes(6)),
        "unknown features": (72, b"\0\0\0\0\0\0\0\x10"), "name outside": (8, b"\0\0\0\0\x7f\0\0\0\0\0\0\xff"),
    }
    for what, (at, data) in spoilt.items():
        file = tmp_path / "bad"
        file.write_bytes(good[:at] + data + good[at + len(data):])
        with pytest.raises(Failure, match="not a disk"):
            open_layer(file)
            pytest.fail(what)
    file.write_bytes(good[:70])
    with pytest.raises(Failure, match="not a disk"):
        open_layer(file)
