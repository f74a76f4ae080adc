"""Keys that assertions to apps are signed with."""
from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0013"


def upgrade() -> None:
    """Add the table."""
    op.create_table(
        "signing_keys",
        sa.Column("id", sa.String, primary_key=True),
        sa.Column("seed", sa.LargeBinary, nullable=False),
        sa.Column("signs_from", sa.Float, nullable=False),
    )
