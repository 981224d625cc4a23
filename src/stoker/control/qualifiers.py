"""From a target's qualifier to the version it stands for: a number, an alias, $LATEST or none."""

import msgspec

from stoker.control.lookup import Target
from stoker.control.messages import alias_not_found, function_not_found
from stoker.core.errors import ServiceError
from stoker.services.aliases import Alias, AliasShelf, alias_key, is_alias_name
from stoker.services.functions import LATEST, FunctionMetadata, FunctionVersion
from stoker.services.records import Entry, FunctionThere, RecordThere, Requirement


class Resolved(msgspec.Struct, frozen=True):
    """The version behind a qualifier, and the alias if the qualifier is one (then its primary version)."""

    version: FunctionVersion
    alias: Entry[Alias] | None = None


def qualifier_not_found(found: Target) -> ServiceError:
    """404 as operations on aliases word it; GetFunction and Invoke always answer ``function_not_found``."""
    if found.qualifier is not None and is_alias_name(found.qualifier):
        return alias_not_found(found.arn)
    return function_not_found(found.arn)


async def find(metadata: FunctionMetadata, aliases: AliasShelf, found: Target) -> Resolved | None:
    """What the target's qualifier stands for now, or None; no qualifier means $LATEST."""
    alias, number = None, found.qualifier or LATEST
    if is_alias_name(number):
        alias = await aliases.get(alias_key(found.key, number))
        if alias is None:
            return None
        number = alias.value.version
    version = await metadata.version(found.key, number)
    return None if version is None else Resolved(version, alias)


async def version_number(aliases: AliasShelf, found: Target) -> str | None:
    """The version that the qualifier names now, stored or not; None for an alias that is not there."""
    if found.qualifier is None or not is_alias_name(found.qualifier):
        return found.qualifier or LATEST
    alias = await aliases.get(alias_key(found.key, found.qualifier))
    return None if alias is None else alias.value.version


async def resolve(metadata: FunctionMetadata, aliases: AliasShelf, found: Target) -> Resolved:
    """As ``find``.

    Raises:
        ServiceError: 404 ``Function not found: ...``, with the qualifier.
    """
    resolved = await find(metadata, aliases, found)
    if resolved is None:
        raise function_not_found(found.arn)
    return resolved


def stays(found: Target) -> Requirement:
    """What must still hold, when something is written about a qualifier that was found a moment ago."""
    if found.qualifier is not None and is_alias_name(found.qualifier):
        return RecordThere(alias_key(found.key, found.qualifier))
    return FunctionThere(found.key, found.qualifier or LATEST)
