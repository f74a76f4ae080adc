"""Images that owners pulled."""
from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0007"


def upgrade() -> None:
    """Who pulled which image, and what a VM runs instead of its image's own command."""
    op.create_table(
        "pulled_images",
        sa.Column("name", sa.String, primary_key=True),
        sa.Column("owner", sa.String, sa.ForeignKey("users.id", ondelete="CASCADE"), primary_key=True),
        sa.Column("reference", sa.String, nullable=False),
        sa.Column("private", sa.Boolean, nullable=False),
        sa.Column("size", sa.Integer, nullable=False),
        sa.Column("pulled_at", sa.Float, nullable=False),
    )
    op.create_index("ix_pulled_images_reference", "pulled_images", ["reference"])
    op.add_column("vms", sa.Column("command", sa.String, nullable=False, server_default="[]"))
