"""Who came to shared VMs."""
from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0020"


def upgrade() -> None:
    """Add the table."""
    op.create_table(
        "share_visitors",
        sa.Column("vm", sa.String, sa.ForeignKey("vms.id", ondelete="CASCADE"), primary_key=True),
        *(sa.Column(name, sa.Integer, primary_key=True) for name in ("hour", "port")),
        *(sa.Column(name, sa.String, primary_key=True) for name in ("user", "address", "reason")),
        sa.Column("allowed", sa.Boolean, nullable=False),
        sa.Column("requests", sa.Integer, nullable=False),
        *(sa.Column(name, sa.Float, nullable=False) for name in ("first_at", "last_at")),
    )
    op.create_index("share_visitors_by_time", "share_visitors", ["vm", "last_at"])
