"""Pages of lists and the markers between them: where the next one begins, opaque to the caller. Pure.

A marker holds the name of the last item, its version, or (owner, name) of a record.
"""

import base64
from collections.abc import Sequence
from typing import TypeVar

import msgspec

from stoker.core.errors import ServiceError, invalid_parameter
from stoker.services.records import Entry

T = TypeVar("T")

PAGE_MAX = 50
"""Items in one answer, however many the caller asks for (AWS's bound for functions, versions and aliases)."""

_decoder = msgspec.json.Decoder(tuple[str, str])


def place_of(marker: str | None) -> tuple[str, str] | None:
    """The place that a marker names, None without one.

    Raises:
        ServiceError: it is not a marker of ours.
    """
    if not marker:
        return None
    try:
        return _decoder.decode(base64.b64decode(marker, altchars=b"-_", validate=True))
    except (ValueError, msgspec.DecodeError) as problem:
        raise invalid_parameter("The marker is not one that an earlier answer gave.") from problem


def page_of(found: Sequence[Entry[T]], limit: int) -> tuple[Sequence[Entry[T]], str | None]:
    """Up to ``limit`` of the entries and the marker for more; read ``limit`` + 1 to learn whether."""
    if len(found) <= limit:
        return found, None
    last = found[limit - 1].key
    return found[:limit], base64.urlsafe_b64encode(msgspec.json.encode((last.owner, last.name))).decode()


def page_size(max_items: int | None) -> int:
    """How many items a caller gets who asks for so many."""
    return min(max_items or PAGE_MAX, PAGE_MAX)


def marker(place: str) -> str:
    """The marker behind an item."""
    return base64.urlsafe_b64encode(place.encode()).decode()


def marked_place(given: str | None, operation: str) -> str:
    """What ``marker`` was given; empty without a marker.

    Raises:
        ServiceError: no such marker was ever given out.
    """
    try:
        return base64.b64decode(given or "", altchars=b"-_", validate=True).decode()
    except ValueError as problem:
        raise _unknown(operation) from problem


def version_marker(name: str, number: int) -> str:
    """The marker behind a version of a function."""
    return marker(f"{name}:{number}")


def marked_version(given: str | None, operation: str) -> tuple[str, int]:
    """What ``version_marker`` was given; before all versions without a marker.

    Raises:
        ServiceError: as ``marked_place``.
    """
    if not given:
        return "", -1
    name, _, number = marked_place(given, operation).rpartition(":")
    if not number.isascii() or not number.isdecimal() or len(number) > 9:
        raise _unknown(operation)
    return name, int(number)


def _unknown(operation: str) -> ServiceError:
    return invalid_parameter(f"The marker is not one that {operation} gave.")
