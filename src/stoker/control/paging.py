"""Markers: where a list goes on. Opaque to callers, (owner, name) of the last record shown to us."""

import base64
from collections.abc import Sequence
from typing import TypeVar

import msgspec

from stoker.core.errors import invalid_parameter
from stoker.services.records import Entry

T = TypeVar("T")

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
