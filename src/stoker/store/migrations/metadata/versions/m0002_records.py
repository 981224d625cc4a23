"""Documents with their lookups, and the number of a function's newest published version."""

import sqlalchemy as sa
from alembic import op

from stoker.store.columns import words

revision = "m0002"
down_revision = "m0001"
branch_labels = None
depends_on = None

_KEY = ("kind", "account", "region", "owner", "name")


def upgrade() -> None:
    op.add_column("functions", sa.Column("last_version", sa.Integer, nullable=False, server_default="0"))
    op.create_table(
        "records",
        sa.Column("kind", words(40), primary_key=True),
        sa.Column("account", words(12), primary_key=True),
        sa.Column("region", words(32), primary_key=True),
        sa.Column("owner", words(256), primary_key=True),
        sa.Column("name", words(256), primary_key=True),
        sa.Column("revision_id", words(36), nullable=False),
        sa.Column("document", sa.LargeBinary, nullable=False),
        sa.Column("function", words(140)),
        sa.Column("lookups", sa.Text, nullable=False),
        sa.ForeignKeyConstraint(
            ["account", "region", "function"],
            ["functions.account", "functions.region", "functions.name"],
            ondelete="CASCADE",
        ),
    )
    op.create_index("records_function", "records", ["account", "region", "function"])
    op.create_table(
        "record_lookups",
        sa.Column("kind", words(40), primary_key=True),
        sa.Column("account", words(12), primary_key=True),
        sa.Column("region", words(32), primary_key=True),
        sa.Column("lookup", words(2048), primary_key=True),
        sa.Column("owner", words(256), primary_key=True),
        sa.Column("name", words(256), primary_key=True),
        sa.ForeignKeyConstraint(list(_KEY), [f"records.{name}" for name in _KEY], ondelete="CASCADE"),
    )
    op.create_index("record_lookups_record", "record_lookups", list(_KEY))
