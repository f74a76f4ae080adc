"""Schema changes in order, written with Alembic's operations; `ussycode.base.schema` runs them."""
