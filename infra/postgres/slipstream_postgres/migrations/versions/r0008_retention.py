"""How far each thread log was trimmed, and which deletions have not ended."""

import sqlalchemy as sa
from alembic import op

from slipstream_postgres.migrations.online import create_index

revision = "0008"
down_revision = "0007"


def upgrade() -> None:
    """Add the column, the index by which threads are found, and the table."""
    op.add_column("threads", sa.Column("log_from", sa.DateTime(timezone=True)))
    op.create_table(
        "erasures",
        sa.Column("tenant", sa.String, primary_key=True),
        sa.Column("thread_id", sa.String, primary_key=True),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
    )
    create_index(
        "threads_to_trim", "threads", [sa.text("(coalesce(log_from, created_at))")],
        postgresql_where=sa.text("log_from IS NULL OR log_from < updated_at"),
    )  # fmt: skip
