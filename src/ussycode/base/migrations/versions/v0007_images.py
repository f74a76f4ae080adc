"""Images that owners pulled."""
from __future__ import annotations

revision = "0007"


def upgrade() -> None:
    """Nothing yet."""
