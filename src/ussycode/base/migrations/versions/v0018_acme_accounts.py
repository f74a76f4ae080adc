"""The platform's accounts at ACME servers."""
from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0018"


def upgrade() -> None:
    """Add the table."""
    op.create_table(
        "acme_accounts",
        sa.Column("directory", sa.String, primary_key=True),
        sa.Column("key", sa.LargeBinary, nullable=False),
    )
