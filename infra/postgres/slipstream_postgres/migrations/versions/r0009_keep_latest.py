"""Threads whose ttl takes their older checkpoints, and not themselves."""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"


def upgrade() -> None:
    """Add what the ttl takes, and when it did."""
    wholly = sa.Column("keeps_latest", sa.Boolean, nullable=False, server_default=sa.text("false"))
    op.add_column("temporary_threads", wholly)
    op.add_column("temporary_threads", sa.Column("pruned_at", sa.DateTime(timezone=True)))
