"""Bringing a database to the schema of this version."""
from __future__ import annotations

from pathlib import Path

import sqlalchemy as sa

from ussycode.base.errors import ErrorCode, Kind

HEAD = "0001"
"""Newest version under `migrations/versions`; a test compares them."""
MIGRATIONS = Path(__file__).parent / "migrations"
TOO_NEW = ErrorCode(
    "db.too_new", Kind.FAILED, "the database has schema {found}, newer than this version of ussycode knows ({head})",
    hint="run the newer version again, or restore a backup",
)


def migrate(engine: sa.Engine) -> None:
    """Upgrade in place; instant when nothing is to be done. Raises TOO_NEW for a database of a later version."""
    found = current(engine)
    if found == HEAD:
        return
    if found is not None and found > HEAD:
        raise TOO_NEW(found=found, head=HEAD)
    # Imported here: Alembic costs a second that a current database need not pay.
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    with engine.connect() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "head")


def current(engine: sa.Engine) -> str | None:
    """Version of the schema in the database; None when it is empty."""
    if not sa.inspect(engine).has_table("alembic_version"):
        return None
    with engine.connect() as connection:
        return connection.exec_driver_sql("SELECT version_num FROM alembic_version").scalar()
