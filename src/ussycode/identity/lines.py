"""What a person typed at the lobby's prompt, kept for the arrow keys of their next visit."""
from __future__ import annotations

import re

import sqlalchemy as sa

from ussycode.base.db import Tx, metadata
from ussycode.ports import App

MAX_LINES = 300
"""Lines kept for an account; older ones go."""
MAX_BYTES = 1000
"""Longer lines are not kept."""
SECRET = re.compile(r"usy[01]\.|--registry-auth|--env\b|defaults\s+write")
"""Lines that may carry a secret are not kept; neither is one that begins with a blank, as in shells."""
lobby_lines = sa.Table(
    "lobby_lines", metadata,
    sa.Column("seq", sa.Integer, primary_key=True, autoincrement=True),
    sa.Column("user", sa.String, sa.ForeignKey("users.id", ondelete="CASCADE"), nullable=False, index=True),
    sa.Column("line", sa.String, nullable=False),
)


async def remembered(app: App, user: str) -> list[str]:
    """An account's lines, oldest first."""
    query = sa.select(lobby_lines.c.line).where(lobby_lines.c.user == user).order_by(lobby_lines.c.seq)
    return await app.db.read(lambda tx: [row.line for row in tx.conn.execute(query)])


async def remember(app: App, user: str, line: str) -> None:
    """Keep a line unless it is empty, long, hidden, secret, or the last one again."""
    if not line.strip() or line[0].isspace() or len(line.encode()) > MAX_BYTES or SECRET.search(line):
        return
    await app.db.write(lambda tx: _add(tx, user, line))


def _add(tx: Tx, user: str, line: str) -> None:
    mine = lobby_lines.c.user == user
    newest = sa.select(lobby_lines.c.seq, lobby_lines.c.line).where(mine).order_by(lobby_lines.c.seq.desc())
    rows = tx.conn.execute(newest.limit(MAX_LINES)).all()
    if rows and rows[0].line == line:
        return
    tx.conn.execute(lobby_lines.insert(), {"user": user, "line": line})
    if len(rows) == MAX_LINES:
        tx.conn.execute(lobby_lines.delete().where(mine & (lobby_lines.c.seq <= rows[-1].seq)))
