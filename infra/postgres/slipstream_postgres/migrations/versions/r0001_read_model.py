"""The read model's first tables."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0001"
down_revision = None


def _moment(name: str) -> "sa.Column[object]":
    return sa.Column(name, sa.DateTime(timezone=True), nullable=False)


def upgrade() -> None:
    """Create everything."""
    _threads_and_runs()
    op.create_table(
        "assistants",
        sa.Column("assistant_id", sa.String, primary_key=True),
        sa.Column("graph_id", sa.String, nullable=False, index=True),
        sa.Column("name", sa.String, nullable=False),
        sa.Column("description", sa.Text),
        *(sa.Column(name, JSONB, nullable=False) for name in ("config", "context", "metadata")),
        sa.Column("version", sa.Integer, nullable=False),
        _moment("created_at"),
        _moment("updated_at"),
    )
    op.create_table(
        "positions",
        sa.Column("name", sa.String, primary_key=True),
        sa.Column("stream_seq", sa.BigInteger, nullable=False),
    )
    op.create_table(
        "fences",
        sa.Column("thread_key", sa.String, primary_key=True),
        sa.Column("fence", sa.BigInteger, nullable=False),
    )
    op.create_table(
        "quarantine",
        sa.Column("stream_seq", sa.BigInteger, primary_key=True),
        sa.Column("subject", sa.String, nullable=False),
        sa.Column("error", sa.Text, nullable=False),
        sa.Column("body", sa.LargeBinary, nullable=False),
        _moment("at"),
    )


def _threads_and_runs() -> None:
    op.create_table(
        "threads",
        sa.Column("tenant", sa.String, primary_key=True),
        sa.Column("thread_id", sa.String, primary_key=True),
        *(_moment(name) for name in ("created_at", "updated_at", "state_updated_at")),
        sa.Column("metadata", JSONB, nullable=False),
        sa.Column("status", sa.String, nullable=False),
        sa.Column("config", JSONB, nullable=False),
        sa.Column("values", JSONB),
        sa.Column("interrupts", JSONB, nullable=False),
        sa.Column("error", JSONB),
        sa.Column("control_seq", sa.BigInteger, nullable=False),
        sa.Index("threads_by_creation", "tenant", "created_at"),
        sa.Index(
            "threads_by_metadata", "metadata", postgresql_using="gin", postgresql_ops={"metadata": "jsonb_path_ops"}
        ),
    )
    status = sa.Column("status", sa.String, nullable=False)
    op.create_table(
        "runs",
        sa.Column("tenant", sa.String, primary_key=True),
        sa.Column("run_id", sa.String, primary_key=True),
        *(sa.Column(name, sa.String, nullable=False) for name in ("thread_id", "assistant_id", "graph_id")),
        _moment("created_at"),
        _moment("updated_at"),
        status,
        sa.Column("metadata", JSONB, nullable=False),
        sa.Column("kwargs", JSONB, nullable=False),
        sa.Column("multitask_strategy", sa.String, nullable=False),
        sa.Column("attempt", sa.Integer, nullable=False),
        sa.Column("error", JSONB),
        sa.Column("log_seq", sa.BigInteger, nullable=False),
        sa.Column("control_seq", sa.BigInteger, nullable=False),
        sa.Index("runs_by_thread", "tenant", "thread_id", "created_at"),
        sa.Index("runs_unfinished", "status", postgresql_where=status.in_(["pending", "running"])),
    )
