"""Changes to large tables that hold nobody up."""

from typing import Any

from alembic import op


def create_index(name: str, table: str, columns: list[Any], **options: Any) -> None:
    """Build an index while rows are written. What an earlier try has left, which is not valid, goes first."""
    with op.get_context().autocommit_block():
        # It waits for the transactions that are open now, and nobody waits for it.
        op.execute("SET lock_timeout = 0")
        op.execute(f"DROP INDEX CONCURRENTLY IF EXISTS {name}")
        op.create_index(name, table, columns, postgresql_concurrently=True, **options)
        op.execute("RESET lock_timeout")
