"""Threads that go by themselves, whoever made them."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    """Widen the table of the crons' threads."""
    op.rename_table("cron_threads", "temporary_threads")
    op.alter_column("temporary_threads", "run_id", nullable=True)
    op.add_column("temporary_threads", sa.Column("kept_s", sa.Float, nullable=False, server_default=sa.text("0")))
    op.add_column("temporary_threads", sa.Column("ttl_minutes", sa.Float))
    op.add_column(
        "temporary_threads",
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False, server_default=sa.text("now()")),
    )
