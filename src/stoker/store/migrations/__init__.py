"""Schema revisions, run by alembic at start from whatever revision the file has. One folder a database."""
