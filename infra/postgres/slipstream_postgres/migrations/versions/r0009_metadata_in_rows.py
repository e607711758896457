"""Threads' metadata stay in their rows."""

from alembic import op

revision = "0009"
down_revision = "0008"


def upgrade() -> None:
    """A row larger than 2 KB, as every thread with a few messages is, was cut down to 256 bytes: its metadata went out
    of line too, and a filter fetched it for each row that it looked at.

    Rows that are there change when their metadata is next written, or with a rebuild.
    """
    op.execute("ALTER TABLE threads SET (toast_tuple_target = 512)")
    op.execute("ALTER TABLE threads ALTER metadata SET STORAGE MAIN")
