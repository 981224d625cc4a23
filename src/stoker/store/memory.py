"""Fakes of the metadata, queue and object ports for tests. They can be told to fail."""

from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec

from stoker.core.errors import StokerError
from stoker.services.functions import (
    LATEST,
    VERSIONS_PAGE_MAX,
    FunctionExists,
    FunctionKey,
    FunctionMissing,
    FunctionRecord,
    FunctionVersion,
    Publication,
    Publish,
    ReservationRefused,
    RevisionMismatch,
    VersionInUse,
    is_settled,
)
from stoker.services.objects import FetchedObject, ObjectError, ObjectTooBig
from stoker.services.queue import Delivery, EventExists, QueuedEvent, QueueFull
from stoker.services.records import Change, Put, Record, Requirement
from stoker.store.deliveries import delivery_size_bytes
from stoker.store.queue import event_size_bytes


class Failing:
    """Raises a prepared error at the next call, once."""

    def __init__(self) -> None:
        self._next_error: Exception | None = None

    def fail_next(self, error: Exception) -> None:
        """The next call raises ``error`` and does nothing."""
        self._next_error = error

    def _check(self) -> None:
        error, self._next_error = self._next_error, None
        if error is not None:
            raise error


class MemoryFunctionMetadata(Failing):
    """Functions in dictionaries."""

    def __init__(self) -> None:
        super().__init__()
        self._functions: dict[FunctionKey, FunctionRecord] = {}
        self._versions: dict[tuple[FunctionKey, str], FunctionVersion] = {}
        self._last: dict[FunctionKey, int] = {}
        self.is_referred_to: Callable[[FunctionKey, str, str], bool] = lambda key, kind, lookup: False
        """Whether a record of that kind and of the key's account and region has that lookup."""
        self.write_records: Callable[[Sequence[Change], Sequence[Requirement]], None] = (
            lambda _changes, _requires: None
        )
        """Writes records all or none, as ``Records.write``."""
        self.deleted: list[Callable[[FunctionKey], None]] = []
        """Called for each function that was deleted."""

    def is_there(self, key: FunctionKey, version: str | None) -> bool:
        """Whether the function, or that version of it, is stored."""
        return key in self._functions if version is None else (key, version) in self._versions

    async def create(
        self,
        function: FunctionRecord,
        latest: FunctionVersion,
        first: FunctionVersion | None = None,
        *,
        records: Sequence[Record] = (),
        requires: Sequence[Requirement] = (),
    ) -> None:
        self._check()
        if function.key in self._functions:
            raise FunctionExists(function.key.arn)
        self._functions[function.key] = function
        try:
            self.write_records([Put(record) for record in records], requires)
        except StokerError:
            del self._functions[function.key]
            raise
        self._last[function.key] = 0 if first is None else first.number
        for version in (latest, first):
            if version is not None:
                self._versions[version.key, version.version] = version

    async def publish(self, key: FunctionKey, decide: Publish) -> Publication:
        self._check()
        self._existing(key)
        last = self._last[key]
        made = decide(self._versions[key, LATEST], self._versions.get((key, str(last))), last + 1)
        self._versions[key, LATEST] = made.latest
        if made.published is not None:
            self._versions[key, made.published.version] = made.published
            self._last[key] = last + 1
        return made

    async def delete_version(self, key: FunctionKey, version: str, *, unless: tuple[str, str]) -> None:
        self._check()
        if self.is_referred_to(key, *unless):
            raise VersionInUse(f"{key.arn}:{version}")
        if self._versions.pop((key, version), None) is None:
            raise FunctionMissing(f"{key.arn}:{version}")

    async def list_versions(
        self,
        account: str,
        region: str,
        *,
        name: str | None = None,
        after: tuple[str, int] = ("", -1),
        limit: int = VERSIONS_PAGE_MAX,
    ) -> list[FunctionVersion]:
        self._check()
        places = {
            (key.name, version.number): version
            for (key, _), version in self._versions.items()
            if (key.account, key.region) == (account, region) and name in (None, key.name)
        }
        return [places[place] for place in sorted(places) if place > after][:limit]

    async def function(self, key: FunctionKey) -> FunctionRecord | None:
        self._check()
        return self._functions.get(key)

    async def version(self, key: FunctionKey, version: str) -> FunctionVersion | None:
        self._check()
        return self._versions.get((key, version))

    async def described(
        self, key: FunctionKey, version: str
    ) -> tuple[FunctionRecord, FunctionVersion] | None:
        self._check()
        found = self._versions.get((key, version))
        return None if found is None else (self._functions[key], found)

    async def replace_version(self, version: FunctionVersion, expected_revision_id: str) -> None:
        self._check()
        stored = self._versions.get((version.key, version.version))
        if stored is None:
            raise FunctionMissing(version.arn)
        if stored.revision_id != expected_revision_id:
            raise RevisionMismatch(version.arn)
        self._versions[version.key, version.version] = version

    async def list_latest(
        self, account: str, region: str, *, after_name: str, limit: int
    ) -> list[FunctionVersion]:
        self._check()
        found = [
            version
            for (key, number), version in self._versions.items()
            if (key.account, key.region) == (account, region) and number == LATEST and key.name > after_name
        ]
        return sorted(found, key=lambda version: version.key.name)[:limit]

    async def unsettled(self) -> list[FunctionVersion]:
        self._check()
        return [version for version in self._versions.values() if not is_settled(version)]

    async def delete(self, key: FunctionKey) -> list[FunctionVersion]:
        self._check()
        if self._functions.pop(key, None) is None:
            raise FunctionMissing(key.arn)
        for callback in self.deleted:
            callback(key)
        return [self._versions.pop(place) for place in list(self._versions) if place[0] == key]

    async def set_reserved_concurrency(
        self, key: FunctionKey, value: int | None, *, total_max: int | None = None
    ) -> None:
        self._check()
        function = self._existing(key)
        if value is not None and total_max is not None:
            total = await self.total_reserved_concurrency(key.account, key.region)
            if total - (function.reserved_concurrency or 0) + value > total_max:
                raise ReservationRefused(key.arn)
        self._functions[key] = msgspec.structs.replace(function, reserved_concurrency=value)

    async def change_tags(self, key: FunctionKey, change: Callable[[dict[str, str]], dict[str, str]]) -> None:
        self._check()
        function = self._existing(key)
        self._functions[key] = msgspec.structs.replace(function, tags=change(dict(function.tags)))

    async def total_reserved_concurrency(self, account: str, region: str) -> int:
        self._check()
        return sum(
            function.reserved_concurrency or 0
            for key, function in self._functions.items()
            if (key.account, key.region) == (account, region)
        )

    async def code_is_used(self, code_sha256: str) -> bool:
        self._check()
        return any(code_sha256 in version.codes for version in self._versions.values())

    async def usage(self, account: str, region: str) -> tuple[int, int]:
        self._check()
        here = [
            version
            for (key, _), version in self._versions.items()
            if (key.account, key.region) == (account, region)
        ]
        return len({version.key for version in here}), sum(version.code_size_bytes for version in here)

    def _existing(self, key: FunctionKey) -> FunctionRecord:
        function = self._functions.get(key)
        if function is None:
            raise FunctionMissing(key.arn)
        return function


