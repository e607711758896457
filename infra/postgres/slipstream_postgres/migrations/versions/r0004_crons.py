"""Crons, and the threads of their own that their runs leave behind."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    """Create both tables."""
    next_run_date = sa.Column("next_run_date", sa.DateTime(timezone=True))
    op.create_table(
        "crons",
        sa.Column("tenant", sa.String, primary_key=True),
        sa.Column("cron_id", sa.String, primary_key=True),
        sa.Column("assistant_id", sa.String, nullable=False),
        sa.Column("thread_id", sa.String),
        sa.Column("on_run_completed", sa.String),
        sa.Column("end_time", sa.DateTime(timezone=True)),
        sa.Column("schedule", sa.String, nullable=False),
        sa.Column("timezone", sa.String),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("payload", JSONB, nullable=False),
        sa.Column("user_id", sa.String),
        next_run_date,
        sa.Column("metadata", JSONB, nullable=False),
        sa.Column("enabled", sa.Boolean, nullable=False),
        sa.Index("crons_by_next_run", "next_run_date", postgresql_where=next_run_date.isnot(None)),
    )
    op.create_table(
        "cron_threads",
        sa.Column("tenant", sa.String, primary_key=True),
        sa.Column("thread_id", sa.String, primary_key=True),
        sa.Column("run_id", sa.String, nullable=False),
    )
