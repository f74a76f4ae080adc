"""If this failed, an upgraded database would lack what the code reads."""
from __future__ import annotations

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext

import ussycode.catalog
import ussycode.identity.lines  # noqa: F401 - with the catalogue it declares every table
from ussycode.base.clock import ManualClock
from ussycode.base.db import Database, metadata
from ussycode.base.errors import Failure
from ussycode.base.migrations.versions import ORDER
from ussycode.base.schema import HEAD, current, migrate


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


def test_a_database_of_a_later_version_is_refused() -> None:
    db = Database(None, ManualClock())
    migrate(db.engine)
    with db.engine.connect() as connection:
        connection.exec_driver_sql("UPDATE alembic_version SET version_num = '9999'")
    with pytest.raises(Failure, match="newer"):
        migrate(db.engine)


def test_versions_are_in_order_and_head_is_the_last() -> None:
    revisions = [module.revision for module in ORDER]
    assert revisions == sorted(set(revisions)) and revisions[-1] == HEAD
