"""Aliases as the rooms know them: names of a function that point at one published version, or two by weight.

``control`` writes them, ``frontend`` resolves invocations by them; they are kept as records.
"""

import re
from typing import Final

import msgspec

from stoker.services.functions import FunctionKey
from stoker.services.records import Record, RecordKey, Records, Shelf

ALIAS: Final = "alias"
"""The kind of their records. A record's revision is the alias's RevisionId."""


_NAME: Final = re.compile(r"(?!^[0-9]+$)([a-zA-Z0-9-_]+)", re.ASCII)
"""Alias in the API's model."""


class Alias(msgspec.Struct, frozen=True, kw_only=True):
    """What an alias stands for."""

    version: str
    description: str = ""
    additional: dict[str, float] = {}
    """Further versions with their share of the invocations (0 to 1); at most one."""


AliasShelf = Shelf[Alias]


def alias_shelf(records: Records) -> AliasShelf:
    """The aliases among the records."""
    return Shelf(records, ALIAS, Alias)


def is_alias_name(qualifier: str) -> bool:
    """Whether an alias could have that name: neither a number nor $LATEST."""
    return _NAME.fullmatch(qualifier) is not None


def alias_key(function: FunctionKey, name: str) -> RecordKey:
    """Where an alias of a function is kept."""
    return RecordKey(ALIAS, function.account, function.region, function.name, name)


def version_lookup(function_name: str, version: str) -> str:
    """What the aliases that refer to a version are found by."""
    return f"{function_name}:{version}"


def alias_record(shelf: AliasShelf, key: RecordKey, alias: Alias, revision_id: str) -> Record:
    """The record that keeps an alias: it goes away with its function and is found by its versions."""
    lookups = tuple(version_lookup(key.owner, version) for version in (alias.version, *alias.additional))
    return shelf.record(key, alias, revision_id, function=key.owner, lookups=lookups)
