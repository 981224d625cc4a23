"""Provisioned concurrency as the rooms know it: how many sandboxes a version or alias keeps initialised.

``control`` writes the configurations and has the manager keep them; ``frontend`` reads what they leave.
"""

from typing import Final

import msgspec

from stoker.services.functions import FunctionKey
from stoker.services.records import RecordKey, Records, Shelf

PROVISIONED_CONCURRENCY: Final = "provisioned-concurrency"
"""The kind of their records: owned by the function, named after the version or alias."""


class ProvisionedConcurrency(msgspec.Struct, frozen=True, kw_only=True):
    """What was asked for."""

    requested: int
    last_modified_s: float


ProvisionedShelf = Shelf[ProvisionedConcurrency]


def provisioned_shelf(records: Records) -> ProvisionedShelf:
    """The configurations among the records."""
    return Shelf(records, PROVISIONED_CONCURRENCY, ProvisionedConcurrency)


def provisioned_key(key: FunctionKey, qualifier: str) -> RecordKey:
    """Where the configuration of a version or alias is kept."""
    return RecordKey(PROVISIONED_CONCURRENCY, key.account, key.region, key.name, qualifier)
