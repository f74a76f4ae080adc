"""The host's own Debian archive entries: the only places an image is built from."""
from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from ussycode.base.errors import ErrorCode, Kind

KEYRING = "debian-archive-keyring"
COMPONENTS = frozenset({"main", "contrib", "non-free", "non-free-firmware"})
PLAIN_PATHS = frozenset({"debian", "debian-security"})
"""Last part of an archive's path that is believed to be Debian when an entry does not say who signs it."""

NO_ARCHIVE = ErrorCode(
    "image.no_archive", Kind.UNAVAILABLE,
    "this host has no Debian archive for {suite} among its apt sources; images are built from nothing else",
    hint="add Debian's own entry to /etc/apt/sources.list, then: sudo apt-get update",
)
NOT_DEBIAN = ErrorCode(
    "image.not_debian", Kind.UNAVAILABLE, "images are built on Debian, and this host is {system}",
)


@dataclass(frozen=True)
class Entry:
    """One place of packages: a single URI and suite. An empty `signed_by` means apt's own keys."""

    uri: str
    suite: str
    components: tuple[str, ...]
    signed_by: str = ""

    def line(self) -> str:
        """The entry as a line of sources.list."""
        options = f"[signed-by={self.signed_by}] " if self.signed_by else ""
        return f"deb {options}{self.uri} {self.suite} {' '.join(self.components)}"


def codename(os_release: str) -> str:
    """VERSION_CODENAME of the text of /etc/os-release. Raises NOT_DEBIAN on any other system."""
    pairs = (line.partition("=") for line in os_release.splitlines())
    fields = {key.strip(): value.strip().strip('"') for key, _, value in pairs}
    if fields.get("ID") != "debian" or not fields.get("VERSION_CODENAME"):
        raise NOT_DEBIAN(system=fields.get("PRETTY_NAME", "another system"))
    return fields["VERSION_CODENAME"]


def archive(apt: Path, suite: str) -> list[Entry]:
    """The enabled entries below `apt` (/etc/apt) that are Debian's archive for `suite`, in apt's order.

    Third-party entries are ignored, also when their suite carries Debian's name. Raises NO_ARCHIVE when no
    entry offers `suite` itself.
    """
    found = [entry for entry in _entries(apt) if is_debian(entry, suite)]
    if suite not in {entry.suite for entry in found}:
        raise NO_ARCHIVE(suite=suite)
    return list(dict.fromkeys(found))


def is_debian(entry: Entry, suite: str) -> bool:
    """Whether `entry` is Debian's own archive for `suite`, its updates or its security fixes."""
    if entry.suite not in {suite, f"{suite}-updates", f"{suite}-security"}:
        return False
    address = urlsplit(entry.uri)
    if address.scheme not in {"http", "https"} or not COMPONENTS.issuperset(entry.components):
        return False
    if entry.signed_by:
        return Path(entry.signed_by).stem == KEYRING
    return address.path.rstrip("/").rpartition("/")[2] in PLAIN_PATHS


def _entries(apt: Path) -> Iterator[Entry]:
    parts = apt / "sources.list.d"
    files = [apt / "sources.list", *sorted(parts.glob("*.list")), *sorted(parts.glob("*.sources"))]
    for file in files:
        if file.is_file():
            parse = parse_deb822 if file.suffix == ".sources" else parse_lines
            yield from parse(file.read_text(errors="replace"))


LINE = re.compile(r"deb\s+(?:\[(?P<options>[^\]]*)\]\s+)?(?P<uri>\S+)\s+(?P<suite>\S+)(?P<components>.*)")


def parse_lines(text: str) -> Iterator[Entry]:
    """Entries of the one-line format; `deb-src`, comments and what is not understood are passed over."""
    for line in text.splitlines():
        found = LINE.fullmatch(line.partition("#")[0].strip())
        if found is not None:
            options = dict(re.findall(r"(\S+?)=(\S*)", found["options"] or ""))
            components = tuple(found["components"].split())
            yield Entry(found["uri"], found["suite"], components, options.get("signed-by", ""))


def parse_deb822(text: str) -> Iterator[Entry]:
    """Entries of the stanza format, one per URI and suite; disabled stanzas are passed over."""
    for stanza in re.split(r"\n\s*\n", text):
        fields = _fields(stanza)
        if "deb" not in fields.get("types", "").split() or fields.get("enabled", "yes").lower() in _NO:
            continue
        components = tuple(fields.get("components", "").split())
        for uri in fields.get("uris", "").split():
            for suite in fields.get("suites", "").split():
                yield Entry(uri, suite, components, fields.get("signed-by", "").strip())


_NO = frozenset({"no", "false", "0", "off", "disable", "without"})


def _fields(stanza: str) -> dict[str, str]:
    """Fields by lower-case name; a line that begins with a blank continues the field before it."""
    fields: dict[str, str] = {}
    name = ""
    for line in stanza.splitlines():
        if line.startswith("#"):
            continue
        if line[:1] in {" ", "\t"}:
            fields[name] = fields.get(name, "") + "\n" + line.strip()
            continue
        name, _, value = line.partition(":")
        name = name.strip().lower()
        fields[name] = value.strip()
    return fields
