"""Disks that leave as archives and come back as files of strangers; what is hostile is refused with a sentence."""
from __future__ import annotations

import asyncio
import gzip
import hashlib
import io
import json
import os
import shutil
import stat
import subprocess
import tarfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ussycode.base.errors import Failure
from ussycode.runtime import export
from ussycode.runtime.export import Export, Form, Source
from ussycode.runtime.images import disk as disks
from ussycode.runtime.images import intake, pack
from ussycode.runtime.images.ext4_reader import FileSystem
from ussycode.runtime.images.intake import Job, Taken
from ussycode.runtime.images.manifest import Runs, read_config, written
from ussycode.runtime.qcow2.reader import View, open_raw, runs

LIMIT = 2 << 30
DISK = 160 << 20
WAY = Runs("tiny", ("/bin/app", "serve"), (("A", "1"),), "/srv", "1000:7", "me", 9000, {})


def tree(folder: Path) -> Path:
    """Files of every kind that a disk may hold."""
    root = folder / "tree"
    for name in ("bin", "srv/deep", "etc", "dev", "sbin"):
        (root / name).mkdir(parents=True)
    (root / "bin/app").write_bytes(b"#!" + os.urandom(300_000))
    (root / "bin/app").chmod(0o4755)
    os.link(root / "bin/app", root / "srv/same")
    (root / "etc/long").symlink_to("x" * 100)
    (root / "etc/short").symlink_to("../bin/app")
    (root / "srv/ümläut").write_text("hello\n")
    with (root / "srv/holes").open("wb") as file:
        file.truncate(9 << 20)
        os.pwrite(file.fileno(), b"middle", 5 << 20)
    os.mknod(root / "dev/null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    os.mkfifo(root / "dev/fifo")
    os.chown(root / "srv/ümläut", 70_000, 80_000)
    for number in range(700):
        (root / "srv/deep" / f"file-with-a-longer-name-{number}").touch()
    os.setxattr(root / "srv/ümläut", "user.note", b"\xff\x00kept")
    return root


@pytest.fixture(scope="module")
def ext4(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ext4")
    disks.make(tree(folder), folder / "disk.raw", DISK)
    return folder / "disk.raw"


def begin(raw: Path) -> bytes:
    with raw.open("rb") as file:
        return file.read(12 << 20)


def files(raw: Path) -> FileSystem:
    return FileSystem(View(list(runs([open_raw(raw)], raw.stat().st_size))))


def taken(folder: Path, data: bytes | Path, limit: int = LIMIT) -> Taken:
    """What becomes of an upload."""
    folder.mkdir(exist_ok=True)
    if isinstance(data, Path):
        data = data.read_bytes()
    (folder / intake.UPLOAD).write_bytes(data)
    return intake.take(folder, Job(limit), None)


def sent(form: Form, raw: Path, out: Path) -> Path:
    config, disk = written(WAY), Source((), raw, raw.stat().st_size)

    async def read() -> bytes:
        made = export.of_disk(disk, config) if form is Form.QCOW2 else await packed()
        async with made:
            data = b"".join([piece async for piece in made.chunks()])
            assert len(data) == made.size
            return data

    async def packed() -> Export:
        return await export.begin_packing(form, disk, config).export()

    out.write_bytes(asyncio.run(read()))
    return out


def listing(raw: Path) -> dict[bytes, tuple[object, ...]]:
    found, reader = {}, files(raw)
    for path, node in reader.files():
        content = b"".join(f.to_bytes(8, "big") + d for f, d in reader.pieces(node) if d.strip(b"\0")) \
            if stat.S_ISREG(node.mode) else reader.target(node) if stat.S_ISLNK(node.mode) else b""
        kind = node.device if stat.S_ISCHR(node.mode) else ()
        size = node.size if stat.S_ISREG(node.mode) else 0
        found[path] = (node.mode, node.uid, node.gid, size, node.xattrs, kind, content.replace(b"\0", b""))
    return found


def test_a_file_system_is_read_without_mounting_it(ext4: Path) -> None:
    found = {path: node for path, node in files(ext4).files()}
    reader = files(ext4)
    assert found[b"bin/app"].mode == stat.S_IFREG | 0o4755 and found[b"bin/app"].links == 2
    assert found[b"bin/app"].number == found[b"srv/same"].number
    assert reader.target(found[b"etc/long"]) == b"x" * 100 and reader.target(found[b"etc/short"]) == b"../bin/app"
    name = "srv/ümläut".encode()
    assert (found[name].uid, found[name].gid, found[name].xattrs) == (70_000, 80_000, {"user.note": b"\xff\x00kept"})
    assert found[b"dev/null"].device == (1, 3)
    assert len([path for path in found if path.startswith(b"srv/deep/")]) == 700
    assert not reader.dirty
    assert [(at, data[:6]) for at, data in reader.pieces(found[b"srv/holes"])] == [(5 << 20, b"middle")]


@pytest.mark.parametrize("form", list(Form))
def test_what_is_exported_is_imported_the_same(ext4: Path, tmp_path: Path, form: Form) -> None:
    file = sent(form, ext4, tmp_path / "file")
    made = taken(tmp_path / "work", file)
    again = listing(tmp_path / "work" / "disk.raw")
    old = listing(ext4)
    assert {path: again.get(path) for path in old if path not in (b"", b"lost+found")} == \
        {path: old[path] for path in old if path not in (b"", b"lost+found")}
    assert made.foreign is (form is Form.QCOW2)
    if form is not Form.TAR:
        run_as = read_config("x", made.config.encode())
        assert (run_as.argv, run_as.env, run_as.user, run_as.default_port, run_as.login_user) == (
            WAY.argv, WAY.env, WAY.user, WAY.default_port, WAY.login_user)


def test_packed_archives_are_taken_and_other_tools_read_ours(ext4: Path, tmp_path: Path) -> None:
    plain = sent(Form.TAR, ext4, tmp_path / "a.tar")
    taken(tmp_path / "gz", gzip.compress(plain.read_bytes(), 1))
    zstd = subprocess.run(["zstd", "-cq", plain], capture_output=True, check=True, timeout=30).stdout
    taken(tmp_path / "zst", zstd)
    subprocess.run(["tar", "-tf", plain], capture_output=True, check=True, timeout=30)
    with tarfile.open(sent(Form.OCI, ext4, tmp_path / "a.oci.tar")) as tar:
        assert tar.getnames()[:2] == ["oci-layout", "index.json"]


def test_container_tools_take_what_is_exported_and_we_take_what_they_write(ext4: Path, tmp_path: Path) -> None:
    """skopeo checks every digest and writes what docker loads; what it writes itself is an archive to import."""
    ours, theirs = sent(Form.OCI, ext4, tmp_path / "ours.tar"), tmp_path / "theirs.tar"

    def skopeo(*words: str) -> bytes:
        done = subprocess.run(["skopeo", "--insecure-policy", *words], capture_output=True, timeout=60, check=False)
        assert done.returncode == 0, done.stderr.decode()
        return done.stdout

    config = json.loads(skopeo("inspect", "--config", f"oci-archive:{ours}"))["config"]
    assert tuple(config["Entrypoint"]) == WAY.argv and set(config["Env"]) == {f"{k}={v}" for k, v in WAY.env}
    skopeo("copy", "-q", f"oci-archive:{ours}", f"docker-archive:{tmp_path}/docker.tar:demo:latest")
    skopeo("copy", "-q", f"oci-archive:{ours}", f"oci-archive:{theirs}:demo")
    back = taken(tmp_path / "work", theirs)
    assert read_config("x", back.config.encode()).argv == WAY.argv
    again = listing(tmp_path / "work" / "disk.raw")
    assert again[b"bin/app"] == listing(ext4)[b"bin/app"]


def test_archives_of_other_tools_say_less_in_another_order(ext4: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.tar"
    with tarfile.open(sent(Form.OCI, ext4, tmp_path / "a.oci.tar")) as tar, tarfile.open(other, "w") as out:
        held = {member.name: tar.extractfile(member) for member in tar if member.isreg()}
        for name in sorted(held):  # the parts come first
            data = b"" if held[name] is None else held[name].read()  # type: ignore[union-attr]
            if name == "index.json":
                index = json.loads(data)
                del index["manifests"][0]["platform"]
                data = json.dumps(index).encode()
            info = tarfile.TarInfo("./" + name)
            info.size = len(data)
            out.addfile(info, io.BytesIO(data))
    assert read_config("x", taken(tmp_path / "work", other).config.encode()).argv == WAY.argv


@pytest.mark.parametrize("table", ["gpt", "dos"])
def test_of_a_disk_with_partitions_the_root_is_taken(ext4: Path, tmp_path: Path, table: str) -> None:
    whole = tmp_path / "whole.raw"
    with whole.open("wb") as file:
        file.truncate(180 << 20)
    script = f"label: {table}\nsize=4MiB\nsize=165MiB\n"
    subprocess.run(["sfdisk", "-q", whole], input=script, text=True, check=True, capture_output=True, timeout=30)
    said = subprocess.run(["sfdisk", "-d", whole], text=True, check=True, capture_output=True, timeout=30).stdout
    start = int(said.splitlines()[-1].split("start=")[1].split(",")[0]) * 512
    with whole.open("r+b") as file:
        os.pwrite(file.fileno(), ext4.read_bytes(), start)
    packed = tmp_path / "whole.qcow2"
    subprocess.run(["qemu-img", "convert", "-c", "-O", "qcow2", whole, packed], check=True, timeout=60)
    made = taken(tmp_path / "work", packed)
    assert (made.foreign, made.boots, made.size) == (True, False, 165 << 20)
    assert listing(tmp_path / "work" / "disk.raw").keys() == listing(ext4).keys()


def bad(name: str, ext4: Path, folder: Path) -> bytes:
    """A file that nobody should take."""
    made = folder / "made"
    match name:
        case "a backing file":
            (folder / "below").write_bytes(b"secret" * 20_000)
            subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", "-F", "raw", "-b", folder / "below", made, "8M"],
                           check=True, timeout=30)
        case "an external data file":
            subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", "-o", f"data_file={folder}/data", made, "8M"],
                           check=True, timeout=30)
        case "a size beyond the quota":
            subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", made, "900G"], check=True, timeout=30)
        case "encryption":
            subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", made, "8M"], check=True, timeout=30)
            with made.open("r+b") as file:
                os.pwrite(file.fileno(), b"\0\0\0\2", 32)
        case "no file system":
            made.write_bytes(os.urandom(1 << 20))
        case "a packed disk":
            made.write_bytes(gzip.compress(begin(ext4), 1))
        case "half a disk":
            made.write_bytes(begin(ext4))
        case "a cut tar":
            made.write_bytes(sent(Form.TAR, ext4, folder / "t").read_bytes()[:200_000])
        case "an archive without its parts":
            with tarfile.open(made, "w") as tar:
                for member, data in (("oci-layout", b"{}"), ("index.json", b'{"manifests": []}')):
                    info = tarfile.TarInfo(member)
                    info.size = len(data)
                    tar.addfile(info, io.BytesIO(data))
        case "a link to the host":
            with tarfile.open(made, "w") as tar:
                info = tarfile.TarInfo("blobs/sha256/" + "a" * 64)
                info.type, info.linkname = tarfile.SYMTYPE, "/etc/shadow"
                tar.addfile(info)
                for member, data in (("oci-layout", b"{}"), ("index.json", (
                        b'{"manifests": [{"digest": "sha256:' + b"a" * 64 + b'", "size": 5, "platform": '
                        b'{"os": "linux", "architecture": "amd64"}}]}'))):
                    info = tarfile.TarInfo(member)
                    info.size = len(data)
                    tar.addfile(info, io.BytesIO(data))
        case "a layer that is not there":
            small = b"x" * 2048
            members, _ = pack.archive(written(WAY), len(small), "sha256:" + hashlib.sha256(small).hexdigest())
            with tarfile.open(made, "w") as tar:
                for path, data in members:
                    info = tarfile.TarInfo(path)
                    info.size = len(data)
                    tar.addfile(info, io.BytesIO(data))
        case "an index that is no text":
            with tarfile.open(made, "w") as tar:
                for path, data in (("oci-layout", b"{}"), ("index.json", b'{"mediaType": "\x80"}')):
                    info = tarfile.TarInfo(path)
                    info.size = len(data)
                    tar.addfile(info, io.BytesIO(data))
        case "docker save":
            with tarfile.open(made, "w") as tar:
                tar.addfile(tarfile.TarInfo("manifest.json"), io.BytesIO())
    return made.read_bytes()


@pytest.mark.parametrize(("name", "why"), [
    ("a backing file", "another file"), ("an external data file", "not known"), ("a size beyond the quota", "900 GiB"),
    ("encryption", "encrypted"), ("no file system", "neither ext4"), ("a packed disk", "nothing in it"),
    ("half a disk", "cut short"), ("a cut tar", "damaged"),
    ("an archive without its parts", "linux/amd64"), ("a link to the host", "missing"),
    ("docker save", "skopeo"), ("a layer that is not there", "a part of it is missing"),
    ("an index that is no text", "its manifest is not one"),
])
def test_what_nobody_should_take_is_refused_with_the_reason(ext4: Path, tmp_path: Path, name: str, why: str) -> None:
    with pytest.raises(Failure) as refused:
        taken(tmp_path / "work", bad(name, ext4, tmp_path))
    assert why in refused.value.sentence


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(hits=st.lists(st.tuples(st.integers(0, 3 << 20), st.binary(min_size=1, max_size=12)), min_size=1, max_size=8))
def test_a_damaged_file_system_is_an_answer_and_never_a_crash(ext4: Path, hits: list[tuple[int, bytes]]) -> None:
    image = bytearray(begin(ext4))
    for at, data in hits:
        place = at if at % 3 else 1024 + at % 900  # the first block often enough
        image[place:place + len(data)] = data

    class Memory:
        def read(self, at: int, length: int) -> bytes:
            assert 0 <= length <= 1 << 20
            return bytes(image[at:at + length]).ljust(length, b"\0")

    try:
        reader = FileSystem(Memory())
        for _, node in reader.files():
            if stat.S_ISREG(node.mode) and node.size < 20 << 20:
                sum(len(data) for _, data in reader.pieces(node))
    except Failure as failure:
        assert failure.code == "disk.bad_file_system"


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(hits=st.lists(st.tuples(st.integers(0, 600_000), st.binary(min_size=1, max_size=8)), min_size=1, max_size=6))
def test_a_damaged_qcow2_is_an_answer_and_never_a_crash(tmp_path: Path, hits: list[tuple[int, bytes]]) -> None:
    good = tmp_path / "good"
    if not good.exists():
        subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", good, "16M"], check=True, timeout=30)
        subprocess.run(["qemu-io", "-f", "qcow2", "-c", "write -q -P 7 0 3M", good], check=True, timeout=30,
                       stdout=subprocess.DEVNULL)
    data = bytearray(good.read_bytes())
    for at, piece in hits:
        place = at % 112 if at % 2 else at % len(data)
        data[place:place + len(piece)] = piece
    work = tmp_path / "work"
    for left in (*work.glob("*"),):
        left.unlink()
    try:
        taken(work, bytes(data), 64 << 20)
    except Failure as failure:
        assert failure.code in ("disk.unreadable", "disk.bad_file_system", "import.not_a_disk"), failure.code
    assert sum(place.stat().st_blocks for place in work.iterdir()) * 512 <= 80 << 20


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(hits=st.lists(st.tuples(st.integers(0, 9_000), st.binary(min_size=1, max_size=10)), min_size=1, max_size=5))
def test_a_damaged_archive_is_an_answer_and_never_a_crash(tmp_path: Path, hits: list[tuple[int, bytes]]) -> None:
    small, digest = io.BytesIO(), ""
    with tarfile.open(fileobj=small, mode="w") as tar:
        info = tarfile.TarInfo("etc/hosts")
        info.size = 5
        tar.addfile(info, io.BytesIO(b"hello"))
    digest = "sha256:" + hashlib.sha256(small.getvalue()).hexdigest()
    members, name = pack.archive(written(WAY), len(small.getvalue()), digest)
    whole = io.BytesIO()
    with tarfile.open(fileobj=whole, mode="w") as tar:
        for path, data in (*members, (name, small.getvalue())):
            info = tarfile.TarInfo(path)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    damaged = bytearray(whole.getvalue())
    for at, piece in hits:
        damaged[at % 8_000:at % 8_000 + len(piece)] = piece
    work = tmp_path / "work"
    shutil.rmtree(work, ignore_errors=True)
    try:
        taken(work, bytes(damaged))
    except Failure as failure:
        assert failure.code in ("image.bad", "image.bad_layer", "import.not_a_disk", "disk.unreadable"), failure.code
    assert not (tmp_path / "etc").exists() and {place.name for place in tmp_path.iterdir()} <= {"work"}


def test_a_folder_inside_itself_ends(ext4: Path, tmp_path: Path) -> None:
    looped = tmp_path / "looped.raw"
    subprocess.run(["cp", "--sparse=always", ext4, looped], check=True, timeout=30)
    words = ["/usr/sbin/debugfs", "-w", "-R", "link /srv /srv/deep/again", looped]
    subprocess.run(words, check=True, capture_output=True, timeout=30)
    with pytest.raises(Failure, match="a folder is in two places"):
        list(files(looped).files())
