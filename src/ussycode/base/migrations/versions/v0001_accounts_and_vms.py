"""Accounts, keys, sessions, VMs, ports and events."""
from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"


def upgrade() -> None:
    """Create the first schema."""
    op.create_table(
        "events",
        sa.Column("seq", sa.Integer, primary_key=True, autoincrement=True),
        sa.Column("at", sa.Float, nullable=False),
        *(sa.Column(name, sa.String, nullable=False) for name in ("kind", "actor", "subject", "data")),
    )
    op.create_index("events_by_subject", "events", ["subject", "seq"])
    op.create_table(
        "users",
        sa.Column("id", sa.String, primary_key=True),
        sa.Column("handle", sa.String, nullable=False, unique=True),
        sa.Column("role", sa.String, nullable=False),
        sa.Column("email", sa.String, nullable=False, server_default=""),
        sa.Column("login_name", sa.String, nullable=False, server_default=""),
        sa.Column("handle_chosen", sa.Boolean, nullable=False),
        sa.Column("created_at", sa.Float, nullable=False),
    )
    op.create_table(
        "ssh_keys",
        sa.Column("id", sa.String, primary_key=True),
        sa.Column("user", sa.String, sa.ForeignKey("users.id", ondelete="CASCADE"), nullable=False),
        sa.Column("fingerprint", sa.String, nullable=False, unique=True),
        sa.Column("public_key", sa.String, nullable=False),
        sa.Column("name", sa.String, nullable=False),
        sa.Column("created_at", sa.Float, nullable=False),
        sa.UniqueConstraint("user", "name", name="one_key_name_per_user"),
    )
    op.create_table(
        "approved_keys",
        sa.Column("fingerprint", sa.String, primary_key=True),
        sa.Column("role", sa.String, nullable=False),
    )
    op.create_table(
        "sign_in_links",
        sa.Column("digest", sa.String, primary_key=True),
        sa.Column("user", sa.String, sa.ForeignKey("users.id", ondelete="CASCADE"), nullable=False),
        sa.Column("host", sa.String, nullable=False),
        sa.Column("parent", sa.String, nullable=False, server_default=""),
        sa.Column("expires", sa.Float, nullable=False),
    )
    op.create_table(
        "sessions",
        sa.Column("digest", sa.String, primary_key=True),
        sa.Column("user", sa.String, sa.ForeignKey("users.id", ondelete="CASCADE"), nullable=False),
        sa.Column("host", sa.String, nullable=False),
        sa.Column("parent", sa.String, nullable=False, server_default=""),
        sa.Column("created_at", sa.Float, nullable=False),
        sa.Column("expires", sa.Float, nullable=False),
    )
    op.create_index("sessions_by_parent", "sessions", ["parent"])
    _vms()


def _vms() -> None:
    op.create_table(
        "vms",
        sa.Column("id", sa.String, primary_key=True),
        sa.Column("number", sa.Integer, nullable=False, unique=True),
        sa.Column("name", sa.String, nullable=False, unique=True),
        sa.Column("owner", sa.String, sa.ForeignKey("users.id"), nullable=False, index=True),
        *(sa.Column(name, sa.String, nullable=False) for name in ("image", "env")),
        *(sa.Column(name, sa.Integer, nullable=False) for name in ("vcpus", "memory_mib", "disk_gib")),
        sa.Column("power", sa.String, nullable=False),
        sa.Column("boot", sa.Integer, nullable=False),
        *(sa.Column(name, sa.String, nullable=False) for name in ("secret", "phase")),
        sa.Column("seen_boot", sa.Integer, nullable=False),
        *(sa.Column(name, sa.String, nullable=False) for name in ("detail", "console", "address")),
        sa.Column("created_at", sa.Float, nullable=False),
    )
    op.create_table(
        "vm_ports",
        sa.Column("vm", sa.String, sa.ForeignKey("vms.id", ondelete="CASCADE"), primary_key=True),
        sa.Column("port", sa.Integer, primary_key=True),
        sa.Column("primary", sa.Boolean, nullable=False),
        sa.Column("public", sa.Boolean, nullable=False),
    )
