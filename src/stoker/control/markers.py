"""Markers of paged answers: where the next page begins, opaque to the caller. Pure."""

import base64

from stoker.core.errors import ServiceError, invalid_parameter

PAGE_MAX = 50
"""Items in one answer, however many the caller asks for (AWS's bound for functions, versions and aliases)."""


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
