"""Objects of an S3-compatible store that a caller names as the source of code."""

from pathlib import Path
from typing import Protocol

import msgspec

from stoker.core.errors import StokerError


class FetchedObject(msgspec.Struct, frozen=True):
    """A local copy that belongs to the caller, who deletes it, and the version that was fetched."""

    path: Path
    version: str | None = None


class ObjectError(StokerError):
    """The store refused; ``code`` and ``message`` are S3's own (``NoSuchKey``, ...)."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code
        self.message = message


class ObjectTooBig(StokerError):
    """The object is larger than the caller wants."""


class ObjectSource(Protocol):
    """Fetches objects into files."""

    async def fetch(self, bucket: str, key: str, version: str | None, *, limit_bytes: int) -> FetchedObject:
        """Download one object; never keeps more than ``limit_bytes``.

        Raises:
            ObjectError: as S3 answered, or ``ServiceUnavailable`` when it could not be reached.
            ObjectTooBig: nothing was kept.
        """
        ...
