"""What new VMs are given once, and what people typed in the lobby."""
from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0009"


def upgrade() -> None:
    """Gifts that wait for a VM's first boot; the lobby's history."""
    op.create_table(
        "first_boots",
        sa.Column("vm", sa.String, sa.ForeignKey("vms.id", ondelete="CASCADE"), primary_key=True),
        sa.Column("gifts", sa.String, nullable=False),
    )
    op.create_table(
        "lobby_lines",
        sa.Column("seq", sa.Integer, primary_key=True, autoincrement=True),
        sa.Column("user", sa.String, sa.ForeignKey("users.id", ondelete="CASCADE"), nullable=False, index=True),
        sa.Column("line", sa.String, nullable=False),
    )
