"""What a registry says an image is: its manifest, and the configuration that came with it."""
from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

import msgspec

from ussycode.base.errors import ErrorCode, Kind
from ussycode.base.unreadable import UNREADABLE
from ussycode.runtime.images.reference import DIGEST

MAX_MANIFEST = 4 << 20
"""Bytes of a manifest, an index or a configuration."""
MAX_LAYERS = 128
MAX_LAYER_BYTES = 10 << 30
"""Bytes of all layers of one image as they are sent."""
MAX_ENV = 256
MAX_WORDS = 256
"""Words of ENTRYPOINT and CMD together."""

BAD_IMAGE = ErrorCode("image.bad", Kind.FAILED, "the image {name} cannot be used: {why}")

INDEXES = ("application/vnd.oci.image.index.v1+json", "application/vnd.docker.distribution.manifest.list.v2+json")
MANIFESTS = ("application/vnd.oci.image.manifest.v1+json", "application/vnd.docker.distribution.manifest.v2+json")
ACCEPT = ", ".join((*INDEXES, *MANIFESTS))
PORT_OF_WEB, FIRST_UNPRIVILEGED, DEFAULT_PORT = 80, 1024, 8000
INITS = frozenset({
    "/sbin/init", "/usr/sbin/init", "/bin/init", "/init", "/lib/systemd/systemd", "/usr/lib/systemd/systemd",
    "/bin/systemd", "/usr/bin/systemd", "/sbin/openrc-init",
})
"""Programs that expect to be process 1: an image that starts one of them boots like a machine."""
TINY = "tiny"
LOGIN_LABELS = ("ussycode.login-user", "exe.dev/login-user")
_USER = re.compile(r"[a-z_][a-z0-9_-]{0,31}")
_ENV = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,127}=[^\0]*", re.DOTALL)


class Platform(msgspec.Struct, frozen=True):
    """For which machines one entry of an index is."""

    architecture: str = ""
    os: str = ""


class Descriptor(msgspec.Struct, frozen=True, rename="camel"):
    """A blob by digest; `size` in bytes."""

    digest: str
    size: int
    media_type: str = ""
    platform: Platform = Platform()


class _Document(msgspec.Struct, frozen=True, rename="camel"):
    media_type: str = ""
    manifests: list[Descriptor] | None = None
    config: Descriptor | None = None
    layers: list[Descriptor] = []


@dataclass(frozen=True)
class Manifest:
    """An image for this machine: configuration and layers, lowest first."""

    digest: str
    config: Descriptor
    layers: tuple[Descriptor, ...]

    @property
    def size(self) -> int:
        """Bytes of all layers as they are sent."""
        return sum(layer.size for layer in self.layers)


class _Settings(msgspec.Struct, frozen=True):
    Entrypoint: list[str] | None = None
    Cmd: list[str] | None = None
    Env: list[str] | None = None
    WorkingDir: str | None = None
    User: str | None = None
    ExposedPorts: dict[str, object] | None = None
    Labels: dict[str, str] | None = None


class _RootFs(msgspec.Struct, frozen=True):
    diff_ids: list[str] = []


class _Config(msgspec.Struct, frozen=True):
    architecture: str = ""
    config: _Settings | None = None
    rootfs: _RootFs = _RootFs()


@dataclass(frozen=True)
class Runs:
    """How an image wants to be run. `init` is a path or `tiny`; `argv` is what tiny starts, perhaps nothing."""

    init: str
    argv: tuple[str, ...]
    env: tuple[tuple[str, str], ...]
    workdir: str
    user: str
    login_user: str
    default_port: int
    labels: Mapping[str, str]
    diff_ids: tuple[str, ...] = ()


def read_manifest(name: str, digest: str, data: bytes) -> Manifest | str:
    """The manifest in `data`, or the digest of the one for linux/amd64 when it is an index. Raises BAD_IMAGE."""
    try:
        document = msgspec.json.decode(data, type=_Document)
    except UNREADABLE:
        raise BAD_IMAGE(name=name, why="its manifest is not one") from None
    if document.manifests is not None:
        return _ours(name, document.manifests)
    if document.config is None or not document.layers:
        raise BAD_IMAGE(name=name, why="its manifest has no layers of a kind we know")
    return _checked(name, Manifest(digest, document.config, tuple(document.layers)))


