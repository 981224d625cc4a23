"""How far the shards of event source mappings are processed, and who processes them."""

import sqlalchemy as sa
from alembic import op

revision = "q0003"
down_revision = "q0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "stream_shards",
        sa.Column("mapping", sa.String(36), primary_key=True),
        sa.Column("shard_id", sa.String(128), primary_key=True),
        sa.Column("progress", sa.LargeBinary, nullable=False),
        sa.Column("owner", sa.String(36)),
        sa.Column("until_s", sa.Float, nullable=False),
        sa.Column("term", sa.Integer, nullable=False),
    )
    op.create_index("stream_shards_owner", "stream_shards", ["owner"])
