"""The tables of the read model. `threads` and `runs` are folds of the control log and nothing else writes them."""

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    DateTime,
    Float,
    ForeignKeyConstraint,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB

metadata = MetaData()

threads = Table(
    "threads",
    metadata,
    Column("tenant", String, primary_key=True),
    Column("thread_id", String, primary_key=True),
    Column("created_at", DateTime(timezone=True), nullable=False),
    Column("updated_at", DateTime(timezone=True), nullable=False),
    Column("state_updated_at", DateTime(timezone=True), nullable=False),
    Column("metadata", JSONB, nullable=False),
    Column("status", String, nullable=False),
    Column("config", JSONB, nullable=False),
    Column("values", JSONB),
    Column("interrupts", JSONB, nullable=False),
    Column("error", JSONB),
    Column("control_seq", BigInteger, nullable=False),
    Column("log_from", DateTime(timezone=True)),
    Index("threads_by_creation", "tenant", "created_at"),
    Index("threads_by_update", "tenant", "updated_at"),
    Index("threads_by_state_update", "tenant", "state_updated_at"),
    Index("threads_by_status", "tenant", "status", "created_at"),
    Index(
        "threads_to_trim",
        text("(coalesce(log_from, created_at))"),
        postgresql_where=text("log_from IS NULL OR log_from < updated_at"),
    ),
    Index("threads_by_metadata", "metadata", postgresql_using="gin", postgresql_ops={"metadata": "jsonb_path_ops"}),
)

runs = Table(
    "runs",
    metadata,
    Column("tenant", String, primary_key=True),
    Column("run_id", String, primary_key=True),
    Column("thread_id", String, nullable=False),
    Column("assistant_id", String, nullable=False),
    Column("graph_id", String, nullable=False),
    Column("created_at", DateTime(timezone=True), nullable=False),
    Column("updated_at", DateTime(timezone=True), nullable=False),
    Column("status", String, nullable=False),
    Column("metadata", JSONB, nullable=False),
    Column("kwargs", JSONB, nullable=False),
    Column("multitask_strategy", String, nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("error", JSONB),
    Column("log_seq", BigInteger, nullable=False),
    Column("control_seq", BigInteger, nullable=False),
    Column("started_at", DateTime(timezone=True)),
    Index("runs_by_thread", "tenant", "thread_id", "created_at"),
    Index("runs_unfinished", "status", postgresql_where=Column("status").in_(["pending", "running"])),
)

assistants = Table(
    "assistants",
    metadata,
    Column("tenant", String, primary_key=True, server_default=""),
    Column("assistant_id", String, primary_key=True),
    Column("graph_id", String, nullable=False, index=True),
    Column("name", String, nullable=False),
    Column("description", Text),
    Column("config", JSONB, nullable=False),
    Column("context", JSONB, nullable=False),
    Column("metadata", JSONB, nullable=False),
    Column("version", Integer, nullable=False),
    Column("created_at", DateTime(timezone=True), nullable=False),
    Column("updated_at", DateTime(timezone=True), nullable=False),
    Index("assistants_by_metadata", "metadata", postgresql_using="gin", postgresql_ops={"metadata": "jsonb_path_ops"}),
)

assistant_versions = Table(
    "assistant_versions",
    metadata,
    Column("tenant", String, primary_key=True, server_default=""),
    Column("assistant_id", String, primary_key=True),
    Column("version", Integer, primary_key=True),
    Column("graph_id", String, nullable=False),
    Column("name", String, nullable=False),
    Column("description", Text),
    Column("config", JSONB, nullable=False),
    Column("context", JSONB, nullable=False),
    Column("metadata", JSONB, nullable=False),
    Column("created_at", DateTime(timezone=True), nullable=False),
    ForeignKeyConstraint(
        ["tenant", "assistant_id"], ["assistants.tenant", "assistants.assistant_id"], ondelete="CASCADE"
    ),
)

graphs = Table(
    "graphs",
    metadata,
    Column("graph_id", String, primary_key=True),
    Column("version", String, nullable=False),
)

crons = Table(
    "crons",
    metadata,
    Column("tenant", String, primary_key=True),
    Column("cron_id", String, primary_key=True),
    Column("assistant_id", String, nullable=False),
    Column("thread_id", String),
    Column("on_run_completed", String),
    Column("end_time", DateTime(timezone=True)),
    Column("schedule", String, nullable=False),
    Column("timezone", String),
    Column("created_at", DateTime(timezone=True), nullable=False),
    Column("updated_at", DateTime(timezone=True), nullable=False),
    Column("payload", JSONB, nullable=False),
    Column("user_id", String),
    Column("next_run_date", DateTime(timezone=True)),
    Column("metadata", JSONB, nullable=False),
    Column("enabled", Boolean, nullable=False),
    Column("caller", JSONB),
    Index("crons_by_next_run", "next_run_date", postgresql_where=Column("next_run_date").isnot(None)),
)

temporary_threads = Table(
    "temporary_threads",
    metadata,
    Column("tenant", String, primary_key=True),
    Column("thread_id", String, primary_key=True),
    Column("run_id", String),
    Column("kept_s", Float, nullable=False, server_default=text("0")),
    Column("ttl_minutes", Float),
    Column("created_at", DateTime(timezone=True), nullable=False, server_default=text("now()")),
    Column("prune_minutes", Float),
    Column("pruned_at", DateTime(timezone=True)),
)
"""Threads to be deleted when their run is over, or when they have not changed for their ttl, which may take their older
checkpoints alone.
"""

webhooks = Table(
    "webhooks",
    metadata,
    Column("tenant", String, primary_key=True),
    Column("run_id", String, primary_key=True),
    Column("thread_id", String, nullable=False),
    Column("assistant_id", String, nullable=False),
    Column("created_at", DateTime(timezone=True), nullable=False),
    Column("updated_at", DateTime(timezone=True), nullable=False),
    Column("status", String, nullable=False),
    Column("metadata", JSONB, nullable=False),
    Column("kwargs", JSONB, nullable=False),
    Column("multitask_strategy", String, nullable=False),
    Column("started_at", DateTime(timezone=True)),
    Column("values", JSONB),
    Column("error", JSONB),
    Column("due_at", DateTime(timezone=True)),
    Column("tries", Integer, nullable=False),
    Index("webhooks_due", "due_at", postgresql_where=Column("due_at").isnot(None)),
    Index("webhooks_by_end", "updated_at"),
)
"""What is to be said of runs that have ended: their rows as they were then. Without `due_at` it has been said."""

erasures = Table(
    "erasures",
    metadata,
    Column("tenant", String, primary_key=True),
    Column("thread_id", String, primary_key=True),
    Column("at", DateTime(timezone=True), nullable=False),
)
"""Deletions of threads that have begun and not ended: a fold of the control log, too."""

positions = Table(
    "positions",
    metadata,
    Column("name", String, primary_key=True),
    Column("stream_seq", BigInteger, nullable=False),
)

fences = Table(
    "fences",
    metadata,
    Column("thread_key", String, primary_key=True),
    Column("fence", BigInteger, nullable=False),
    Column("undo", JSONB),
)

quarantine = Table(
    "quarantine",
    metadata,
    Column("stream_seq", BigInteger, primary_key=True),
    Column("subject", String, nullable=False),
    Column("error", Text, nullable=False),
    Column("body", LargeBinary, nullable=False),
    Column("at", DateTime(timezone=True), nullable=False),
)
