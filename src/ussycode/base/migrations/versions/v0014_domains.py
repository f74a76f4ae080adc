"""VMs' domains, and the names that are served."""
from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0014"


def upgrade() -> None:
    """Add the tables."""
    op.create_table(
        "domains",
        sa.Column("id", sa.String, primary_key=True),
        *(sa.Column(name, sa.String, nullable=False) for name in ("vm",)),
        sa.Column("owner", sa.String, sa.ForeignKey("users.id"), nullable=False, index=True),
        *(sa.Column(name, sa.String, nullable=False) for name in ("name", "covers")),
        *(sa.Column(name, sa.Float, nullable=False) for name in ("created_at", "verified_at")),
        *(sa.Column(name, sa.String, nullable=False) for name in ("proof", "target")),
        *(sa.Column(name, sa.Float, nullable=False) for name in ("failing_since", "checked_at")),
        sa.Column("check_at", sa.Float, nullable=False, index=True),
        sa.Column("checks", sa.Integer, nullable=False),
        sa.Column("why", sa.String, nullable=False),
        sa.UniqueConstraint("vm", "name", "covers"),
    )
    op.create_table(
        "served_names",
        sa.Column("pattern", sa.String, primary_key=True),
        sa.Column("domain", sa.String, sa.ForeignKey("domains.id", ondelete="CASCADE"), nullable=False, index=True),
    )
