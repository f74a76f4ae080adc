"""Lifecycle of VMs: copies, snapshots, trash, tags, wake."""
from __future__ import annotations

revision = "0002"


def upgrade() -> None:
    """Nothing yet."""