class MemoryEventQueue(Failing):
    """Events in a dictionary, with the same bound and leases as the real queue."""

    def __init__(self, *, capacity_bytes: int) -> None:
        super().__init__()
        self._capacity_bytes = capacity_bytes
        self._events: dict[str, QueuedEvent] = {}
        self._due_at_s: dict[str, float] = {}
        self.deliveries = MemoryDeliveryQueue()

    async def put(self, event: QueuedEvent, *, lease_s: float = 0.0) -> None:
        self._check()
        if event.request_id in self._events:
            raise EventExists(event.request_id)
        _, used_bytes = await self.depth()
        if used_bytes + event_size_bytes(event) > self._capacity_bytes:
            raise QueueFull(f"{used_bytes} of {self._capacity_bytes} bytes wait")
        self._events[event.request_id] = event
        self._due_at_s[event.request_id] = event.due_at_s + lease_s

    async def take(self, *, now_s: float, limit: int, lease_s: float) -> list[QueuedEvent]:
        self._check()
        due = sorted((at_s, request_id) for request_id, at_s in self._due_at_s.items() if at_s <= now_s)
        taken = [
            msgspec.structs.replace(self._events[request_id], due_at_s=at_s)
            for at_s, request_id in due[:limit]
        ]
        self._due_at_s.update((event.request_id, now_s + lease_s) for event in taken)
        return taken

    async def reschedule(self, event: QueuedEvent) -> None:
        self._check()
        if event.request_id in self._events:
            self._events[event.request_id] = event
            self._due_at_s[event.request_id] = event.due_at_s

    async def settle(self, request_id: str, deliveries: Sequence[Delivery] = ()) -> None:
        self._check()
        if self._events.pop(request_id, None) is not None:
            self.deliveries.add(deliveries)
        self._due_at_s.pop(request_id, None)

    async def next_due_s(self) -> float | None:
        self._check()
        return min(self._due_at_s.values(), default=None)

    async def depth(self) -> tuple[int, int]:
        events_bytes = sum(event_size_bytes(event) for event in self._events.values())
        return len(self._events), events_bytes + self.deliveries.size_bytes()


