"""Layers of images: merged in memory, written into a disk by a tool that never sees their names as paths."""
from __future__ import annotations

import gzip
import io
import random
import stat
import subprocess
import tarfile
from pathlib import Path

import pytest

from ussycode.base.errors import Failure
from ussycode.runtime.images import ext4
from ussycode.runtime.images.layers import Blobs, Budget, read_layer
from ussycode.runtime.images.tree import Entry, Node, Tree, folder

NET_RAW = "\x01\x00\x00\x02\x00\x20" + "\x00" * 14
"""What `setcap cap_net_raw=ep` writes."""


def member(
    name: str, data: bytes = b"", kind: bytes = tarfile.REGTYPE, link: str = "", **more: object,
) -> tarfile.TarInfo:
    made = tarfile.TarInfo(name)
    made.type, made.linkname, made.size = kind, link, len(data)
    made.mode = 0o755 if kind == tarfile.DIRTYPE else 0o644
    for key, value in more.items():
        setattr(made, key, value)
    return made


def tarred(*members: tuple[tarfile.TarInfo, bytes]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for info, data in members:
            tar.addfile(info, io.BytesIO(data))
    return out.getvalue()


def layer(*members: tarfile.TarInfo | tuple[tarfile.TarInfo, bytes]) -> bytes:
    return tarred(*(m if isinstance(m, tuple) else (m, b"") for m in members))


def zstd(data: bytes) -> bytes:
    return subprocess.run(["zstd", "-cq"], input=data, capture_output=True, check=True).stdout


class Bench:
    """A folder where layers become trees and disks."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.blobs, self.budget = folder, Blobs(folder / "blobs"), Budget()
        self.blobs.folder.mkdir()

    def tree(self, *layers: bytes) -> Tree:
        made = Tree()
        for number, data in enumerate(layers):
            path = self.folder / f"layer{number}"
            path.write_bytes(data)
            made.apply(read_layer(path, self.blobs, self.budget))
        return made

    def asked(self, disk: Path, request: str) -> str:
        return subprocess.run(["/usr/sbin/debugfs", "-R", request, disk], capture_output=True, text=True).stdout


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def paths(tree: Tree) -> list[str]:
    return [path.decode() for path, _ in tree.files()][1:]


def test_whiteouts_hide_what_lies_below_and_nothing_of_their_own_layer(bench: Bench) -> None:
    lower = layer(member("etc/a"), member("etc/b"), member("opt/old"), member("gone/x"))
    upper = layer(
        member("opt/new"), member("opt/.wh..wh..opq"), member("etc/.wh.a"), member(".wh.gone"), member("etc/.wh.none"),
    )
    assert paths(bench.tree(lower, upper)) == ["/etc", "/etc/b", "/opt", "/opt/new"]


def test_a_name_may_change_its_type_from_layer_to_layer(bench: Bench) -> None:
    lower = layer(member("a/x"), member("b", b""), member("c", kind=tarfile.SYMTYPE, link="/etc"))
    upper = layer(member("a"), member("b/y"), member("c", kind=tarfile.DIRTYPE))
    assert paths(bench.tree(lower, upper)) == ["/a", "/b", "/b/y", "/c"]


def test_symlinked_folders_are_followed_inside_the_tree_only(bench: Bench) -> None:
    made = bench.tree(layer(
        member("usr/lib", kind=tarfile.DIRTYPE), member("lib", kind=tarfile.SYMTYPE, link="usr/lib"),
        member("out", kind=tarfile.SYMTYPE, link="../../../../etc"), member("lib/a"), member("out/passwd"),
    ))
    assert {"/usr/lib/a", "/etc/passwd"} <= set(paths(made))


@pytest.mark.parametrize("bad", [
    layer(member("../evil")), layer(member("a/../../evil")), layer(member("a/..")),
    layer(member("x", kind=tarfile.LNKTYPE, link="../../etc/shadow")),
    layer(member("x", kind=tarfile.LNKTYPE, link="/etc/shadow")),
    layer(member("d", kind=tarfile.DIRTYPE), member("x", kind=tarfile.LNKTYPE, link="d")),
    layer(member("a", kind=tarfile.SYMTYPE, link="b"), member("b", kind=tarfile.SYMTYPE, link="a"), member("a/x")),
    layer(member("evil\nrm /etc/passwd")), layer(member("l", kind=tarfile.SYMTYPE, link="x\nquit")),
    layer(member("/".join("d" * 200))), layer(member("n" * 300)), layer(member("x" + "/y" * 1600)),
    layer(member(".wh...")), layer(member(".wh.")), layer(member("x", uid=1 << 40)), layer(member("x", uid=-5)),
    b"not a tar at all" * 100, layer((member("x", b"y" * 5000), b"y" * 5000))[:2000],
    gzip.compress(layer(member("x")))[:-9], zstd(layer((member("x", b"y" * 5000), b"y" * 5000)))[:-9],
    zstd(layer(member("x"))) + b"trailing noise",
    layer(member("x", pax_headers={f"SCHILY.xattr.user.{n}": "v" for n in range(40)})),
    layer(member("x", pax_headers={"SCHILY.xattr.user.k": "v" * 3000})),
    layer(member("d", kind=tarfile.CHRTYPE, devmajor=1 << 13)),
], ids=range(24))
def test_a_hostile_layer_is_refused_with_a_sentence(bench: Bench, bad: bytes) -> None:
    with pytest.raises(Failure) as refused:
        bench.tree(bad)
    assert refused.value.error.code == "image.bad_layer"


def test_too_many_files_and_bombs_are_ended(bench: Bench) -> None:
    bench.budget = Budget(entries=10)
    with pytest.raises(Failure, match="too many files"):
        bench.tree(layer(*(member(f"f{n}") for n in range(11))))
    bench.budget = Budget(unpacked=1 << 20)
    for pack in (gzip.compress, zstd):
        with pytest.raises(Failure, match="unpacks to more"):
            bench.tree(pack(tarred((member("zeros", b"\0" * (4 << 20)), b"\0" * (4 << 20)))))


def test_damaged_layers_never_do_more_than_fail(bench: Bench) -> None:
    chance = random.Random(7)
    whole = layer(
        (member("a/b", b"data" * 300), b"data" * 300), member("l", kind=tarfile.SYMTYPE, link="a"),
        member("h", kind=tarfile.LNKTYPE, link="a/b"), member("dev", kind=tarfile.CHRTYPE, devmajor=1, devminor=3),
        member("long" * 60, pax_headers={"SCHILY.xattr.user.k": "v"}),
    )
    before = set(bench.folder.parent.iterdir())
    for _ in range(300):
        broken = bytearray(whole)
        for _ in range(chance.randrange(1, 12)):
            broken[chance.randrange(len(broken))] = chance.randrange(256)
        try:
            bench.tree(bytes(broken))
        except Failure as failure:
            assert failure.error.code == "image.bad_layer"
    assert set(bench.folder.parent.iterdir()) == before


@pytest.mark.parametrize("pack", [gzip.compress, zstd, bytes])
def test_layers_come_packed_or_plain(bench: Bench, pack: object) -> None:
    assert paths(bench.tree(pack(layer(member("a"))))) == ["/a"]  # type: ignore[operator]


def test_the_disk_holds_owners_modes_links_devices_attributes_and_strange_names(bench: Bench) -> None:
    strange = ['with "quotes"', "-w", "<2>", "#x", " lead", "ünï", "a'b", "$(id)", "tab?*", '"']
    made = bench.tree(layer(
        member("bin", kind=tarfile.DIRTYPE), (member("bin/su", b"elf", mode=0o4755, mtime=1_600_000_000), b"elf"),
        member("bin/alias", kind=tarfile.LNKTYPE, link="bin/su"),
        member("sh", kind=tarfile.SYMTYPE, link="bin/" + "s" * 100),
        member("home/me", kind=tarfile.DIRTYPE, uid=70_000, gid=1000, mode=0o700),
        member("null", kind=tarfile.CHRTYPE, devmajor=1, devminor=3), member("pipe", kind=tarfile.FIFOTYPE),
        member("lost+found", kind=tarfile.DIRTYPE, mode=0o700),
        member("cap", pax_headers={"SCHILY.xattr.user.note": "hé llo", "SCHILY.xattr.trusted.overlay.opaque": "y",
                                   "SCHILY.xattr.security.capability": NET_RAW}),
        *(member(f"odd/{name}") for name in strange),
    ))
    out = bench.folder / "disk.raw"
    ext4.write(made, bench.blobs, out)
    su = bench.asked(out, "stat /bin/su")
    assert "Mode:  04755" in su and "Links: 2" in su and "2020" in su and bench.asked(out, "cat /bin/alias") == "elf"
    me = bench.asked(out, "stat /home/me")
    assert "User: 70000   Group:  1000" in me and "0700" in me
    assert "character special" in bench.asked(out, "stat /null") and "FIFO" in bench.asked(out, "stat /pipe")
    assert "bin/" + "s" * 100 in bench.asked(out, "stat /sh") + bench.asked(out, "cat /sh")
    kept = bench.asked(out, "ea_list /cap")
    assert "trusted" not in kept and "user.note" in kept
    assert NET_RAW.encode().hex() in bench.asked(out, "ea_get -x /cap security.capability").replace(" ", "")
    listed = bench.asked(out, "ls -p /odd")
    assert all(f"/{name}/" in listed for name in strange)


def test_holes_stay_holes(bench: Bench) -> None:
    made = bench.tree(tarred((member("big", b"\0" * (64 << 20)), b"\0" * (64 << 20))))
    out = bench.folder / "disk.raw"
    ext4.write(made, bench.blobs, out)
    assert out.stat().st_blocks * 512 < 48 << 20


def test_a_node_is_one_file_under_all_its_names(bench: Bench) -> None:
    made = Tree()
    file = Node(stat.S_IFREG | 0o644)
    made.apply([Entry(b"d", folder()), Entry(b"d/a", file), Entry(b"b", None, b"/d/a")])
    assert made.find(b"b") is file
