"""Token handles, revocations and tag-limited keys."""
from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"


def upgrade() -> None:
    """Keep handles of tokens, tokens that were revoked, and when keys were used last."""
    op.add_column("ssh_keys", sa.Column("tag", sa.String, nullable=False, server_default=""))
    op.add_column("ssh_keys", sa.Column("last_used", sa.Float, nullable=False, server_default="0"))
    op.create_table(
        "token_handles",
        sa.Column("id", sa.String, primary_key=True),
        sa.Column("user", sa.String, sa.ForeignKey("users.id", ondelete="CASCADE"), nullable=False),
        sa.Column("digest", sa.String, nullable=False, unique=True),
        *(sa.Column(name, sa.String, nullable=False) for name in ("label", "vm", "payload", "key", "tag")),
        sa.Column("created_at", sa.Float, nullable=False),
        sa.Column("last_used", sa.Float, nullable=False),
        sa.UniqueConstraint("user", "label", name="one_token_label_per_user"),
    )
    op.create_table(
        "revoked_tokens",
        sa.Column("digest", sa.String, primary_key=True),
        sa.Column("user", sa.String, sa.ForeignKey("users.id", ondelete="CASCADE"), nullable=False),
        sa.Column("revoked_at", sa.Float, nullable=False),
        sa.Column("until", sa.Float, nullable=False),
    )
