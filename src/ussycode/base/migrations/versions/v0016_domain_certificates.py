"""Certificates of VMs' domains."""
from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0016"


def upgrade() -> None:
    """Add the table."""
    op.create_table(
        "domain_certificates",
        sa.Column("domain", sa.String, sa.ForeignKey("domains.id", ondelete="CASCADE"), primary_key=True),
        sa.Column("chain", sa.LargeBinary, nullable=False),
        sa.Column("key", sa.LargeBinary, nullable=False),
        sa.Column("expires", sa.Float, nullable=False),
        sa.Column("renew_at", sa.Float, nullable=False, index=True),
        sa.Column("failures", sa.Integer, nullable=False),
        sa.Column("why", sa.String, nullable=False),
    )
