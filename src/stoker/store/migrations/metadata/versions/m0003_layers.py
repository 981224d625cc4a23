"""Which code the layers of functions' versions are. No function had layers before."""

import sqlalchemy as sa
from alembic import op

from stoker.store.columns import words

revision = "m0003"
down_revision = "m0002"
branch_labels = None
depends_on = None

_VERSION = ("account", "region", "name", "version")


def upgrade() -> None:
    op.create_table(
        "function_version_layers",
        sa.Column("account", words(12), primary_key=True),
        sa.Column("region", words(32), primary_key=True),
        sa.Column("name", words(140), primary_key=True),
        sa.Column("version", words(32), primary_key=True),
        sa.Column("code_sha256", words(44), primary_key=True),
        sa.ForeignKeyConstraint(
            list(_VERSION), [f"function_versions.{name}" for name in _VERSION], ondelete="CASCADE"
        ),
    )
    op.create_index("function_version_layers_code", "function_version_layers", ["code_sha256"])
