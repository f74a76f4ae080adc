"""What an account wants of every new VM: kept by name, applied by `new`."""
from __future__ import annotations

import re

import sqlalchemy as sa

from ussycode.access.decide import Permit
from ussycode.base.db import Tx, metadata
from ussycode.base.errors import ErrorCode, Kind
from ussycode.base.events import Event
from ussycode.ports import App

SPACE = "dev.exe"
"""The namespace in which the keys stand, as clients write it."""
KEYS = ("new.setup-script", "new.env", "new.image", "new.memory", "new.cpu", "new.disk")
FILE = re.compile(r"new\.file:((?:~/|/)[^\0\r\n]{1,200})")
"""A file that every new VM gets; a path below the login user's home begins with ~/ ."""
MAX_FILES = 16
MAX_VALUE = 10 << 10
"""Bytes of one value; the limit of a setup script."""
NO_KEY = ErrorCode("defaults.unknown", Kind.USAGE, "there is no default {key}", hint="there is: {known}")
TOO_LONG = ErrorCode("defaults.too_long", Kind.USAGE, "a default has at most {limit} bytes")
TOO_MANY_FILES = ErrorCode("defaults.too_many_files", Kind.USAGE, "at most {limit} files can be defaults")
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
    """Set a default, or delete it with None; all defaults then. Raises NO_KEY, TOO_LONG or TOO_MANY_FILES."""
    if key not in KEYS and not FILE.fullmatch(key):
        raise NO_KEY(key=key, known=", ".join((*KEYS, "new.file:PATH")))
    if value is not None and len(value.encode()) > MAX_VALUE:
        raise TOO_LONG(limit=MAX_VALUE)

    def change(tx: Tx) -> dict[str, str]:
        mine = (defaults.c.user == permit.actor) & (defaults.c.name == key)
        tx.conn.execute(defaults.delete().where(mine))
        if value is not None:
            tx.conn.execute(defaults.insert(), {"user": permit.actor, "name": key, "value": value})
        if len(files(_of(tx, permit.actor))) > MAX_FILES:
            raise TOO_MANY_FILES(limit=MAX_FILES)
        tx.emit(Event("defaults.changed", permit.actor, permit.actor, {"key": key}))
        return _of(tx, permit.actor)

    return await app.db.write(change)


def files(kept: dict[str, str]) -> tuple[tuple[str, str], ...]:
    """Files among the defaults, as (path, text)."""
    return tuple((found[1], text) for key, text in kept.items() if (found := FILE.fullmatch(key)))


def _of(tx: Tx, user: str) -> dict[str, str]:
    query = sa.select(defaults.c.name, defaults.c.value).where(defaults.c.user == user).order_by(defaults.c.name)
    return {row.name: row.value for row in tx.conn.execute(query)}
