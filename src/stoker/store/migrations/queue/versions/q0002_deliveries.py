"""Records of events that ended, on their way to destinations and dead-letter queues."""

import sqlalchemy as sa
from alembic import op

revision = "q0002"
down_revision = "q0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "deliveries",
        sa.Column("delivery_id", sa.String(128), primary_key=True),
        sa.Column("kind", sa.String(16), nullable=False),
        sa.Column("request_id", sa.String(64), nullable=False),
        sa.Column("function_arn", sa.String(400), nullable=False),
        sa.Column("destination", sa.String(400), nullable=False),
        sa.Column("body", sa.LargeBinary, nullable=False),
        sa.Column("attributes", sa.LargeBinary, nullable=False),
        sa.Column("created_at_s", sa.Float, nullable=False),
        sa.Column("due_at_s", sa.Float, nullable=False),
        sa.Column("taken_due_at_s", sa.Float),
        sa.Column("failures", sa.Integer, nullable=False),
        sa.Column("size_bytes", sa.Integer, nullable=False),
    )
    op.create_index("deliveries_due", "deliveries", ["due_at_s"])
