"""Token handles, revocations and tag-limited keys."""
from __future__ import annotations

revision = "0005"


def upgrade() -> None:
    """Nothing yet."""
