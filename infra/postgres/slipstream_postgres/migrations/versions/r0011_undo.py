"""What a run that goes on from a checkpoint finds there, for its rollback."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0011"
down_revision = "0010"


def upgrade() -> None:
    """Add it to the thread's fence. A runner of before that still runs leaves it alone, and rolls back as it did."""
    op.add_column("fences", sa.Column("undo", JSONB))
