"""Brings a database's schema to the newest revision with alembic, which is only loaded when there is work."""

from importlib import resources
from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection, inspect, text

from stoker.store.database import StoreError

if TYPE_CHECKING:
    from alembic.script import ScriptDirectory

METADATA = "metadata"
QUEUE = "queue"

HEADS = {METADATA: "m0003", QUEUE: "q0003"}
"""The newest revision of each database; a test holds them equal to what the folders say."""


def upgrade(connection: Connection, database: str, *, target: str | None = None) -> None:
    """Run every revision up to ``target`` that is missing, inside the caller's transaction.

    Raises:
        StoreError: the file was written by a newer Stoker.
    """
    wanted = target or HEADS[database]
    if stored_revision(connection) != wanted:
        _run(connection, database, wanted)


def revisions(database: str) -> list[str]:
    """Every revision there is, the first one first."""
    return [str(script.revision) for script in _scripts(database).walk_revisions()][::-1]


def stored_revision(connection: Connection) -> str | None:
    """The revision that the file says it has; None for an empty file."""
    if not inspect(connection).has_table("alembic_version"):
        return None
    return connection.execute(text("SELECT version_num FROM alembic_version")).scalar_one_or_none()


def _run(connection: Connection, database: str, target: str) -> None:
    # Costs 0.1 s or more; an ordinary start does not need it.
    from alembic.config import Config  # noqa: PLC0415
    from alembic.runtime.environment import EnvironmentContext  # noqa: PLC0415
    from alembic.util.exc import CommandError  # noqa: PLC0415

    script = _scripts(database)

    def steps(revision: Any, _context: Any) -> list[Any]:
        return list(script._upgrade_revs(target, revision))

    environment = EnvironmentContext(Config(), script, fn=steps)
    environment.configure(connection=connection, transactional_ddl=False)
    try:
        environment.run_migrations()
    except CommandError as problem:
        raise StoreError(f"the {database} database has an unknown schema revision: {problem}") from problem


def _scripts(database: str) -> "ScriptDirectory":
    from alembic.script import ScriptDirectory  # noqa: PLC0415

    return ScriptDirectory(str(resources.files("stoker.store.migrations") / database))
