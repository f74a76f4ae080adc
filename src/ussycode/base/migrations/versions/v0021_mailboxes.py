"""VMs that take mail."""
from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0021"


def upgrade() -> None:
    """Add the column; nobody's VM takes mail until its owner says so."""
    op.add_column("vms", sa.Column("mailbox", sa.String, nullable=False, server_default="off"))
