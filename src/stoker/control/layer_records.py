"""Layers as they are kept: a record a layer, one a version, and one under each code that a version names.

The layer's own record outlives its versions: it remembers the last number, which is never given again.
"""

import msgspec

from stoker.core.errors import ServiceError
from stoker.services.layers import (
    CODE_KIND,
    LAYER_KIND,
    POLICY_KIND,
    LayerKey,
    LayerVersion,
    version_key,
)
from stoker.services.records import (
    PAGE_SIZE_MAX,
    Change,
    Put,
    Record,
    RecordChanged,
    RecordExists,
    RecordKey,
    RecordMissing,
    Records,
    Remove,
    Shelf,
)

ATTEMPTS_MAX = 100
"""Publications and deletions of one layer at the same time take turns by trying again."""

_LIVE = "live"
"""Under this, layers that have a version are listed."""


class _Layer(msgspec.Struct, frozen=True, kw_only=True):
    """One layer: ``code_bytes`` is the sum over the versions there are, ``latest`` the newest of them."""

    last_number: int = 0
    code_bytes: int = 0
    latest: LayerVersion | None = None


class LayerRecords:
    """Layers over the records port; every write is one transaction."""

    def __init__(self, records: Records) -> None:
        self._records = records
        self._layers: Shelf[_Layer] = Shelf(records, LAYER_KIND, _Layer)
        self._versions: Shelf[LayerVersion] = Shelf(records, LayerVersion.KIND, LayerVersion)

    async def get(self, layer: LayerKey, number: int) -> LayerVersion | None:
        """A version, or None."""
        found = await self._versions.get(version_key(layer, number))
        return None if found is None else found.value

    async def versions(self, layer: LayerKey, *, below: int | None, limit: int) -> list[LayerVersion]:
        """Up to ``limit`` versions, newest first, those with smaller numbers than ``below``."""
        after = None if below is None else (layer.name, version_key(layer, below).name)
        found = await self._versions.page(
            layer.account, layer.region, owner=layer.name, after=after, descending=True, limit=limit
        )
        return [entry.value for entry in found]

    async def latest(self, account: str, region: str, *, after: str, limit: int) -> list[LayerVersion]:
        """The newest version of up to ``limit`` layers with names after ``after``, in the order of names."""
        found = await self._layers.referring(account, region, _LIVE, after=("", after), limit=limit)
        return [entry.value.latest for entry in found if entry.value.latest is not None]

    async def code_bytes(self, account: str, region: str) -> int:
        """Bytes of the archives of all versions of an account in a region."""
        total_bytes, after = 0, ""
        while True:
            page = await self._layers.referring(account, region, _LIVE, after=("", after))
            total_bytes += sum(entry.value.code_bytes for entry in page)
            if len(page) < PAGE_SIZE_MAX:
                return total_bytes
            after = page[-1].key.name

    async def publish(self, version: LayerVersion, revision_id: str) -> LayerVersion:
        """Store ``version`` under the next number of its layer.

        Raises:
            ServiceError: too many others publish the same layer at this moment; nothing was stored.
        """
        for _ in range(ATTEMPTS_MAX):
            stored, expected = await self._stored(version.layer)
            numbered = msgspec.structs.replace(version, number=stored.last_number + 1)
            layer = _Layer(
                last_number=numbered.number,
                code_bytes=stored.code_bytes + numbered.size_bytes,
                latest=numbered,
            )
            key = version_key(numbered.layer, numbered.number)
            named = Record(key=_code_key(numbered), revision_id=revision_id, document=b"")
            changes = (
                self._put(numbered.layer, layer, revision_id, expected),
                Put(self._versions.record(key, numbered, revision_id)),
                Put(named),
            )
            if await self._written(changes):
                return numbered
        raise _busy()

    async def delete(self, layer: LayerKey, number: int, revision_id: str) -> LayerVersion | None:
        """Delete a version with its policy; returns what was deleted, None when there is none.

        Raises:
            ServiceError: too many others change the same layer at this moment; nothing was deleted.
        """
        for _ in range(ATTEMPTS_MAX):
            deleted = await self.get(layer, number)
            if deleted is None:
                return None
            stored, expected = await self._stored(layer)
            newest = [one for one in await self.versions(layer, below=None, limit=2) if one.number != number]
            left = msgspec.structs.replace(
                stored,
                code_bytes=stored.code_bytes - deleted.size_bytes,
                latest=newest[0] if newest else None,
            )
            changes: list[Change] = [
                self._put(layer, left, revision_id, expected),
                Remove(version_key(layer, number)),
                Remove(_code_key(deleted)),
            ]
            policy = policy_key(layer, number)
            if await self._records.get(policy) is not None:
                changes.append(Remove(policy))
            if await self._written(changes):
                return deleted
        raise _busy()

    async def _stored(self, layer: LayerKey) -> tuple[_Layer, str | None]:
        """The layer's own record and its revision, which whatever is written next must find again."""
        found = await self._layers.get(self._key(layer))
        return (_Layer(), None) if found is None else (found.value, found.revision_id)

    def _put(self, layer: LayerKey, value: _Layer, revision_id: str, expected: str | None) -> Put:
        lookups = () if value.latest is None else (_LIVE,)
        record = self._layers.record(self._key(layer), value, revision_id, lookups=lookups)
        return Put(record, expected)

    def _key(self, layer: LayerKey) -> RecordKey:
        return self._layers.key(layer.account, layer.region, "", layer.name)

    async def _written(self, changes: list[Change] | tuple[Change, ...]) -> bool:
        """False when another one was first."""
        try:
            await self._records.write(changes)
        except (RecordExists, RecordMissing, RecordChanged):
            return False
        return True


def policy_key(layer: LayerKey, number: int) -> RecordKey:
    """Where the policy of a version is kept."""
    return RecordKey(POLICY_KIND, layer.account, layer.region, layer.name, str(number))


async def is_layer_code(records: Records, code_sha256: str) -> bool:
    """Whether any version of any layer names this code."""
    return bool(await records.page(CODE_KIND, "", "", owner=code_sha256, limit=1))


def _code_key(version: LayerVersion) -> RecordKey:
    """Of no account: code is asked after by its name alone."""
    return RecordKey(CODE_KIND, "", "", version.code_sha256, version.arn)


def _busy() -> ServiceError:
    return ServiceError("TooManyRequestsException", "Rate exceeded")
