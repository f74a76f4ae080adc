"""Names of images in registries: `alpine:3.20`, `ghcr.io/owner/app@sha256:...`, spelled out in full."""
from __future__ import annotations

import re
from dataclasses import dataclass

from ussycode.base.errors import ErrorCode, Kind

BAD_REFERENCE = ErrorCode(
    "image.bad_reference", Kind.USAGE, "{text} is not the name of an image",
    hint="write NAME:TAG, HOST/NAME:TAG or NAME@sha256:DIGEST",
)
HUB = "docker.io"
_HUB_HOST = "registry-1.docker.io"
_HUB_NAMES = frozenset({HUB, "index.docker.io", _HUB_HOST})
MAX_REPOSITORY = 200
"""Characters of a repository's name."""

_HOST = re.compile(r"(localhost|(?=[^/]*[.:])[a-zA-Z0-9]([a-zA-Z0-9.-]{0,252}[a-zA-Z0-9])?)(:[0-9]{1,5})?")
_PART = r"[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*"
_REPOSITORY = re.compile(rf"{_PART}(/{_PART}){{0,15}}")
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}")
DIGEST = re.compile(r"sha256:[0-9a-f]{64}")


@dataclass(frozen=True)
class Reference:
    """One image in one registry. A digest, when there is one, wins over the tag."""

    registry: str
    repository: str
    tag: str = "latest"
    digest: str = ""

    @property
    def host(self) -> str:
        """HOST or HOST:PORT that answers for the registry."""
        return _HUB_HOST if self.registry == HUB else self.registry

    @property
    def wanted(self) -> str:
        """What is asked of the registry: the digest, or else the tag."""
        return self.digest or self.tag

    def __str__(self) -> str:
        """In full, without the digest where a tag says it in a way people read."""
        name = f"{self.registry}/{self.repository}"
        return f"{name}@{self.digest}" if self.digest and not self.tag else f"{name}:{self.tag}"


def parse(text: str) -> Reference:
    """The reference that `text` means; a name without a host is looked for on Docker Hub. Raises BAD_REFERENCE."""
    name, at, digest = text.partition("@")
    if at and not DIGEST.fullmatch(digest):
        raise BAD_REFERENCE(text=text)
    head, colon, tag = name.rpartition(":")
    if not colon or "/" in tag:
        head, tag = name, "" if at else "latest"
    registry, repository = _place(head)
    fits = _REPOSITORY.fullmatch(repository) and len(repository) <= MAX_REPOSITORY and (not tag or _TAG.fullmatch(tag))
    if not fits or not (tag or digest) or (registry != HUB and not _HOST.fullmatch(registry)):
        raise BAD_REFERENCE(text=text)
    return Reference(registry, repository, tag, digest)


def _place(name: str) -> tuple[str, str]:
    first, slash, rest = name.partition("/")
    if slash and (first == "localhost" or "." in first or ":" in first):
        registry = HUB if first in _HUB_NAMES else first
        return registry, f"library/{rest}" if registry == HUB and "/" not in rest else rest
    return HUB, name if slash else f"library/{name}"
