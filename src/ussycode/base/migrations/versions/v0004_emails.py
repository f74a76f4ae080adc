"""Addresses, sign-in by mail, outgoing mail, and what sessions are told apart by."""
from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"


def upgrade() -> None:
    """Add the tables, and to sessions where they were started and when they were used last."""
    op.add_column("sessions", sa.Column("agent", sa.String, nullable=False, server_default=""))
    op.add_column("sessions", sa.Column("last_used", sa.Float, nullable=False, server_default="0"))
    op.execute("UPDATE sessions SET last_used = created_at")
    op.create_table(
        "mails",
        *(sa.Column(name, sa.String, nullable=False) for name in ("to", "subject", "body", "state", "error")),
        sa.Column("id", sa.String, primary_key=True),
        sa.Column("attempts", sa.Integer, nullable=False),
        *(sa.Column(name, sa.Float, nullable=False) for name in ("created_at", "again_at")),
    )
    op.create_index("mails_by_state", "mails", ["state", "again_at"])
    _addresses()


def _addresses() -> None:
    op.create_table(
        "addresses",
        sa.Column("address", sa.String, primary_key=True),
        sa.Column("user", sa.String, sa.ForeignKey("users.id", ondelete="CASCADE"), primary_key=True),
        sa.Column("verified_at", sa.Float, nullable=False),
        sa.Column("created_at", sa.Float, nullable=False),
    )
    op.create_table(
        "mail_codes",
        sa.Column("id", sa.String, primary_key=True),
        *(sa.Column(name, sa.String, nullable=False) for name in ("address", "user", "code", "link", "goal")),
        sa.Column("attempts", sa.Integer, nullable=False),
        *(sa.Column(name, sa.Float, nullable=False) for name in ("created_at", "expires")),
    )
    op.create_index("mail_codes_by_address", "mail_codes", ["address"])
    op.create_table(
        "invitations",
        sa.Column("address", sa.String, primary_key=True),
        sa.Column("by", sa.String, nullable=False),
        sa.Column("created_at", sa.Float, nullable=False),
    )
