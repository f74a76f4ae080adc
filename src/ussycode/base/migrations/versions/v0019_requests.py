"""Who asks to be let into a VM."""
from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0019"


def upgrade() -> None:
    """Add the table."""
    op.create_table(
        "access_requests",
        sa.Column("id", sa.String, primary_key=True),
        sa.Column("vm", sa.String, sa.ForeignKey("vms.id", ondelete="CASCADE")),
        sa.Column("user", sa.String, sa.ForeignKey("users.id", ondelete="CASCADE"), nullable=False),
        sa.Column("port", sa.Integer, nullable=False),
        sa.Column("message", sa.String, nullable=False),
        sa.Column("declined", sa.Boolean, nullable=False),
        *(sa.Column(name, sa.Float, nullable=False) for name in ("created_at", "expires")),
    )
    op.create_index("access_requests_by_vm", "access_requests", ["vm"])
    op.create_index("access_requests_by_user", "access_requests", ["user"])
