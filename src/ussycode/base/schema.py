"""Bringing a database to the schema of this version."""
from __future__ import annotations

import sqlalchemy as sa

from ussycode.base.errors import ErrorCode, Kind

HEAD = "0021"
"""Newest version under `migrations/versions`; a test compares them."""
TOO_NEW = ErrorCode(
    "db.too_new", Kind.FAILED, "the database has schema {found}, newer than this version of ussycode knows ({head})",
    hint="run the newer version again, or restore a backup",
)
_versions = sa.Table("alembic_version", sa.MetaData(), sa.Column("version_num", sa.String(32), primary_key=True))


def migrate(engine: sa.Engine) -> None:
    """Upgrade in place; instant when nothing is to be done. Raises TOO_NEW for a database of a later version.

    All changes are one transaction: a process that is killed half-way leaves the old schema.
    """
    found = current(engine)
    if found == HEAD:
        return
    if found is not None and found > HEAD:
        raise TOO_NEW(found=found, head=HEAD)
    with engine.connect() as connection:
        connection.exec_driver_sql("BEGIN IMMEDIATE")
        try:
            _upgrade(connection, found or "")
        except BaseException:
            connection.exec_driver_sql("ROLLBACK")
            raise
        connection.exec_driver_sql("COMMIT")


def _upgrade(connection: sa.Connection, found: str) -> None:
    # Imported here: Alembic costs most of a second that a current database need not pay. Its loader of scripts
    # is not used, because it insists on real paths, which an unprivileged process may not be able to enter.
    from alembic.operations import Operations
    from alembic.runtime.migration import MigrationContext

    from ussycode.base.migrations.versions import ORDER

    with Operations.context(MigrationContext.configure(connection)):
        for module in ORDER:
            if module.revision > found:
                module.upgrade()
    _versions.create(connection, checkfirst=True)
    connection.execute(_versions.delete())
    connection.execute(_versions.insert(), {"version_num": HEAD})


def current(engine: sa.Engine) -> str | None:
    """Version of the schema in the database; None when it is empty."""
    if not sa.inspect(engine).has_table("alembic_version"):
        return None
    with engine.connect() as connection:
        return connection.exec_driver_sql("SELECT version_num FROM alembic_version").scalar()
