"""Images come from Debian's archive alone: what a host has added to its sources never reaches a guest."""
from __future__ import annotations

from pathlib import Path

import pytest

from ussycode.base.errors import Failure
from ussycode.runtime.images import mirror

SIGNED = "/usr/share/keyrings/debian-archive-keyring.gpg"
SOURCES = f"""\
# Debian's own
Types: deb deb-src
URIs: https://mirror.example/debian
Suites: bookworm bookworm-updates
  bookworm-backports
Components: main
  non-free-firmware
Signed-By: {SIGNED}

Types: deb
Enabled: no
URIs: https://disabled.example/debian
Suites: bookworm
Components: main

Types: deb
URIs: https://packages.example/debian
Suites: bookworm
Components: main
Signed-By:
 -----BEGIN PGP PUBLIC KEY BLOCK-----
 .
 mQINBF
 -----END PGP PUBLIC KEY BLOCK-----
"""


def host(tmp_path: Path, lists: str = "", sources: str = "") -> Path:
    (tmp_path / "sources.list.d").mkdir()
    (tmp_path / "sources.list").write_text(lists)
    (tmp_path / "sources.list.d/debian.sources").write_text(sources)
    return tmp_path


def test_the_stanza_format_gives_the_release_and_its_updates_only(tmp_path: Path) -> None:
    assert [entry.line() for entry in mirror.archive(host(tmp_path, sources=SOURCES), "bookworm")] == [
        f"deb [signed-by={SIGNED}] https://mirror.example/debian bookworm main non-free-firmware",
        f"deb [signed-by={SIGNED}] https://mirror.example/debian bookworm-updates main non-free-firmware",
    ]


@pytest.mark.parametrize("line", [
    "deb [arch=amd64 signed-by=/etc/apt/keyrings/docker.asc] https://docker.example/linux/debian bookworm stable",
    "deb [signed-by=/usr/share/keyrings/vendor.gpg] https://vendor.example/debian bookworm main",
    "deb https://vendor.example/packages bookworm main",
    "deb https://vendor.example/debian bookworm main vendor-tools",
    "deb file:/srv/debian bookworm main",
    "deb cdrom:[Debian 12]/ bookworm main",
    "deb-src https://mirror.example/debian bookworm main",
    "# deb https://mirror.example/debian bookworm main",
    "deb https://mirror.example/debian sid main",
    "deb",
])
def test_third_party_and_foreign_lines_are_ignored(tmp_path: Path, line: str) -> None:
    with pytest.raises(Failure) as refused:
        mirror.archive(host(tmp_path, lists=line + "\n"), "bookworm")
    assert refused.value.error is mirror.NO_ARCHIVE
    assert "bookworm" in refused.value.sentence


def test_a_plain_line_of_an_older_host_counts(tmp_path: Path) -> None:
    lists = (
        "deb http://mirror.example/debian/ bookworm main contrib # the usual\n"
        "deb http://mirror.example/debian-security bookworm-security main\n"
        "deb http://mirror.example/debian/ bookworm main contrib\n"
    )
    assert [entry.line() for entry in mirror.archive(host(tmp_path, lists=lists), "bookworm")] == [
        "deb http://mirror.example/debian/ bookworm main contrib",
        "deb http://mirror.example/debian-security bookworm-security main",
    ]


def test_security_fixes_alone_are_not_an_archive(tmp_path: Path) -> None:
    lists = "deb http://mirror.example/debian-security bookworm-security main\n"
    with pytest.raises(Failure):
        mirror.archive(host(tmp_path, lists=lists), "bookworm")


def test_the_release_name_comes_from_the_host() -> None:
    assert mirror.codename('PRETTY_NAME="Debian 12"\nID=debian\nVERSION_CODENAME=bookworm\n') == "bookworm"
    with pytest.raises(Failure) as refused:
        mirror.codename('PRETTY_NAME="Fedora Linux 41"\nID=fedora\nVERSION_CODENAME=""\n')
    assert "Fedora Linux 41" in refused.value.sentence
