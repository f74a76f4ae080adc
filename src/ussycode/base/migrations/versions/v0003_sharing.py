"""Grants, links and requests of shared VMs."""
from __future__ import annotations

revision = "0003"


def upgrade() -> None:
    """Nothing yet."""
