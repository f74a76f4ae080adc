"""What a node warns an owner of, apart from what failed."""
from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0010"


def upgrade() -> None:
    """A sentence for each VM; empty for most."""
    op.add_column("vms", sa.Column("warning", sa.String, nullable=False, server_default=""))
