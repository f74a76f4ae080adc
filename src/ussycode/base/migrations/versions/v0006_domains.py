"""Custom domains."""
from __future__ import annotations

revision = "0006"


def upgrade() -> None:
    """Nothing yet."""
