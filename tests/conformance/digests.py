"""What a running Stoker keeps, as one digest: every row of every table of its metadata, and its log groups.

Read beside the service from its own files. What the service brings to rest by itself is left out.
"""

import hashlib
import json
import sqlite3
import time
from pathlib import Path
from typing import Any

SETTLED_WITHIN_S = 20.0
_MOVING = ("State", "StateTransitionReason", "LastModified", "LastProcessingResult")


class Kept:
    """The data folder of one Stoker."""

    def __init__(self, data: Path) -> None:
        self._logs = data / "logs"
        self._rows = sqlite3.connect(f"file:{data / 'metadata.db'}?mode=ro", uri=True, isolation_level=None)
        self._tables = [
            name for (name,) in self._rows.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
        ]

    def close(self) -> None:
        """Let go of the database."""
        self._rows.close()

    def commits(self) -> int:
        """A number that changes with every commit of the service."""
        return self._rows.execute("PRAGMA data_version").fetchone()[0]

    def settle(self) -> None:
        """Wait until no creation or update of a function is under way."""
        deadline = time.monotonic() + SETTLED_WITHIN_S
        while self._rows.execute("SELECT 1 FROM function_versions WHERE settled = 0").fetchone():
            assert time.monotonic() < deadline, "a function does not settle"
            time.sleep(0.002)

    def digest(self) -> str:
        """Of all rows."""
        found = hashlib.sha256()
        for table in self._tables:
            for row in sorted(map(repr, self._read(table))):
                found.update(row.encode())
        return found.hexdigest()

    def log_digest(self) -> str:
        """Of the folders and the sizes of the files that logs are in."""
        files = sorted(self._logs.rglob("*"))
        return repr([(str(file), file.stat().st_size if file.is_file() else 0) for file in files])

    def _read(self, table: str) -> list[tuple[Any, ...]]:
        if table == "records":
            found = self._rows.execute("SELECT kind, document, * FROM records")
            return [row for row in map(_at_rest, found) if row]
        query = f"SELECT * FROM {table}"
        if table == "record_lookups":
            query += " WHERE kind != 'event-source-mapping'"
        return list(self._rows.execute(query))


def _at_rest(row: tuple[Any, ...]) -> tuple[Any, ...]:
    """A record; an event source mapping as it will be once it has settled, nothing if it is going then."""
    if row[0] != "event-source-mapping":
        return row
    document = json.loads(row[1])
    if document["shown"].get("State") == "Deleting":
        return ()
    document["shown"] = {k: v for k, v in document["shown"].items() if k not in _MOVING}
    return (document["shown"]["UUID"], json.dumps(document, sort_keys=True))
