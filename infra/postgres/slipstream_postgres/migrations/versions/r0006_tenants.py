"""Assistants of a tenant's own, and in whose name a cron acts."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0006"
down_revision = "0005"
TABLES = ("assistants", "assistant_versions")


def upgrade() -> None:
    """Graphs' own assistants are everybody's (the tenant is empty); what clients made is the default tenant's."""
    op.drop_constraint("assistant_versions_assistant_id_fkey", "assistant_versions", type_="foreignkey")
    for table in TABLES:
        op.add_column(table, sa.Column("tenant", sa.String, nullable=False, server_default=""))
        op.drop_constraint(f"{table}_pkey", table, type_="primary")
    op.execute("""UPDATE assistants SET tenant='default' WHERE NOT metadata @> '{"created_by":"system"}'""")
    op.execute("UPDATE assistant_versions v SET tenant=a.tenant FROM assistants a WHERE a.assistant_id=v.assistant_id")
    op.create_primary_key("assistants_pkey", "assistants", ["tenant", "assistant_id"])
    op.create_primary_key("assistant_versions_pkey", "assistant_versions", ["tenant", "assistant_id", "version"])
    op.create_foreign_key(
        "assistant_versions_assistant_fkey", "assistant_versions", "assistants",
        ["tenant", "assistant_id"], ["tenant", "assistant_id"], ondelete="CASCADE",
    )  # fmt: skip
    op.add_column("crons", sa.Column("caller", JSONB))
