"""Lifecycle of VMs: copies, snapshots, trash, tags, wake."""
from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"


def upgrade() -> None:
    """VMs say what stands between them and the host."""
    op.add_column("vms", sa.Column("isolation", sa.String, nullable=False, server_default="vm"))
