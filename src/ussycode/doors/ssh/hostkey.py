"""The host key that clients remember us by."""
from __future__ import annotations

import os
from pathlib import Path

import asyncssh


def load_host_key(path: Path) -> asyncssh.SSHKey:
    """The ed25519 host key at `path`; made there, readable by its owner alone, when absent.

    Raises OSError or asyncssh.KeyImportError when the file is there and cannot be used.
    """
    if not path.exists():
        _make(path)
    return asyncssh.read_private_key(path)


def public_line(key: asyncssh.SSHKey) -> str:
    """The public part as `type base64`."""
    return " ".join(key.export_public_key().decode().split()[:2])


def _make(path: Path) -> None:
    key = asyncssh.generate_private_key("ssh-ed25519", "ussycode")
    fresh = path.with_name(path.name + ".new")
    fd = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with open(fd, "wb") as file:
        file.write(key.export_private_key())
        file.flush()
        os.fsync(fd)
    # Renamed when complete: a crash between must not leave half a key that clients never saw.
    fresh.rename(path)
