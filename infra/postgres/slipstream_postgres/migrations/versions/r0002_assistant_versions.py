"""Versions of assistants, and the graphs that runners have registered."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Create the tables, and give each assistant that exists its version and each graph its row."""
    op.create_table(
        "graphs",
        sa.Column("graph_id", sa.String, primary_key=True),
        sa.Column("version", sa.String, nullable=False),
    )
    op.execute(
        "INSERT INTO graphs (graph_id, version) SELECT DISTINCT graph_id, '' FROM assistants "
        """WHERE metadata @> '{"created_by":"system"}'"""
    )
    op.create_table(
        "assistant_versions",
        sa.Column(
            "assistant_id",
            sa.String,
            sa.ForeignKey("assistants.assistant_id", ondelete="CASCADE"),
            primary_key=True,
        ),
        sa.Column("version", sa.Integer, primary_key=True),
        sa.Column("graph_id", sa.String, nullable=False),
        sa.Column("name", sa.String, nullable=False),
        sa.Column("description", sa.Text),
        *(sa.Column(name, JSONB, nullable=False) for name in ("config", "context", "metadata")),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
    )
    op.execute(
        "INSERT INTO assistant_versions (assistant_id, version, graph_id, name, description, config, context, "
        "metadata, created_at) SELECT assistant_id, version, graph_id, name, description, config, context, metadata, "
        "updated_at FROM assistants"
    )
    op.create_index(
        "assistants_by_metadata",
        "assistants",
        ["metadata"],
        postgresql_using="gin",
        postgresql_ops={"metadata": "jsonb_path_ops"},
    )
