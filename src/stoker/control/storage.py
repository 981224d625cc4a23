"""The account's limit on stored code, without summing every function at every creation."""

from stoker.control.layer_records import LayerRecords
from stoker.control.ports import Ports
from stoker.core.errors import ServiceError
from stoker.services.functions import FunctionKey
from stoker.services.layers import LayerKey

PLACES_MAX = 1024
"""Accounts and regions with an estimate; more are read anew."""


class CodeStorage:
    """An estimate per account and region: what was read, plus all that was added since, deletions ignored.

    Read again when it seems full. Bytes of a creation that is under way at that very moment may be missed.
    """

    def __init__(self, ports: Ports, layers: LayerRecords) -> None:
        self._metadata = ports.metadata
        self._layers = layers
        self._max_bytes = ports.code_storage_max_bytes
        self._estimates: dict[tuple[str, str], int] = {}

    async def claim(self, key: FunctionKey | LayerKey, size_bytes: int) -> None:
        """Count bytes that are about to be stored.

        Raises:
            ServiceError: CodeStorageExceededException; nothing was counted.
        """
        place = (key.account, key.region)
        if not self._fits(place, size_bytes):
            _, used_bytes = await self._metadata.usage(key.account, key.region)
            used_bytes += await self._layers.code_bytes(key.account, key.region)
            if len(self._estimates) >= PLACES_MAX:
                self._estimates.clear()
            self._estimates[place] = used_bytes
        if not self._fits(place, size_bytes):
            raise ServiceError(
                "CodeStorageExceededException", "Code storage limit exceeded.", fields={"Type": "User"}
            )
        self._estimates[place] += size_bytes

    def _fits(self, place: tuple[str, str], size_bytes: int) -> bool:
        estimate = self._estimates.get(place)
        return estimate is not None and estimate + size_bytes <= self._max_bytes
