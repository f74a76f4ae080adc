"""What VMs are shared with: people and links; and as what somebody invited joins."""
from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0017"


def upgrade() -> None:
    """Add the tables, and to invitations the role that they lead to."""
    op.add_column("invitations", sa.Column("role", sa.String, nullable=False, server_default="newbie"))
    op.create_table(
        "share_grants",
        sa.Column("id", sa.String, primary_key=True),
        sa.Column("vm", sa.String, sa.ForeignKey("vms.id", ondelete="CASCADE"), nullable=False),
        sa.Column("port", sa.Integer, nullable=False),
        *(sa.Column(name, sa.String, nullable=False) for name in ("level", "user", "address", "link", "by")),
        *(sa.Column(name, sa.Float, nullable=False) for name in ("expires", "created_at")),
        sa.UniqueConstraint("vm", "port", "user", "address", name="one_grant_for_each_port"),
        sa.CheckConstraint("(\"user\" = '') <> (address = '')", name="one_holder"),
    )
    op.create_index("share_grants_by_address", "share_grants", ["address"])
    op.create_table(
        "share_links",
        sa.Column("id", sa.String, primary_key=True),
        sa.Column("vm", sa.String, sa.ForeignKey("vms.id", ondelete="CASCADE"), nullable=False),
        sa.Column("port", sa.Integer, nullable=False),
        sa.Column("digest", sa.String, nullable=False, unique=True),
        *(sa.Column(name, sa.String, nullable=False) for name in ("label", "by")),
        *(sa.Column(name, sa.Integer, nullable=False) for name in ("max_uses", "use_count")),
        *(sa.Column(name, sa.Float, nullable=False) for name in ("expires", "created_at", "last_used_at")),
    )
    op.create_index("share_links_by_vm", "share_links", ["vm"])
