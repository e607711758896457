"""Threads whose ttl takes their older checkpoints, and not themselves."""

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"


def upgrade() -> None:
    """Add their ttl, and when it was acted on. An API of before that still runs sees no ttl, and deletes nothing."""
    op.add_column("temporary_threads", sa.Column("prune_minutes", sa.Float))
    op.add_column("temporary_threads", sa.Column("pruned_at", sa.DateTime(timezone=True)))
