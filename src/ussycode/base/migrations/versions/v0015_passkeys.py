"""Passkeys, challenges that were used, and which passkey a browser session began with."""
from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0015"


def upgrade() -> None:
    """Add the tables and the column."""
    op.create_table(
        "passkeys",
        sa.Column("id", sa.String, primary_key=True),
        sa.Column("user", sa.String, sa.ForeignKey("users.id", ondelete="CASCADE"), nullable=False),
        sa.Column("name", sa.String, nullable=False),
        sa.Column("credential", sa.LargeBinary, nullable=False, unique=True),
        *(sa.Column(name, sa.LargeBinary, nullable=False) for name in ("public_key", "handle")),
        sa.Column("count", sa.Integer, nullable=False),
        *(sa.Column(name, sa.Boolean, nullable=False) for name in ("synced", "blocked")),
        *(sa.Column(name, sa.Float, nullable=False) for name in ("created_at", "last_used")),
        sa.UniqueConstraint("user", "name", name="one_passkey_name_per_user"),
    )
    op.create_table(
        "spent_challenges",
        sa.Column("nonce", sa.String, primary_key=True),
        sa.Column("expires", sa.Float, nullable=False),
    )
    op.add_column("sessions", sa.Column("passkey", sa.String, nullable=False, server_default=""))
