"""SQL of the outgoing mail."""
from __future__ import annotations

from typing import Any

import sqlalchemy as sa

from ussycode.base import ids
from ussycode.base.db import Tx, metadata
from ussycode.mail.model import Mail, MailState

KEEP_SECONDS = 30 * 86_400
"""How long a mail that is over can be looked at."""
mails = sa.Table(
    "mails", metadata,
    sa.Column("id", sa.String, primary_key=True),
    sa.Column("to", sa.String, nullable=False),
    sa.Column("subject", sa.String, nullable=False),
    sa.Column("body", sa.String, nullable=False),
    sa.Column("created_at", sa.Float, nullable=False),
    sa.Column("state", sa.String, nullable=False),
    sa.Column("attempts", sa.Integer, nullable=False),
    sa.Column("again_at", sa.Float, nullable=False),
    sa.Column("error", sa.String, nullable=False),
    sa.Index("mails_by_state", "state", "again_at"),
)


def _mail(row: Any) -> Mail:
    values = dict(row._mapping)
    return Mail(**values | {"state": MailState(values["state"])})


def post(tx: Tx, to: str, subject: str, body: str) -> Mail:
    """Spool a mail with the transaction that causes it; mails long over are swept on the way."""
    over = (mails.c.created_at < tx.now - KEEP_SECONDS) & (mails.c.state != MailState.WAITING.value)
    tx.conn.execute(mails.delete().where(over))
    mail = Mail(ids.new("mail"), to, subject, body, tx.now)
    tx.conn.execute(mails.insert(), vars(mail) | {"state": mail.state.value})
    return mail


def due(tx: Tx, limit: int) -> list[Mail]:
    """Mails whose time has come, oldest first."""
    waiting = (mails.c.state == MailState.WAITING.value) & (mails.c.again_at <= tx.now)
    query = sa.select(mails).where(waiting).order_by(mails.c.created_at).limit(limit)
    return [_mail(row) for row in tx.conn.execute(query)]


def every(tx: Tx) -> list[Mail]:
    """Every mail that is still kept, oldest first."""
    return [_mail(row) for row in tx.conn.execute(sa.select(mails).order_by(mails.c.created_at, mails.c.id))]


def update(tx: Tx, mail: str, **values: object) -> None:
    """Change columns of a mail."""
    tx.conn.execute(mails.update().where(mails.c.id == mail).values(**values))
