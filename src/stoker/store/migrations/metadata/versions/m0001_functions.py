"""Functions, their versions and access keys."""

import sqlalchemy as sa
from alembic import op

from stoker.store.columns import words

revision = "m0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "functions",
        sa.Column("account", words(12), primary_key=True),
        sa.Column("region", words(32), primary_key=True),
        sa.Column("name", words(140), primary_key=True),
        sa.Column("created_at_s", sa.Float, nullable=False),
        sa.Column("reserved_concurrency", sa.Integer),
        sa.Column("tags", sa.LargeBinary, nullable=False),
    )
    op.create_table(
        "function_versions",
        sa.Column("account", words(12), primary_key=True),
        sa.Column("region", words(32), primary_key=True),
        sa.Column("name", words(140), primary_key=True),
        sa.Column("version", words(32), primary_key=True),
        sa.Column("revision_id", words(36), nullable=False),
        sa.Column("code_sha256", words(44), nullable=False),
        sa.Column("code_size_bytes", sa.BigInteger, nullable=False),
        sa.Column("settled", sa.Integer, nullable=False),
        sa.Column("document", sa.LargeBinary, nullable=False),
        sa.Column("environment_sealed", sa.LargeBinary),
        sa.ForeignKeyConstraint(
            ["account", "region", "name"],
            ["functions.account", "functions.region", "functions.name"],
            ondelete="CASCADE",
        ),
    )
    op.create_index("function_versions_code", "function_versions", ["code_sha256"])
    op.create_index("function_versions_settled", "function_versions", ["settled"])
    op.create_table(
        "access_keys",
        sa.Column("access_key_id", words(128), primary_key=True),
        sa.Column("account", words(12), nullable=False),
        sa.Column("principal_arn", words(2048), nullable=False),
        sa.Column("secret_sealed", sa.LargeBinary, nullable=False),
        sa.Column("created_at_s", sa.Float, nullable=False),
    )
