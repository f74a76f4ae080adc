"""Schema changes in order; Alembic runs them, `ussycode.base.schema` asks it to."""
