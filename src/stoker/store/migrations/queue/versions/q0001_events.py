"""Asynchronous events with their due times."""

import sqlalchemy as sa
from alembic import op

revision = "q0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "events",
        sa.Column("request_id", sa.String(64), primary_key=True),
        sa.Column("account", sa.String(12), nullable=False),
        sa.Column("region", sa.String(32), nullable=False),
        sa.Column("name", sa.String(140), nullable=False),
        sa.Column("qualifier", sa.String(128), nullable=False),
        sa.Column("payload", sa.LargeBinary, nullable=False),
        sa.Column("accepted_at_s", sa.Float, nullable=False),
        sa.Column("due_at_s", sa.Float, nullable=False),
        sa.Column("taken_due_at_s", sa.Float),
        sa.Column("attempts", sa.Integer, nullable=False),
        sa.Column("throttles", sa.Integer, nullable=False),
        sa.Column("client_context", sa.String),
        sa.Column("trace_id", sa.String),
        sa.Column("size_bytes", sa.Integer, nullable=False),
    )
    op.create_index("events_due", "events", ["due_at_s"])
