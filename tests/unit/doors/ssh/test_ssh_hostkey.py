"""The key that clients remember the platform by."""
from __future__ import annotations

from pathlib import Path

from ussycode.doors.ssh.door import load_host_key


def test_a_host_key_is_made_once_and_is_the_owners_alone(tmp_path: Path) -> None:
    path = tmp_path / "ssh_host_ed25519_key"
    first = load_host_key(path)
    assert first.get_algorithm() == "ssh-ed25519"
    assert path.stat().st_mode & 0o777 == 0o600
    assert load_host_key(path).export_public_key() == first.export_public_key()
    assert [p.name for p in tmp_path.iterdir()] == [path.name]
