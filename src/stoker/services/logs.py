"""Function logs: written behind the invocation, read by people and by the CloudWatch Logs operations."""

from typing import Protocol

import msgspec


class LogEvent(msgspec.Struct, frozen=True):
    """One line (or record) of a stream; ``event_id`` orders events of equal time."""

    timestamp_ms: int
    message: str
    stream: str
    ingestion_ms: int
    event_id: str


class LogStreamInfo(msgspec.Struct, frozen=True):
    """A stream: one per sandbox."""

    name: str
    created_ms: int
    first_event_ms: int | None
    last_event_ms: int | None
    last_ingestion_ms: int | None
    stored_bytes: int


class LogGroupInfo(msgspec.Struct, frozen=True):
    """A group: by default one per function, ``/aws/lambda/NAME``."""

    name: str
    created_ms: int
    stored_bytes: int
    retention_days: int | None


class LogPage(msgspec.Struct, frozen=True):
    """Events and where to go on."""

    events: tuple[LogEvent, ...]
    forward_token: str | None
    backward_token: str | None


class LogWriter(Protocol):
    """One sandbox's stream. ``append`` never waits, never touches the disk; overflow drops and says so."""

    def append(self, timestamp_ms: int, message: str) -> None: ...

    @property
    def congested(self) -> bool:
        """The store is behind: stop reading what the events come from for a while."""
        ...

    def close(self) -> None: ...


class InvalidToken(ValueError):
    """A paging token that the store did not make."""


class LogStore(Protocol):
    """All logs of (account, region) pairs; bounded and rotated on disk."""

    def writer(self, account: str, region: str, group: str, stream: str) -> LogWriter:
        """Open a stream for writing, making group and stream where they are new."""
        ...

    async def groups(
        self, account: str, region: str, *, prefix: str, after: str, limit: int
    ) -> list[LogGroupInfo]: ...

    async def streams(
        self, account: str, region: str, group: str, *, prefix: str, by_last_event: bool, descending: bool
    ) -> list[LogStreamInfo] | None:
        """None when there is no such group."""
        ...

    async def events(
        self,
        account: str,
        region: str,
        group: str,
        *,
        streams: tuple[str, ...] | None,
        start_ms: int,
        end_ms: int,
        token: str | None,
        limit: int,
        from_head: bool = True,
    ) -> LogPage | None:
        """Events with start_ms <= timestamp < end_ms of the named streams (None: all), merged by time.

        Returns None when the group or a named stream does not exist. A page's tokens are always set: ``f/``
        (later events) or ``b/`` (earlier ones) and an event id; an empty page's lead back to where it began.

        Raises:
            InvalidToken: ``token`` was made up.
        """
        ...

    async def create_group(self, account: str, region: str, group: str) -> bool:
        """False when it exists already."""
        ...

    async def create_stream(self, account: str, region: str, group: str, stream: str) -> bool | None:
        """False when it exists already, None when there is no such group."""
        ...

    async def delete_stream(self, account: str, region: str, group: str, stream: str) -> bool | None:
        """False when there is no such stream, None when there is no such group."""
        ...

    async def delete_group(self, account: str, region: str, group: str) -> bool: ...

    async def set_retention(self, account: str, region: str, group: str, days: int | None) -> bool: ...

    async def flush(self) -> None:
        """Everything appended so far is readable."""
        ...

    async def close(self) -> None: ...


def named_group(arn: str) -> str:
    """The group's name in the ARN of a group or of all its streams; empty when it names none."""
    return arn.partition(":log-group:")[2].removesuffix(":*")
