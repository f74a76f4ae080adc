"""What a person may call an image, and what an image says of itself."""
from __future__ import annotations

import json

import pytest

from ussycode.base.errors import Failure
from ussycode.runtime.images import manifest
from ussycode.runtime.images.manifest import Manifest, port, read_config, read_manifest
from ussycode.runtime.images.reference import parse
from ussycode.runtime.images.registry import public
from ussycode.runtime.images.registry_auth import challenge, credentials
from ussycode.runtime.images.store import key

HEX = "ab" * 32


@pytest.mark.parametrize(("typed", "meant"), [
    ("alpine", "docker.io/library/alpine:latest"), ("alpine:3.20", "docker.io/library/alpine:3.20"),
    ("user/app", "docker.io/user/app:latest"), ("docker.io/alpine", "docker.io/library/alpine:latest"),
    ("index.docker.io/library/alpine:1", "docker.io/library/alpine:1"), ("ghcr.io/a/b/c:v1", "ghcr.io/a/b/c:v1"),
    ("localhost:5000/x", "localhost:5000/x:latest"), (f"quay.io/a/b@sha256:{HEX}", f"quay.io/a/b@sha256:{HEX}"),
    ("127.0.0.1:5000/a:b", "127.0.0.1:5000/a:b"),
])
def test_short_names_are_spelled_out(typed: str, meant: str) -> None:
    assert str(parse(typed)) == meant


@pytest.mark.parametrize("typed", [
    "", "Alpine", "a:", ":a", "a b", "../etc", "a/../b", "a//b", "a@sha256:12", f"a@md5:{HEX}", "http://x/y", "x" * 300,
    "a:" + "t" * 200, "host.example/", "-a", "a\nb", "u:p@host/x", "a?b", "a%2fb",
])
def test_what_is_no_name_is_refused(typed: str) -> None:
    with pytest.raises(Failure) as refused:
        parse(typed)
    assert refused.value.error.code == "image.bad_reference"


@pytest.mark.parametrize(("exposed", "shown"), [
    (["80/tcp", "443/tcp"], 80), (["443", "9000/tcp", "3000/tcp"], 3000), (["22/tcp"], 8000), ([], 8000),
    (["8080/udp", "99999/tcp", "x"], 8000),
])
def test_the_port_that_is_shown(exposed: list[str], shown: int) -> None:
    assert port(dict.fromkeys(exposed)) == shown


def config(**settings: object) -> bytes:
    return json.dumps({"architecture": "amd64", "config": settings}).encode()


def test_an_image_that_starts_an_init_boots_it() -> None:
    assert read_config("x", config(Cmd=["/sbin/init"])).init == "/sbin/init"
    assert read_config("x", config(Entrypoint=["/lib/systemd/systemd"])).argv == ()
    runs = read_config("x", config(Entrypoint=["/a"], Cmd=["b"], Labels={"exe.dev/login-user": "me"}))
    assert (runs.init, runs.argv, runs.login_user) == ("tiny", ("/a", "b"), "me")
    assert read_config("x", config(Labels={"exe.dev/login-user": "me; rm -rf /"})).login_user == "root"


@pytest.mark.parametrize("data", [
    b"", b"[]", b'{"mediaType": "\x80"}', b"[" * 100_000, b'{"x":' * 100_000, b"{}",
    b'{"layers": []}', b'{"config": 1}', b"\xff" * 20, json.dumps({
    "config": {"digest": "sha256:../../x", "size": 1}, "layers": [{"digest": f"sha256:{HEX}", "size": 1}]}).encode(),
    json.dumps({"config": {"digest": f"sha256:{HEX}", "size": 1}, "layers": [
        {"digest": f"sha256:{HEX}", "size": 1}] * 200}).encode(),
    json.dumps({"config": {"digest": f"sha256:{HEX}", "size": 1}, "layers": [
        {"digest": f"sha256:{HEX}", "size": 1 << 50}]}).encode(),
    json.dumps({"manifests": [{"digest": f"sha256:{HEX}", "size": 1, "platform": {
        "os": "linux", "architecture": "arm64"}}]}).encode(),
])
def test_a_manifest_that_cannot_be_is_refused(data: bytes) -> None:
    with pytest.raises(Failure) as refused:
        read_manifest("x", "", data)
    assert refused.value.error is manifest.BAD_IMAGE


@pytest.mark.parametrize("data", [b"", b"[]", b'{"architecture": "\xff"}', b"[" * 100_000, config(Env=["A=1"] * 300),
                                  config(Cmd=["x"] * 300), config(WorkingDir="a\0b"),
                                  b'{"architecture": "arm64", "config": {}}'])
def test_a_configuration_that_cannot_be_is_refused(data: bytes) -> None:
    with pytest.raises(Failure) as refused:
        read_config("x", data)
    assert refused.value.error is manifest.BAD_IMAGE


def test_an_index_leads_to_our_machine() -> None:
    ours = {"digest": f"sha256:{HEX}", "size": 1, "platform": {"os": "linux", "architecture": "amd64"}}
    found = read_manifest("x", "", json.dumps({"manifests": [dict(ours, platform={}), ours]}).encode())
    assert not isinstance(found, Manifest) and found == f"sha256:{HEX}"


def test_challenges_of_registries() -> None:
    asked = challenge('Bearer realm="https://auth.example/token",service="reg",scope="x"')
    assert asked.token_url("a/b") == "https://auth.example/token?service=reg&scope=repository%3Aa%2Fb%3Apull"
    for bad in ('Bearer realm="file:///etc/passwd"', "Bearer", 'Basic realm="x"', 'Bearer realm="http://u:p@h/"'):
        assert challenge(bad).token_url("a") == ""


@pytest.mark.parametrize("text", ["", "user", "user:", ":word", "a:b\nc"])
def test_half_credentials_are_refused_without_being_repeated(text: str) -> None:
    with pytest.raises(ValueError, match=r"^write USER:PASSWORD$"):
        credentials(text)


@pytest.mark.parametrize(("address", "ours"), [
    ("8.8.8.8", True), ("127.0.0.1", False), ("10.1.2.3", False), ("169.254.169.254", False), ("100.64.0.1", False),
    ("::1", False), ("fd00::1", False), ("fe80::1%eth0", False), ("::ffff:10.0.0.1", False), ("64:ff9b::a00:1", False),
    ("2002:0a00:0001::1", False), ("2606:4700::1", True), ("0.0.0.0", False), ("224.0.0.1", False),
])
def test_addresses_of_the_internet(address: str, ours: bool) -> None:
    assert public(address) is ours


def test_a_private_images_folder_cannot_be_told_from_its_digest() -> None:
    assert key(f"r/x:1@sha256:{HEX}") == HEX
    assert len({key(f"r/x:1@sha256:{HEX}{mark}") for mark in ("", "#usr_a", "#usr_b")}) == 3
