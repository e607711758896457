"""When a run began, and what is to be said of runs that have ended."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    """Add the column and the table."""
    op.add_column("runs", sa.Column("started_at", sa.DateTime(timezone=True)))
    due_at = sa.Column("due_at", sa.DateTime(timezone=True))
    op.create_table(
        "webhooks",
        sa.Column("tenant", sa.String, primary_key=True),
        sa.Column("run_id", sa.String, primary_key=True),
        sa.Column("thread_id", sa.String, nullable=False),
        sa.Column("assistant_id", sa.String, nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("status", sa.String, nullable=False),
        sa.Column("metadata", JSONB, nullable=False),
        sa.Column("kwargs", JSONB, nullable=False),
        sa.Column("multitask_strategy", sa.String, nullable=False),
        sa.Column("started_at", sa.DateTime(timezone=True)),
        sa.Column("values", JSONB),
        sa.Column("error", JSONB),
        due_at,
        sa.Column("tries", sa.Integer, nullable=False),
        sa.Index("webhooks_due", "due_at", postgresql_where=due_at.isnot(None)),
        sa.Index("webhooks_by_end", "updated_at"),
    )