def _ours(name: str, entries: list[Descriptor]) -> str:
    """Tools that write a single image to a file leave out what it is made for; its configuration says so too."""
    if len(entries) == 1 and entries[0].platform == Platform() and DIGEST.fullmatch(entries[0].digest):
        return entries[0].digest
    for entry in entries:
        if (entry.platform.os, entry.platform.architecture) == ("linux", "amd64") and DIGEST.fullmatch(entry.digest):
            return entry.digest
    raise BAD_IMAGE(name=name, why="it is not made for linux/amd64")


def _checked(name: str, found: Manifest) -> Manifest:
    blobs = (found.config, *found.layers)
    if len(found.layers) > MAX_LAYERS:
        raise BAD_IMAGE(name=name, why=f"it has more than {MAX_LAYERS} layers")
    if any(not DIGEST.fullmatch(blob.digest) or blob.size < 0 for blob in blobs):
        raise BAD_IMAGE(name=name, why="its manifest names an impossible blob")
    if found.config.size > MAX_MANIFEST or found.size > MAX_LAYER_BYTES:
        raise BAD_IMAGE(name=name, why=f"it is larger than {MAX_LAYER_BYTES >> 30} GiB")
    return found


def read_config(name: str, data: bytes) -> Runs:
    """How the image with this configuration is run; what cannot be meant is left out. Raises BAD_IMAGE."""
    try:
        whole = msgspec.json.decode(data, type=_Config)
    except UNREADABLE:
        raise BAD_IMAGE(name=name, why="its configuration is not one") from None
    if whole.architecture not in ("amd64", ""):
        raise BAD_IMAGE(name=name, why=f"it is made for {whole.architecture[:20]!r}")
    return _runs(name, whole.config or _Settings(), tuple(whole.rootfs.diff_ids))


def _runs(name: str, given: _Settings, diff_ids: tuple[str, ...]) -> Runs:
    argv = (*(given.Entrypoint or ()), *(given.Cmd or ()))
    env = [pair for pair in given.Env or () if _ENV.fullmatch(pair)]
    words = (*argv, given.WorkingDir or "", given.User or "")
    if len(argv) > MAX_WORDS or len(env) > MAX_ENV or any("\0" in word for word in words):
        raise BAD_IMAGE(name=name, why="its command or environment is out of bounds")
    boots = bool(argv) and argv[0] in INITS
    pairs = tuple((key, value) for key, _, value in (pair.partition("=") for pair in env))
    labels = given.Labels or {}
    return Runs(
        init=argv[0] if boots else TINY, argv=() if boots else argv, env=pairs, workdir=given.WorkingDir or "/",
        user=given.User or "", login_user=login_user(labels), default_port=port(given.ExposedPorts or {}),
        labels=labels, diff_ids=diff_ids,
    )


def written(runs: Runs) -> dict[str, object]:
    """The configuration that `read_config` understands as `runs`."""
    port, argv = f"{runs.default_port}/tcp", list(runs.argv) if runs.init == TINY else [runs.init]
    return {"architecture": "amd64", "os": "linux", "config": {
        "Entrypoint": argv or None, "Env": [f"{key}={value}" for key, value in runs.env], "WorkingDir": runs.workdir,
        "User": runs.user, "ExposedPorts": {port: {}}, "Labels": {LOGIN_LABELS[0]: runs.login_user},
    }}


def login_user(labels: Mapping[str, str]) -> str:
    """Whom `ssh VM` logs in: what the image's label says, or else root."""
    named = (labels.get(label, "") for label in LOGIN_LABELS)
    return next((user for user in named if _USER.fullmatch(user)), "root")


def port(exposed: Mapping[str, object]) -> int:
    """Port that HTTPS shows: 80 if the image exposes it, else the smallest from 1024 on, else 8000."""
    spelled = (re.fullmatch(r"([0-9]{1,5})(/tcp)?", text) for text in exposed)
    ports = sorted(int(found[1]) for found in spelled if found and 0 < int(found[1]) < 65536)
    if PORT_OF_WEB in ports:
        return PORT_OF_WEB
    return next((number for number in ports if number >= FIRST_UNPRIVILEGED), DEFAULT_PORT)