class MemoryDeliveryQueue(Failing):
    """Deliveries in a dictionary, with leases."""

    def __init__(self) -> None:
        super().__init__()
        self._deliveries: dict[str, Delivery] = {}
        self._due_at_s: dict[str, float] = {}

    def add(self, added: Sequence[Delivery]) -> None:
        """Put what an event left."""
        self._deliveries.update((one.delivery_id, one) for one in added)
        self._due_at_s.update((one.delivery_id, one.due_at_s) for one in added)

    def size_bytes(self) -> int:
        """What all count together."""
        return sum(map(delivery_size_bytes, self._deliveries.values()))

    async def take(self, *, now_s: float, limit: int, lease_s: float) -> list[Delivery]:
        self._check()
        due = sorted((at_s, name) for name, at_s in self._due_at_s.items() if at_s <= now_s)[:limit]
        self._due_at_s.update((name, now_s + lease_s) for _, name in due)
        return [self._deliveries[name] for _, name in due]

    async def postpone(self, deliveries: Sequence[Delivery]) -> None:
        self._check()
        self.add([one for one in deliveries if one.delivery_id in self._deliveries])

    async def remove(self, delivery_id: str) -> None:
        self._check()
        self._deliveries.pop(delivery_id, None)
        self._due_at_s.pop(delivery_id, None)

    async def next_due_s(self) -> float | None:
        self._check()
        return min(self._due_at_s.values(), default=None)

    async def count(self) -> int:
        return len(self._deliveries)


class MemoryObjectSource(Failing):
    """Objects in a dictionary by (bucket, key); fetched into ``folder``."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self._folder = folder
        self.objects: dict[tuple[str, str], bytes] = {}

    async def fetch(self, bucket: str, key: str, version: str | None, *, limit_bytes: int) -> FetchedObject:
        self._check()
        if not any(name == bucket for name, _ in self.objects):
            raise ObjectError("NoSuchBucket", "The specified bucket does not exist")
        content = self.objects.get((bucket, key))
        if content is None:
            raise ObjectError("NoSuchKey", "The specified key does not exist.")
        if len(content) > limit_bytes:
            raise ObjectTooBig(key)
        file = self._folder / f"fetched-{len(list(self._folder.iterdir()))}"
        file.write_bytes(content)
        return FetchedObject(file, version)
