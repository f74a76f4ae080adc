"""Lifecycle of VMs: copies, snapshots, trash, tags, samples."""
from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"

_TEXTS = {
    "isolation": "vm", "comment": "", "tags": "[]", "egress": "all", "origin": "{}", "trash_name": "", "notice": "",
}
_NUMBERS = {"disk_turn": "1", "seen_disk_turn": "0", "seen_disk_gib": "0"}


def upgrade() -> None:
    """What owners say of VMs, what was seen of their disks, snapshots by name, and samples."""
    for name, default in _TEXTS.items():
        op.add_column("vms", sa.Column(name, sa.String, nullable=False, server_default=default))
    for name, default in _NUMBERS.items():
        op.add_column("vms", sa.Column(name, sa.Integer, nullable=False, server_default=default))
    for name in ("wake", "cold", "snapshot_daily"):
        op.add_column("vms", sa.Column(name, sa.Boolean, nullable=False, server_default=sa.false()))
    op.add_column("vms", sa.Column("trashed_at", sa.Float, nullable=False, server_default="0"))
    op.create_table(
        "snapshots",
        sa.Column("id", sa.String, primary_key=True),
        sa.Column("vm", sa.String, sa.ForeignKey("vms.id", ondelete="CASCADE"), nullable=False, index=True),
        sa.Column("name", sa.String, nullable=False),
        *(sa.Column(name, sa.Boolean, nullable=False) for name in ("scheduled", "dropped", "there")),
        sa.Column("size", sa.Integer, nullable=False),
        sa.Column("created_at", sa.Float, nullable=False),
    )
    op.create_table(
        "samples",
        sa.Column("vm", sa.String, sa.ForeignKey("vms.id", ondelete="CASCADE"), primary_key=True),
        sa.Column("at", sa.Float, primary_key=True),
        sa.Column("figures", sa.String, nullable=False),
    )
    op.create_table(
        "defaults",
        sa.Column("user", sa.String, sa.ForeignKey("users.id", ondelete="CASCADE"), primary_key=True),
        sa.Column("name", sa.String, primary_key=True),
        sa.Column("value", sa.String, nullable=False),
    )
