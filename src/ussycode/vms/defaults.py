"""What an account wants of every new VM: kept by name, applied by `new`."""
from __future__ import annotations

import sqlalchemy as sa

from ussycode.access.decide import Permit
from ussycode.base.db import Tx, metadata
from ussycode.base.errors import ErrorCode, Kind
from ussycode.base.events import Event
from ussycode.ports import App

SPACE = "dev.exe"
"""The namespace in which the keys stand, as clients write it."""
KEYS = ("new.setup-script", "new.env", "new.image", "new.memory", "new.cpu", "new.disk")
MAX_VALUE = 10 << 10
"""Bytes of one value; the limit of a setup script."""
NO_KEY = ErrorCode("defaults.unknown", Kind.USAGE, "there is no default {key}", hint="there is: {known}")
TOO_LONG = ErrorCode("defaults.too_long", Kind.USAGE, "a default has at most {limit} bytes")
defaults = sa.Table(
    "defaults", metadata,
    sa.Column("user", sa.String, sa.ForeignKey("users.id", ondelete="CASCADE"), primary_key=True),
    sa.Column("name", sa.String, primary_key=True),
    sa.Column("value", sa.String, nullable=False),
)


async def read(app: App, permit: Permit) -> dict[str, str]:
    """The caller's defaults by key."""
    return await app.db.read(lambda tx: _of(tx, permit.actor))


async def write(app: App, permit: Permit, key: str, value: str | None) -> dict[str, str]:
    """Set a default, or delete it with None; all defaults then. Raises NO_KEY or TOO_LONG."""
    if key not in KEYS:
        raise NO_KEY(key=key, known=", ".join(KEYS))
    if value is not None and len(value.encode()) > MAX_VALUE:
        raise TOO_LONG(limit=MAX_VALUE)

    def change(tx: Tx) -> dict[str, str]:
        mine = (defaults.c.user == permit.actor) & (defaults.c.name == key)
        tx.conn.execute(defaults.delete().where(mine))
        if value is not None:
            tx.conn.execute(defaults.insert(), {"user": permit.actor, "name": key, "value": value})
        tx.emit(Event("defaults.changed", permit.actor, permit.actor, {"key": key}))
        return _of(tx, permit.actor)

    return await app.db.write(change)


def _of(tx: Tx, user: str) -> dict[str, str]:
    query = sa.select(defaults.c.name, defaults.c.value).where(defaults.c.user == user).order_by(defaults.c.name)
    return {row.name: row.value for row in tx.conn.execute(query)}
