"""If this failed, an upgraded database would lack what the code reads."""
from __future__ import annotations

from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory

import ussycode.catalog  # noqa: F401 - declares every table
from ussycode.base.clock import ManualClock
from ussycode.base.db import Database, metadata
from ussycode.base.schema import HEAD, MIGRATIONS, current, migrate


def test_migrating_an_empty_database_gives_exactly_the_declared_tables() -> None:
    db = Database(None, ManualClock())
    migrate(db.engine)
    with db.engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), metadata) == []
    assert current(db.engine) == HEAD


def test_migrating_twice_changes_nothing() -> None:
    db = Database(None, ManualClock())
    migrate(db.engine)
    migrate(db.engine)
    assert current(db.engine) == HEAD


def test_head_names_the_newest_version() -> None:
    assert ScriptDirectory(str(MIGRATIONS)).get_current_head() == HEAD
