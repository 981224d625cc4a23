"""Column types that mean the same in every database."""

from sqlalchemy import String


def words(length: int) -> String:
    """Text that is compared by its bytes, as SQLite does without being told."""
    return String(length).with_variant(String(length, collation="C"), "postgresql")
